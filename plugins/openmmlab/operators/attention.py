"""Multi-scale deformable attention (Zhu et al., 2021); masks of point-wise spatial attention (Zhao et al., 2018)."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

COLLECT = 0


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
        value_level_start_index: the first cell of each level (levels,).
        sampling_locations: (B, Q, heads, levels, points, 2), as x and y from 0 to 1.
        attention_weights: (B, Q, heads, levels, points).
        im2col_step: images per pass of the compiled kernel, not needed.
    """
    heads = value.shape[2]
    values = value.permute(0, 2, 3, 1).flatten(0, 1)
    grids = (2 * sampling_locations - 1).transpose(1, 2).flatten(0, 1)
    weights = attention_weights.transpose(1, 2).flatten(0, 1)
    starts, shapes = value_level_start_index.tolist(), value_spatial_shapes.tolist()
    output = 0
    for level, (start, (height, width)) in enumerate(zip(starts, shapes, strict=True)):
        cells = values.narrow(-1, start, height * width).unflatten(-1, (height, width))
        samples = grid_sample(cells, grids[:, :, level], padding_mode="zeros", align_corners=False)
        output = output + (samples * weights[:, None, :, level]).sum(-1)
    return output.unflatten(0, (-1, heads)).permute(0, 3, 1, 2).flatten(2)


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
    """Add the gradients of values, locations and weights to `grad_value` and the two others."""
    leaves = [x.detach().requires_grad_() for x in (value, sampling_locations, attention_weights)]
    levels = value_spatial_shapes, value_level_start_index
    with torch.enable_grad():
        output = ms_deform_attn_forward(leaves[0], *levels, *leaves[1:], im2col_step)
    grads = torch.autograd.grad(output, leaves, grad_output)
    for total, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        total.add_(grad)


def psamask_rows(
    mask: Tensor,
    attention: Tensor,
    psa_type: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield, for each row of cells, the part of the mask that lies on the feature map and where it belongs.

    The mask of a cell says how much each cell around it is attended to; the attention says it by that other cell.

    Args:
        mask: (B, h_mask * w_mask, H, W).
        attention: (B, H * W, H, W): who attends to the cell (collect), or the cell to whom (distribute).
        psa_type: 0 collect, 1 distribute.
        h_feature: H.
        w_feature: W.
        h_mask: rows of a mask.
        w_mask: columns of a mask.
        half_h_mask: the row of a mask that lies on its own cell.
        half_w_mask: the column of a mask that lies on its own cell.

    Returns:
        views of the mask (B, rows, w_mask, W) and of the attention (B, rows, W, W), with which columns (B, rows, W, W)
        of the mask go into the attention, and which of these really are in the mask.
    """
    mask = mask.unflatten(1, (h_mask, w_mask))
    attention = attention.unflatten(1, (h_feature, w_feature))
    if psa_type != COLLECT:
        attention = attention.permute(0, 3, 4, 1, 2)
    place = torch.arange(w_feature, device=mask.device)
    column = place[:, None] - place + half_w_mask
    real = (column >= 0) & (column < w_mask)
    for h in range(h_feature):
        first, last = max(0, half_h_mask - h), min(h_mask, h_feature + half_h_mask - h)
        part = mask[:, first:last, :, h]
        goal = attention[:, first + h - half_h_mask : last + h - half_h_mask, :, h]
        yield part, goal, column.clamp(0, w_mask - 1).expand_as(goal), real.expand_as(goal)


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Fill `output` (B, H * W, H, W) with the attention of masks `input` (B, h_mask * w_mask, H, W)."""
    sizes = h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask
    for part, goal, column, real in psamask_rows(input, output, psa_type, *sizes):
        goal.copy_(part.gather(2, column) * real)


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Add to `grad_input` (B, h_mask * w_mask, H, W) what `grad_output` (B, H * W, H, W) means for it."""
    sizes = h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask
    for part, goal, column, real in psamask_rows(grad_input, grad_output, psa_type, *sizes):
        part.scatter_add_(2, column, goal * real)
