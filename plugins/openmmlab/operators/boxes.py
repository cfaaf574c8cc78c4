"""Non-maximum suppression, hard and soft.

A box is (x1, y1, x2, y2); its width is x2 - x1 + `offset`, where `offset` is 1 for corners that are pixels.
"""

import torch
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

NAIVE, LINEAR = 0, 1


def single(threshold: float) -> float:
    """Return the threshold as mmcv's kernels hold it: in single precision, so that an IoU of 0.3f is not above 0.3."""
    return torch.tensor(threshold, dtype=torch.float32).item()


def areas(boxes: Tensor, offset: int = 0) -> Tensor:
    """Return the areas (...) of boxes (..., 4); that of a box with x2 < x1 - offset may be negative."""
    width, height = (boxes[..., 2:] - boxes[..., :2] + offset).unbind(-1)
    return width * height


def overlaps(a: Tensor, b: Tensor, offset: int = 0) -> Tensor:
    """Return intersection over union; 0 / 0 is NaN.

    Args:
        a: boxes (..., 4).
        b: boxes that broadcast with them.
        offset: what a width is longer than x2 - x1.
    """
    corners = torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], dim=-1)
    width, height = (corners[..., 2:] - corners[..., :2] + offset).clamp(min=0).unbind(-1)
    intersection = width * height
    return intersection / (areas(a, offset) + areas(b, offset) - intersection)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the boxes (N, 4) that no better one overlaps too much, best first, ties by index."""
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], dim=1)
    return torchvision_nms(boxes.to(dtype), scores.to(dtype), single(iou_threshold))


def decay(iou: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    """Return the factors by which soft-NMS (Bodla et al., 2017) lowers the scores of boxes of such an IoU."""
    if method not in (NAIVE, LINEAR):
        return torch.exp(-(iou**2) / sigma)
    lowered = 1 - iou if method == LINEAR else torch.zeros_like(iou)
    return torch.where(iou >= single(iou_threshold), lowered, torch.ones_like(iou))


def drop(remaining: Tensor, keep: Tensor) -> Tensor:
    """Return what is kept of `remaining` (N,); the last ones fill the gaps, as in mmcv, where that decides ties."""
    end = int(keep.sum())
    gaps = (~keep[:end]).nonzero()[:, 0]
    result = remaining[:end].clone()
    result[gaps] = remaining[end:][keep[end:]].flip(0)
    return result


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Take the best box, lower the scores of those that overlap it, drop the hopeless ones, and so on.

    Args:
        boxes: (N, 4).
        scores: (N,).
        dets: (N, 5), whose first rows become the boxes taken and their scores at that time.
        iou_threshold: from which IoU on a score is lowered by the naive and the linear method.
        sigma: width of the Gaussian method.
        min_score: boxes are dropped when their score is lowered below this.
        method: 0 naive, 1 linear, 2 Gaussian.
        offset: what a width is longer than x2 - x1.

    Returns:
        the indices of the boxes taken, in that order.
    """
    scores, taken = scores.clone(), []
    remaining = torch.arange(len(boxes), device=boxes.device)
    while len(remaining):
        best = int(scores[remaining].nan_to_num(-torch.inf).argmax())
        index = remaining[best].clone()
        remaining[best] = remaining[0]
        remaining = remaining[1:]
        dets[len(taken)] = torch.cat([boxes[index], scores[index, None]])
        taken.append(index)
        scores[remaining] *= decay(overlaps(boxes[index], boxes[remaining], offset), iou_threshold, sigma, method)
        remaining = drop(remaining, ~(scores[remaining] < min_score))
    return torch.stack(taken) if taken else remaining
