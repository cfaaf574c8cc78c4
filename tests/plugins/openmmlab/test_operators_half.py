"""Operators in half precision compute in single precision: what they give is what that gives, rounded."""

import importlib

import pytest
import torch
from pdiff_plugins.openmmlab.extension import provide_operators

pytest.importorskip("mmcv")
pytestmark = pytest.mark.filterwarnings("ignore:.*MultiScaleDeformableAttention.*:ImportWarning")

LEVELS = torch.tensor([[3, 4], [2, 2]])
ROIS = torch.tensor([[0, 4.0, 2, 19, 17], [1, -6, -3, 11, 9], [0, 20, 14, 60, 50], [1, 90, 90, 99, 99]])


def random(*shapes) -> list[torch.Tensor]:
    """Return tensors of random numbers that half precision has, and that want a gradient."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(shape, generator=generator).bfloat16().float().requires_grad_() for shape in shapes]


def attention(ops, value, locations, weights):
    function = ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction
    return function.apply(value, LEVELS, torch.tensor([0, 12]), locations, weights, 64)


CASES = {
    "roi_align": (lambda ops, x, r: ops.roi_align(x, r, 3, 0.25), [*random((2, 3, 7, 8)), ROIS]),
    "roi_align_max": (lambda ops, x, r: ops.roi_align(x, r, 3, 0.25, 1, "max"), [*random((2, 3, 7, 8)), ROIS]),
    "roi_pool": (lambda ops, x, r: ops.roi_pool(x, r, 3, 0.25), [*random((2, 3, 7, 8)), ROIS]),
    "deform_conv": (
        lambda ops, x, o, w: ops.deform_conv2d(x, o, w, 1, 1),
        random((2, 4, 7, 8), (2, 18, 7, 8), (6, 4, 3, 3)),
    ),
    "modulated_deform_conv": (
        lambda ops, x, o, m, w, b: ops.modulated_deform_conv2d(x, o, m, w, b, 1, 1),
        random((2, 4, 7, 8), (2, 18, 7, 8), (2, 9, 7, 8), (6, 4, 3, 3), 6),
    ),
    "sigmoid_focal_loss": (
        lambda ops, x, t: ops.sigmoid_focal_loss(x, t, 2.0, 0.25, None, "none"),
        [*random((9, 4)), torch.arange(9) % 5],
    ),
    "ms_deform_attn": (attention, random((2, 16, 2, 4), (2, 3, 2, 2, 2, 2), (2, 3, 2, 2, 2))),
}
PLACES = {"roi_align_max": 0.01}  # mmcv keeps where a maximum is in the precision of the features


@pytest.fixture(scope="module")
def ops():
    """Return `mmcv.ops` with the stand-in."""
    if not provide_operators():
        pytest.skip("a compiled mmcv is installed")
    return importlib.import_module("mmcv.ops")


def results(ops, name, dtype) -> list[torch.Tensor]:
    """Return the output of a case in a precision, and the gradients of its inputs."""
    function, inputs = CASES[name]
    inputs = [x.detach().to(dtype).requires_grad_(x.requires_grad) if x.is_floating_point() else x for x in inputs]
    output = function(ops, *inputs)
    leaves = [x for x in inputs if x.requires_grad]
    grads = torch.autograd.grad(output, leaves, torch.ones_like(output))
    return [x.detach() for x in (output, *grads)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_single_precision_rounded(ops, name, dtype):
    for half, single in zip(results(ops, name, dtype), results(ops, name, torch.float32), strict=True):
        assert half.dtype == dtype
        bounds = {"atol": PLACES[name], "rtol": 0.016} if name in PLACES else {}
        torch.testing.assert_close(half, single.to(dtype), **bounds)
