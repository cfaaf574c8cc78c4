"""Distances between generated and real images in a feature space, by torchmetrics: FID and KID.

Features are computed once per image and handed to torchmetrics, whose own network is therefore none.
"""

import math
import warnings

import torch
from torch import Tensor, nn

from pdiff import PdiffError, isolated_seed

SUBSETS, SUBSET = 10, 100


class Given(nn.Module):
    """Takes the place of a feature network: what it is given are features already.

    Args:
        size: number of features F.
    """

    def __init__(self, size: int):
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        """Return features `(B, F)` as they are."""
        return features


def least_images(size: int, groups: int) -> tuple[int, str]:
    """Return how many images a FID needs, and words for what; with F of them or less, covariances would be singular.

    Args:
        size: number of features F.
        groups: of the jackknife, which leaves one out at a time; 0 without it.
    """
    least, words = size + 1, f"{size} features"
    if groups:
        least, words = max(groups, math.ceil(least * groups / (groups - 1))), f"{words} and {groups} groups"
    return least, words


def check_counts(name: str, real: int, images: int, size: int, groups: int) -> None:
    """Raise a `PdiffError` for a split with too few images.

    Args:
        name: of the split.
        real: number of real images.
        images: number of images that each candidate makes.
        size: number of features F.
        groups: of the jackknife; 0 without it.
    """
    least, words = least_images(size, groups)
    if images < least:
        raise PdiffError(
            f"task.images.{name}: got {images}, too few for the FID, expected at least {least} for {words}. "
            "Generate more images, or take fewer features."
        )
    if real < least:
        raise PdiffError(
            f"task.data: got {real} real images in the split {name}, too few for the FID, expected at least {least} "
            f"for {words}. Take more images, or fewer features."
        )


class Distance:
    """FID and KID to the real images of a split, whose statistics are computed once.

    FID is torchmetrics' `FrechetInceptionDistance`, in double precision. KID is its `KernelInceptionDistance`: the mean
    over 10 random subsets of up to 100 images, the same ones for each candidate.

    Args:
        real: features of the real images `(R, F)`.
        fewest: of the numbers of real images and of those of a candidate, the smaller.
        seed: of the subsets.
    """

    def __init__(self, real: Tensor, fewest: int, seed: int):
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        self.seed, size = seed, real.shape[1]
        settings = {"reset_real_features": False, "normalize": True}
        self.fid = FrechetInceptionDistance(Given(size), **settings).to(real.device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save")  # it has to
            subset = min(SUBSET, fewest)
            self.kid = KernelInceptionDistance(Given(size), SUBSETS, subset, **settings).to(real.device)
        self.fid.update(real.double(), real=True)
        self.kid.update(real.double(), real=True)

    def __call__(self, features: Tensor) -> tuple[float, float]:
        """Return FID and KID of a candidate's features `(G, F)`."""
        for metric in (self.fid, self.kid):
            metric.reset()
            metric.update(features.double(), real=False)
        with isolated_seed(self.seed, cuda=False):
            return self.fid.compute().item(), self.kid.compute()[0].item()


def unrelated(real: Tensor, count: int = 300) -> float:
    """Return the mean Euclidean distance between two different ones of (at most) the first `count` real images."""
    return torch.pdist(real[:count]).mean().item()
