"""Augmentation of whole batches of tensors, so that no core is spent on images one by one."""

import math
from collections.abc import Callable, Sequence

import torch
from mmengine.registry import Registry
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pdiff import build

AUGMENTATIONS = Registry("augmentation", scope="pdiff")


def build_augmentations(cfgs: Sequence[dict], where: str) -> Callable[[Tensor], Tensor]:
    """Return a function of images `(B, C, H, W)` that applies the augmentations of config section `where` in order."""
    steps = [build(AUGMENTATIONS, cfg, where) for cfg in cfgs]

    def augment(images: Tensor) -> Tensor:
        for step in steps:
            images = step(images)
        return images

    return augment


@AUGMENTATIONS.register_module(name="flip")
def flip(probability: float = 0.5) -> Callable[[Tensor], Tensor]:
    """Return a function that mirrors images left to right.

    Args:
        probability: with which an image is mirrored.
    """

    def apply(images: Tensor) -> Tensor:
        chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < probability
        return torch.where(chosen, images.flip(3), images)

    return apply


@AUGMENTATIONS.register_module(name="shift")
def shift(share: float = 0.125) -> Callable[[Tensor], Tensor]:
    """Return a function that moves images by up to `share` of their side, zeros moving in.

    Args:
        share: of the side, at most.
    """

    def apply(images: Tensor) -> Tensor:
        theta = torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)
        theta[:, :, 2] = (torch.rand(len(images), 2, device=images.device) * 2 - 1) * 2 * share
        return grid_sample(images, affine_grid(theta, images.shape, align_corners=False), align_corners=False)

    return apply


@AUGMENTATIONS.register_module(name="resized_crop")
def resized_crop(
    size: int, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (0.75, 4 / 3)
) -> Callable[[Tensor], Tensor]:
    """Return a function that crops a random area of a random aspect ratio and resizes it to `size` x `size`.

    Deviation from torchvision's RandomResizedCrop: where the drawn box does not fit, it is cut to the image instead
    of drawn again.

    Args:
        size: side of the result in pixels.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width over height.
    """

    def apply(images: Tensor) -> Tensor:
        n, device = len(images), images.device
        area = torch.empty(n, device=device).uniform_(*scale)
        aspect = torch.empty(n, device=device).uniform_(math.log(ratio[0]), math.log(ratio[1])).exp()
        half = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], 1).clamp(max=1)
        centre = (torch.rand(n, 2, device=device) * 2 - 1) * (1 - half)
        theta = torch.cat([torch.diag_embed(half), centre[:, :, None]], 2)
        grid = affine_grid(theta, [n, images.shape[1], size, size], align_corners=False)
        return grid_sample(images, grid, padding_mode="border", align_corners=False)

    return apply


@AUGMENTATIONS.register_module(name="noise")
def noise(std: float) -> Callable[[Tensor], Tensor]:
    """Return a function that adds Gaussian noise, in units of the normalised images.

    Args:
        std: standard deviation of the noise.
    """
    return lambda images: images + std * torch.randn_like(images)
