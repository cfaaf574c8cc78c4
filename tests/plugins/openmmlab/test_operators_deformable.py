"""Deformable convolutions, values and gradients, against torch's grid_sample and a sum over the kernel's cells."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from pdiff_plugins.openmmlab.extension import provide_operators

pytest.importorskip("mmcv")
pytestmark = pytest.mark.filterwarnings("ignore:.*MultiScaleDeformableAttention.*:ImportWarning")

B, C, OUT, H, W = 2, 4, 6, 7, 8
GEOMETRIES = [
    {"kernel_size": (3, 3), "padding": (1, 1)},
    {"kernel_size": (3, 2), "padding": (2, 0), "stride": (2, 1), "dilation": (1, 2)},
    {"kernel_size": (3, 3), "padding": (1, 1), "groups": 2},
    {"kernel_size": (2, 3), "padding": (0, 1), "deform_groups": 2},
    {"kernel_size": (1, 3), "padding": (1, 1), "groups": 2, "deform_groups": 4},
]


@pytest.fixture(scope="module")
def ops():
    """Return `mmcv.ops` with the stand-in."""
    if not provide_operators():
        pytest.skip("a compiled mmcv is installed")
    return importlib.import_module("mmcv.ops")


@pytest.fixture(autouse=True)
def seeded():
    """Let every test draw the same random numbers."""
    torch.manual_seed(0)


def leaf(*shape) -> torch.Tensor:
    """Return random numbers in double precision that want a gradient."""
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def output_size(kernel_size, stride=(1, 1), padding=(0, 0), dilation=(1, 1), **rest) -> list[int]:
    """Return height and width of the output."""
    reach = [dilation[i] * (kernel_size[i] - 1) + 1 for i in (0, 1)]
    return [((H, W)[i] + 2 * padding[i] - reach[i]) // stride[i] + 1 for i in (0, 1)]


def deformable(
    x,
    offset,
    weight,
    mask=None,
    bias=None,
    stride=(1, 1),
    padding=(0, 0),
    dilation=(1, 1),
    groups=1,
    deform_groups=1,
    **rest,
):
    """Return the convolution: for each cell of the kernel, sample the input at the shifted places, weight, and add."""
    height, width = offset.shape[2:]
    cells = weight.shape[2] * weight.shape[3]
    offset = offset.unflatten(1, (deform_groups, cells, 2))
    mask = torch.ones_like(offset[:, :, :, 0]) if mask is None else mask.unflatten(1, (deform_groups, cells))
    y = torch.arange(height)[:, None] * stride[0] - padding[0]
    x_ = torch.arange(width) * stride[1] - padding[1]
    columns = []
    for cell in range(cells):
        i, j = divmod(cell, weight.shape[3])
        parts = []
        for group, channels in enumerate(x.chunk(deform_groups, 1)):
            down = y + i * dilation[0] + offset[:, group, cell, 0]
            across = x_ + j * dilation[1] + offset[:, group, cell, 1]
            grid = torch.stack([2 * across / (W - 1) - 1, 2 * down / (H - 1) - 1], -1)
            parts.append(F.grid_sample(channels, grid, align_corners=True) * mask[:, group, cell, None])
        columns.append(torch.cat(parts, 1))
    columns = torch.stack(columns, 2).unflatten(1, (groups, -1))
    result = torch.einsum("bgckhw,gock->bgohw", columns, weight.flatten(2).unflatten(0, (groups, -1))).flatten(1, 2)
    return result if bias is None else result + bias[:, None, None]


def check(own: torch.Tensor, reference: torch.Tensor, *leaves: torch.Tensor) -> None:
    """Compare two outputs and their gradients."""
    torch.testing.assert_close(own, reference)
    weights = torch.randn_like(own)
    grads = [torch.autograd.grad((output * weights).sum(), leaves) for output in (own, reference)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_deform_conv_samples_at_the_shifted_places(ops, geometry):
    layer = ops.DeformConv2d(C, OUT, **geometry).double()
    cells = geometry["kernel_size"][0] * geometry["kernel_size"][1]
    x, offset = leaf(B, C, H, W), leaf(B, geometry.get("deform_groups", 1) * cells * 2, *output_size(**geometry))
    check(layer(x, offset), deformable(x, offset, layer.weight, **geometry), x, offset, layer.weight)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_modulated_deform_conv_weights_what_it_samples(ops, geometry, bias):
    layer = ops.ModulatedDeformConv2d(C, OUT, bias=bias, **geometry).double()
    leaves = list(layer.parameters())
    if bias:
        torch.nn.init.normal_(layer.bias)
    number = geometry.get("deform_groups", 1) * geometry["kernel_size"][0] * geometry["kernel_size"][1]
    size = output_size(**geometry)
    x, offset, mask = leaf(B, C, H, W), leaf(B, 2 * number, *size), leaf(B, number, *size)
    reference = deformable(x, offset, layer.weight, mask, layer.bias, **geometry)
    check(layer(x, offset, mask), reference, x, offset, mask, *leaves)


def test_images_may_be_computed_in_parts(ops):
    layer = ops.DeformConv2d(C, OUT, 3, padding=1, im2col_step=1).double()
    x, offset = leaf(B, C, H, W), leaf(B, 18, H, W)
    check(layer(x, offset), deformable(x, offset, layer.weight, padding=(1, 1)), x, offset, layer.weight)


def test_of_larger_offsets_the_first_numbers_of_each_image_are_read(ops):
    """DyHead relies on it (https://github.com/microsoft/DynamicHead/issues/25)."""
    layer = ops.ModulatedDeformConv2d(C, OUT, 3, padding=1, bias=False).double()
    x, offset, mask = leaf(B, C, H, W), leaf(B, 18, 2 * H, 2 * W), leaf(B, 9, 2 * H, 2 * W)
    read = [tensor.reshape(B, -1)[:, : n * H * W].reshape(B, n, H, W) for tensor, n in ((offset, 18), (mask, 9))]
    reference = deformable(x, read[0], layer.weight, read[1], padding=(1, 1))
    check(layer(x, offset, mask), reference, x, offset, mask, layer.weight)


@pytest.mark.parametrize(("name", "factor"), [("DeformConv2dPack", 1), ("ModulatedDeformConv2dPack", 0.5)])
def test_a_new_layer_is_a_plain_convolution(ops, name, factor):
    layer = getattr(ops, name)(C, OUT, 3, padding=1)
    x = torch.randn(B, C, H, W)
    torch.testing.assert_close(layer(x), factor * F.conv2d(x, layer.weight, padding=1))


def test_memory_formats_make_no_difference(ops):
    layer = ops.ModulatedDeformConv2dPack(C, OUT, 3, padding=1)
    torch.nn.init.normal_(layer.conv_offset.weight)
    x = torch.randn(B, C, H, W, requires_grad=True)
    formats = [x, x.to(memory_format=torch.channels_last)]
    outputs = [layer(tensor) for tensor in formats]
    torch.testing.assert_close(*outputs)
    leaves = [x, *layer.parameters()]
    torch.testing.assert_close(*(torch.autograd.grad(output.square().sum(), leaves) for output in outputs))
