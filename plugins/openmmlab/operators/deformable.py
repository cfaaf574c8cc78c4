"""Deformable convolution (Dai et al., 2017), and the modulated one (Zhu et al., 2019), on torchvision's kernels.

Shapes: input (B, C, H, W), weight (O, C / group, kH, kW), offset (B, 2 * deformable_group * kH * kW, H', W') of pairs
(y, x), mask (B, deformable_group * kH * kW, H', W'), output (B, O, H', W'). The buffers of the compiled kernels
(`columns`, `ones`) and their `im2col_step` are not needed.
"""

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from pdiff_plugins.openmmlab.operators.precision import full
from torch import Tensor
from torch.nn.functional import pad


def unmodulated(input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return what torchvision takes for mask and bias where there are none."""
    return input.new_zeros(len(input), 1), input.new_zeros(len(weight))


def as_read(x: Tensor, output: Tensor) -> Tensor:
    """Return offsets or masks as mmcv's modulated kernel reads them: as if they had the size of the output.

    Of larger ones, which DyHead hands in, it takes the first numbers of each image, wherever they belong.
    """
    if x.shape[2:] == output.shape[2:]:
        return x
    channels, size = x.shape[1], output.shape[2:]
    return x.flatten(1)[:, : channels * size.numel()].unflatten(1, (channels, *size))


def add_as_read(total: Tensor, grad: Tensor) -> None:
    """Add to the gradient of offsets or masks that of what was read of them."""
    grad = grad.flatten(1)
    total += pad(grad, (0, total.flatten(1).shape[1] - grad.shape[1])).view_as(total)


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Fill `output` with the convolution at the shifted places."""
    geometry = dH, dW, padH, padW, dilationH, dilationW, group, deformable_group
    tensors = input, weight, offset, *unmodulated(input, weight)
    output.copy_(torch.ops.torchvision.deform_conv2d(*map(full, tensors), *geometry, False))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Add the gradients of input and offset to `gradInput` and `gradOffset`."""
    geometry = dH, dW, padH, padW, dilationH, dilationW, group, deformable_group
    tensors = gradOutput, input, weight, offset, *unmodulated(input, weight)
    grads = torch.ops.torchvision._deform_conv2d_backward(*map(full, tensors), *geometry, False)
    gradInput += grads[0]
    gradOffset += grads[2]


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add the gradient of the weight, times `scale`, to `gradWeight`; it does not depend on the weight."""
    geometry = dH, dW, padH, padW, dilationH, dilationW, group, deformable_group
    weight = torch.zeros_like(gradWeight)
    tensors = gradOutput, input, weight, offset, *unmodulated(input, weight)
    gradWeight += scale * torch.ops.torchvision._deform_conv2d_backward(*map(full, tensors), *geometry, False)[1]


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Fill `output` with the convolution at the shifted places, each weighted by `mask`."""
    geometry = stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group
    bias = bias if with_bias else input.new_zeros(len(weight))
    tensors = input, weight, as_read(offset, output), as_read(mask, output), bias
    output.copy_(torch.ops.torchvision.deform_conv2d(*map(full, tensors), *geometry, True))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Add the gradients of all five tensors to those of the call; without a bias, `grad_bias` has no elements."""
    geometry = stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group
    read = as_read(offset, grad_output), as_read(mask, grad_output)
    tensors = grad_output, input, weight, *read, input.new_zeros(len(weight))
    grads = torch.ops.torchvision._deform_conv2d_backward(*map(full, tensors), *geometry, True)
    grad_input += grads[0]
    grad_weight += grads[1]
    add_as_read(grad_offset, grads[2])
    add_as_read(grad_mask, grads[3])
    if with_bias:
        grad_bias += grads[4]
