"""Multi-scale deformable attention (Zhu et al., 2021), by the function that mmcv itself has for a CPU."""

import torch
from pdiff_plugins.openmmlab.operators.precision import full
from torch import Tensor


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Return the weighted sums (B, Q, heads * D) of values sampled bilinearly; outside of a level they are 0.

    Args:
        value: (B, K, heads, D), the K cells of all levels one behind the other.
        value_spatial_shapes: height and width of each level (levels, 2).
        value_level_start_index: the first cell of each level (levels,); the shapes say it, too.
        sampling_locations: (B, Q, heads, levels, points, 2), as x and y from 0 to 1.
        attention_weights: (B, Q, heads, levels, points).
        im2col_step: images per pass of the compiled kernel, not needed.
    """
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    shapes, tensors = value_spatial_shapes.tolist(), (sampling_locations, attention_weights)
    return multi_scale_deformable_attn_pytorch(full(value), shapes, *map(full, tensors)).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Add the gradients of values, locations and weights, autograd's, to `grad_value` and the two others."""
    leaves = [x.detach().requires_grad_() for x in (value, sampling_locations, attention_weights)]
    levels = value_spatial_shapes, value_level_start_index
    with torch.enable_grad():
        output = ms_deform_attn_forward(leaves[0], *levels, *leaves[1:], im2col_step)
    grads = torch.autograd.grad(output, leaves, grad_output)
    for total, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        total.add_(grad)
