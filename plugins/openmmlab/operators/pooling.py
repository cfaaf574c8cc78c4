"""RoIAlign (He et al., 2017), average and maximum, and RoIPool (Girshick, 2015) on continuous bins, as mmcv has it.

A RoI is (image, x1, y1, x2, y2), in pixels of the image; `spatial_scale` takes these to cells of the feature map.
"""

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from pdiff_plugins.openmmlab.operators.precision import full
from torch import Tensor
from torch.nn.functional import max_pool2d

AVERAGE = 1
NOWHERE = -2  # a coordinate outside of every feature map


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill `output` with the mean or maximum of points sampled bilinearly in each bin of each RoI.

    Args:
        input: feature maps (B, C, H, W).
        rois: (N, 5).
        output: (N, C, aligned_height, aligned_width).
        argmax_y: like `output`; for the maximum, it becomes the row of the point that had it, as exactly as it can be.
        argmax_x: the same for the column.
        aligned_height: rows of bins.
        aligned_width: columns of bins.
        spatial_scale: cells per pixel.
        sampling_ratio: points per bin and axis; 0 for about one per cell.
        pool_mode: 0 maximum, 1 average.
        aligned: whether the centre of a cell, instead of its corner, has whole coordinates.
    """
    size = aligned_height, aligned_width
    input, rois = full(input), full(rois)
    if pool_mode == AVERAGE:
        output.copy_(torch.ops.torchvision.roi_align(input, rois, spatial_scale, *size, sampling_ratio, aligned))
        return
    corners = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0)
    start, extent = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not aligned:
        extent = extent.clamp(min=1)
    points = (extent / extent.new_tensor(size[::-1])).ceil().int().clamp(min=0)
    if sampling_ratio > 0:
        points = torch.full_like(points, sampling_ratio)
    output.zero_()
    argmax_y.fill_(NOWHERE)
    argmax_x.fill_(NOWHERE)
    for across, down in points.unique(dim=0).tolist():
        if across * down == 0:
            continue
        alike = (points == points.new_tensor([across, down])).all(1)
        width, height = aligned_width * across, aligned_height * down
        # With a bin for each point, the mean over the point of a bin is the point.
        samples = torch.ops.torchvision.roi_align(input, rois[alike], spatial_scale, height, width, 1, aligned)
        best, index = max_pool2d(samples, (down, across), return_indices=True)
        output[alike] = best.to(output.dtype)
        x, y, step_x, step_y = torch.cat([start, extent], 1)[alike, :, None, None, None].unbind(1)
        argmax_x[alike] = (x + (index % width + 0.5) * step_x / width).to(argmax_x.dtype)
        argmax_y[alike] = (y + (index // width + 0.5) * step_y / height).to(argmax_y.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add to `grad_input` (B, C, H, W) what `grad_output`, of the shape of the output, means for it."""
    batch, channels, height, width = grad_input.shape
    backward = torch.ops.torchvision._roi_align_backward
    if pool_mode == AVERAGE:
        size = aligned_height, aligned_width
        shape = batch, channels, height, width
        tensors = full(grad_output), full(rois)
        grad_input += backward(*tensors, spatial_scale, *size, *shape, sampling_ratio, aligned)
        return
    # Each maximum is one point of one channel: a RoI without extent on a feature map of one channel.
    plane = rois[:, 0, None] * channels + torch.arange(channels, device=rois.device)
    plane = plane[:, :, None, None].expand_as(argmax_x)
    points = torch.stack([plane, argmax_x, argmax_y, argmax_x, argmax_y], -1).double().reshape(-1, 5)
    points[:, 1:] += 0.5
    grad = grad_output.double().reshape(-1, 1, 1, 1)
    grad_input += backward(grad, points, 1.0, 1, 1, batch * channels, 1, height, width, 1, True).view_as(grad_input)


