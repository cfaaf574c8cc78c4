"""The two halves of a convolution that is computed at some places only (guided anchoring, Wang et al., 2019)."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Fill `col` (C * kernel_h * kernel_w, M) with the windows of `im` (1, C, H, W) at M places; outside it is 0.

    Args:
        im: the one feature map.
        mask_h_idx: rows of the output (M,).
        mask_w_idx: columns of the output (M,).
        col: to be filled.
        kernel_h: height of a window.
        kernel_w: width of a window.
        pad_h: rows by which the first window begins above the feature map.
        pad_w: columns by which the first window begins left of it.
    """
    padded = pad(im[0], (pad_w, kernel_w, pad_h, kernel_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows[:, None], columns[None]].flatten(0, 2))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Put the columns of `col` (channels, M) to M places of `im` (1, channels, height, width)."""
    im[0][:, mask_h_idx, mask_w_idx] = col
