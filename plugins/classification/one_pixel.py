"""Convolutions that are one matrix product where their output is a single pixel.

A network that is made for photographs ends, on images of 32 pixels, in maps of one pixel. There eight in nine weights
of a kernel of 3 x 3 meet nothing but padding, and still the convolution spends time on them, most of all on a processor
without AVX-512.
"""

from torch import Tensor, nn
from torch.nn.functional import linear


def overlap(size: int, kernel: int, stride: int, padding: int) -> tuple[slice, slice] | None:
    """Return the pixels and the weights that meet along one axis where there is one output; None where there are more.

    Args:
        size: pixels of the input.
        kernel: weights of the kernel.
        stride, padding: of the convolution.
    """
    if kernel <= padding or not 0 <= size + 2 * padding - kernel < stride:
        return None
    common = min(size, kernel - padding)
    return slice(0, common), slice(padding, padding + common)


def flat(maps: Tensor) -> Tensor:
    """Return `(N, H * W * C)` of maps `(N, C, H, W)`, side by side in memory: a product is slow over anything else."""
    return maps.permute(0, 2, 3, 1).flatten(1).contiguous()


class OnePixelConv2d(nn.Conv2d):
    """A convolution without groups or dilation that takes the short way to an output of one pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out_channels, H', W')` of `(B, in_channels, H, W)`; equal to nn.Conv2d's but for rounding."""
        axes = [overlap(*axis) for axis in zip(x.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)]
        if None in axes:
            return super().forward(x)
        (rows, kernel_rows), (columns, kernel_columns) = axes
        pixels, weight = x[:, :, rows, columns], self.weight[:, :, kernel_rows, kernel_columns]
        return linear(flat(pixels), flat(weight), self.bias)[:, :, None, None]


def is_plain(module: nn.Module) -> bool:
    """Say whether a module is a convolution for which `OnePixelConv2d` can stand in."""
    if type(module) is not nn.Conv2d or isinstance(module.padding, str):
        return False
    return module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"


def shorten_convolutions(model: nn.Module) -> nn.Module:
    """Return `model`, its plain convolutions `OnePixelConv2d` from now on; names and parameters stay."""
    for module in model.modules():
        if is_plain(module):
            module.__class__ = OnePixelConv2d
    return model