def bins(start: Tensor, end: Tensor, count: int, limit: int) -> Tensor:
    """Return first and behind-last cell (N, count, 2) of the bins between continuous starts and ends (N,).

    Args:
        start: (N,), in cells.
        end: (N,), in cells.
        count: bins of each RoI.
        limit: length of the feature map.
    """
    number = torch.arange(count, device=start.device)
    size = (end - start)[:, None] / count
    first = (number * size + start[:, None]).floor()
    last = ((number + 1) * size + start[:, None]).ceil()
    return torch.stack([first, last], -1).clamp(0, limit).long()


def cells(ranges: Tensor, most: int, limit: int) -> tuple[Tensor, Tensor]:
    """Return the cells (count, K) of each bin, and whether each is really one; all bins get as many as the largest.

    Args:
        ranges: first and behind-last cell (count, 2).
        most: K, cells of the largest bin, at least 1.
        limit: length of the feature map.
    """
    first, last = ranges[:, :1], ranges[:, 1:]
    index = first + torch.arange(most, device=ranges.device)
    return index.clamp(max=limit - 1), index < last


def largest(image: Tensor, rows: Tensor, columns: Tensor, most: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the maximum in each bin, and its place in the flat plane; 0 and -1 where a bin has no cell.

    Args:
        image: (C, H, W).
        rows: first and behind-last row of each bin (PH, 2).
        columns: first and behind-last column of each bin (PW, 2).
        most: rows and columns of the largest bins, at least 1.

    Returns:
        two tensors (C, PH, PW).
    """
    _, height, width = image.shape
    row, row_is_real = cells(rows, most[0], height)
    column, column_is_real = cells(columns, most[1], width)
    place = (row[:, None, :, None] * width + column[None, :, None, :]).flatten(2)
    real = (row_is_real[:, None, :, None] & column_is_real[None, :, None, :]).flatten(2)
    value, index = image.flatten(1)[:, place].masked_fill(~real, -torch.inf).max(-1)
    place = place.expand(len(image), -1, -1, -1).gather(-1, index[..., None])[..., 0]
    empty = ~real.any(-1)
    return value.masked_fill(empty, 0), place.masked_fill(empty, -1)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill `output` with the maximum in each bin of each RoI, and `argmax` with its place; torchvision rounds bins.

    Args:
        input: feature maps (B, C, H, W).
        rois: (N, 5), with whole pixels as corners: the width is x2 - x1 + 1.
        output: (N, C, pooled_height, pooled_width); 0 for a bin or RoI without cells.
        argmax: the same shape; -1 for a bin or RoI without cells.
        pooled_height: rows of bins.
        pooled_width: columns of bins.
        spatial_scale: cells per pixel.
    """
    rois = full(rois)
    x1, y1 = (rois[:, 1:3] * spatial_scale).unbind(1)
    x2, y2 = ((rois[:, 3:] + 1) * spatial_scale).unbind(1)
    exists = (x2 > x1) & (y2 > y1)
    rows = bins(y1, y2, pooled_height, input.shape[2]) * exists[:, None, None]
    columns = bins(x1, x2, pooled_width, input.shape[3]) * exists[:, None, None]
    most = [(ranges[..., 1] - ranges[..., 0]).amax(1).clamp(min=1) for ranges in (rows, columns)]
    # The numbers of all RoIs at once: a GPU would be waited for at each.
    for n, (image, *size) in enumerate(torch.stack([rois[:, 0].long(), *most], 1).tolist()):
        output[n], argmax[n] = largest(input[image], rows[n], columns[n], size)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add `grad_output` (N, C, PH, PW) to `grad_input` (B, C, H, W) where the maxima were."""
    _, channels, height, width = grad_input.shape
    plane = rois[:, 0, None].long() * channels + torch.arange(channels, device=rois.device)
    place = plane[:, :, None, None] * (height * width) + argmax.clamp(min=0)
    grad = full(grad_output).masked_fill(argmax < 0, 0)
    total = full(grad_input).flatten().index_add(0, place.flatten(), grad.flatten())
    grad_input.copy_(total.view_as(grad_input))
