"""RoIAlign and RoIPool, values and gradients, against loops over bins and points that autograd differentiates."""

import importlib
from itertools import product
from math import ceil, floor

import pytest
import torch
import torchvision
from pdiff_plugins.openmmlab.extension import provide_operators

pytest.importorskip("mmcv")
pytestmark = pytest.mark.filterwarnings("ignore:.*MultiScaleDeformableAttention.*:ImportWarning")

SIZE = (2, 3)
SCALE = 0.25
ROIS = torch.tensor(
    [
        [0, 4.0, 2, 19, 17],
        [1, -6, -3, 11, 9],  # begins outside
        [0, 20, 14, 60, 50],  # ends outside
        [1, 9, 8, 10.5, 9.5],  # smaller than a cell
        [1, 90, 90, 99, 99],  # outside
    ],
    dtype=torch.float64,
)


@pytest.fixture(scope="module")
def ops():
    """Return `mmcv.ops` with the stand-in."""
    if not provide_operators():
        pytest.skip("a compiled mmcv is installed")
    return importlib.import_module("mmcv.ops")


@pytest.fixture
def features():
    """Return feature maps (2, 2, 7, 8)."""
    torch.manual_seed(0)
    return torch.randn(2, 2, 7, 8, dtype=torch.float64, requires_grad=True)


def value_and_gradient(function, features, seed=1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a function of the feature maps, and the gradient of a random projection of it."""
    value = function(features)
    weights = torch.randn(value.shape, dtype=value.dtype, generator=torch.Generator().manual_seed(seed))
    return value.detach(), torch.autograd.grad((value * weights).sum(), features)[0]


def check(own, reference, features) -> None:
    """Compare values and gradients of two functions of the feature maps."""
    for a, b in zip(value_and_gradient(own, features), value_and_gradient(reference, features), strict=True):
        torch.testing.assert_close(a, b)


def bilinear(image, y, x) -> torch.Tensor:
    """Return the values (C,) of an image (C, H, W) at a point; one cell further out it is 0."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return image.new_zeros(len(image))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = floor(y), floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = (1 - x + left) * image[:, top, left] + (x - left) * image[:, top, right]
    lower = (1 - x + left) * image[:, bottom, left] + (x - left) * image[:, bottom, right]
    return (1 - y + top) * upper + (y - top) * lower


def align(features, rois, ratio, mode, aligned) -> torch.Tensor:
    """Return RoIAlign: the mean or maximum of the points of each bin."""
    results = []
    for image, *corners in rois.tolist():
        x1, y1, x2, y2 = (c * SCALE - 0.5 * aligned for c in corners)
        height, width = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
        step_y, step_x = height / SIZE[0], width / SIZE[1]
        down, across = (ratio, ratio) if ratio > 0 else (ceil(step_y), ceil(step_x))
        for row, column in product(range(SIZE[0]), range(SIZE[1])):
            ys = [y1 + (row + (i + 0.5) / down) * step_y for i in range(down)]
            xs = [x1 + (column + (i + 0.5) / across) * step_x for i in range(across)]
            points = torch.stack([bilinear(features[int(image)], y, x) for y, x in product(ys, xs)])
            results.append(points.mean(0) if mode == "avg" else points.max(0).values)
    return torch.stack(results).view(len(rois), *SIZE, -1).permute(0, 3, 1, 2)


def pool(features, rois, scale) -> torch.Tensor:
    """Return RoIPool: the maximum of the cells that each bin touches; 0 for none."""
    results = []
    height, width = features.shape[2:]
    for image, x1, y1, x2, y2 in rois.tolist():
        top, left, bottom, right = y1 * scale, x1 * scale, (y2 + 1) * scale, (x2 + 1) * scale
        step_y, step_x = (bottom - top) / SIZE[0], (right - left) / SIZE[1]
        for i, j in product(range(SIZE[0]), range(SIZE[1])):
            rows = slice(max(floor(top + i * step_y), 0), min(max(ceil(top + (i + 1) * step_y), 0), height))
            columns = slice(max(floor(left + j * step_x), 0), min(max(ceil(left + (j + 1) * step_x), 0), width))
            cells = features[int(image), :, rows, columns].flatten(1)
            results.append(cells.amax(1) if cells.shape[1] else cells.sum(1))
    return torch.stack(results).view(len(rois), *SIZE, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 1, 2])
def test_roi_align_is_a_loop_over_points(ops, features, ratio, mode, aligned):
    layer = ops.RoIAlign(SIZE, SCALE, ratio, mode, aligned)
    check(lambda x: layer(x, ROIS), lambda x: align(x, ROIS, ratio, mode, aligned), features)


def test_roi_align_takes_strided_gradients_and_single_precision(ops, features):
    layer = ops.RoIAlign(SIZE, SCALE)
    value, gradient = value_and_gradient(lambda x: layer(x, ROIS).transpose(2, 3), features)
    expected = value_and_gradient(lambda x: align(x, ROIS, 0, "avg", True).transpose(2, 3), features)
    torch.testing.assert_close((value, gradient), expected)
    torch.testing.assert_close(layer(features.float(), ROIS.float()), value.transpose(2, 3).float())


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_of_a_roi_without_extent_is_nothing(ops, features, mode):
    point = torch.tensor([[0, 8.0, 8, 8, 8]], dtype=torch.float64)
    for array in value_and_gradient(lambda x: ops.RoIAlign(SIZE, SCALE, 0, mode)(x, point), features):
        assert not array.any()


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.3])
def test_roi_pool_is_a_loop_over_bins(ops, features, scale):
    layer = ops.RoIPool(SIZE, scale)
    check(lambda x: layer(x, ROIS), lambda x: pool(x, ROIS, scale), features)


def test_roi_pool_of_whole_cells_is_that_of_torchvision(ops, features):
    rois = torch.tensor([[0, 1, 2, 6, 5], [1, 0, 0, 7, 6], [1, 3, 3, 3, 3]], dtype=torch.float64)
    check(lambda x: ops.roi_pool(x, rois, SIZE, 1.0), lambda x: torchvision.ops.roi_pool(x, rois, SIZE, 1.0), features)


def test_roi_pool_of_a_roi_with_wrong_corners_is_nothing(ops, features):
    rois = torch.tensor([[0, 12.0, 4, 4, 12]], dtype=torch.float64)
    for array in value_and_gradient(lambda x: ops.roi_pool(x, rois, SIZE, SCALE), features):
        assert not array.any()


@pytest.mark.parametrize("make", ["RoIAlign", "RoIAlignMax", "RoIPool"])
def test_no_rois_are_no_problem(ops, features, make):
    layer = ops.RoIPool(SIZE, SCALE) if make == "RoIPool" else ops.RoIAlign(SIZE, SCALE, 0, make[8:].lower() or "avg")
    value, gradient = value_and_gradient(lambda x: layer(x, ROIS[:0]), features)
    assert value.shape == (0, 2, *SIZE)
    assert not gradient.any()
