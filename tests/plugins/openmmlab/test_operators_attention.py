"""Multi-scale deformable attention, against a loop over points."""

import importlib
from itertools import product
from math import floor

import pytest
import torch
from pdiff_plugins.openmmlab.extension import provide_operators

pytest.importorskip("mmcv")
pytestmark = pytest.mark.filterwarnings("ignore:.*MultiScaleDeformableAttention.*:ImportWarning")

B, Q, HEADS, D, POINTS = 2, 3, 2, 2, 2
LEVELS = ((3, 4), (2, 2))


@pytest.fixture(scope="module")
def ops():
    """Return `mmcv.ops` with the stand-in."""
    if not provide_operators():
        pytest.skip("a compiled mmcv is installed")
    return importlib.import_module("mmcv.ops")


@pytest.fixture
def attend(ops):
    """Return the attention as mmcv computes it on a GPU: by the compiled operator."""
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    levels = torch.tensor(LEVELS), torch.tensor([0, 12])
    return lambda value, *rest: MultiScaleDeformableAttnFunction.apply(value, *levels, *rest, 64)


@pytest.fixture
def tensors():
    """Return values, locations (some outside of the image), and weights."""
    torch.manual_seed(0)
    shape = (B, Q, HEADS, len(LEVELS), POINTS)
    tensors = torch.randn(B, 16, HEADS, D), 1.4 * torch.rand(*shape, 2) - 0.2, torch.rand(shape)
    return [tensor.double().requires_grad_() for tensor in tensors]


def sample(cells, y, x) -> torch.Tensor:
    """Return the values (D,) of a level (H, W, D) between the centres of its cells; outside of it there are zeros."""
    top, left = floor(y.item()), floor(x.item())
    total = 0
    for row, column in product((top, top + 1), (left, left + 1)):
        if 0 <= row < cells.shape[0] and 0 <= column < cells.shape[1]:
            total = total + (1 - (y - row).abs()) * (1 - (x - column).abs()) * cells[row, column]
    return total


def loop(value, locations, weights) -> torch.Tensor:
    """Return the attention (B, Q, HEADS * D), point by point."""
    results = []
    for b, q, head in product(range(B), range(Q), range(HEADS)):
        total, start = torch.zeros(D, dtype=value.dtype), 0
        for level, (height, width) in enumerate(LEVELS):
            cells = value[b, start : start + height * width, head].view(height, width, D)
            start += height * width
            for point in range(POINTS):
                x, y = locations[b, q, head, level, point]
                total = total + weights[b, q, head, level, point] * sample(cells, y * height - 0.5, x * width - 0.5)
        results.append(total)
    return torch.stack(results).view(B, Q, HEADS * D)


def check(own, reference, leaves) -> None:
    """Compare two outputs and their gradients."""
    torch.testing.assert_close(own, reference)
    weights = torch.randn_like(own)
    torch.testing.assert_close(*(torch.autograd.grad((output * weights).sum(), leaves) for output in (own, reference)))


def test_deformable_attention_is_a_loop_over_points(attend, tensors):
    check(attend(*tensors), loop(*tensors), tensors)


def test_deformable_attention_has_the_gradient_of_its_differences(attend, tensors):
    assert torch.autograd.gradcheck(attend, tensors)


def test_the_attention_layer_computes_what_the_operator_computes(ops, attend):
    """On a CPU the layer does without the operator."""
    torch.manual_seed(0)
    layer = ops.MultiScaleDeformableAttention(8, HEADS, len(LEVELS), POINTS, dropout=0.0, batch_first=True)
    query, value, reference = torch.randn(B, Q, 8), torch.randn(B, 16, 8), torch.rand(B, Q, len(LEVELS), 2)
    shapes = torch.tensor(LEVELS)
    expected = layer(query, value=value, reference_points=reference, spatial_shapes=shapes)
    shift = layer.sampling_offsets(query).view(B, Q, HEADS, len(LEVELS), POINTS, 2)
    locations = reference[:, :, None, :, None] + shift / shapes.flip(1)[:, None]
    weights = layer.attention_weights(query).view(B, Q, HEADS, -1).softmax(-1).view(B, Q, HEADS, len(LEVELS), POINTS)
    own = attend(layer.value_proj(value).view(B, 16, HEADS, -1), locations, weights)
    torch.testing.assert_close(layer.output_proj(own) + query, expected)
