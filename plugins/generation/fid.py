"""Distances between generated and real images in a feature space, by torchmetrics: FID and KID.

Features are computed once per image and handed to torchmetrics, whose own network is therefore none.
"""

import warnings

import torch
from torch import Tensor, nn

from pdiff import PdiffError
from pdiff.seeding import isolated_seed

SUBSETS = 10


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


class Distance:
    """FID and KID to the real images of a split, whose statistics are computed once.

    FID is torchmetrics' `FrechetInceptionDistance`, in double precision. KID is its `KernelInceptionDistance`: the mean
    over 10 random subsets of up to 100 images, the same ones for each candidate.

    Args:
        real: features of the real images `(R, F)`.
        images: number of images that each candidate makes.
        where: the setting of that number.
        seed: of the subsets.

    Raises:
        PdiffError: there are not more images than features: their covariance would be singular.
    """

    def __init__(self, real: Tensor, images: int, where: str, seed: int):
        size = self.size = real.shape[1]
        if images <= size:
            raise PdiffError(
                f"{where}: got {images}, too few for the FID, expected more than the {size} features. "
                "Generate more images, or take fewer features."
            )
        if len(real) <= size:
            split = where.rpartition(".")[2]
            raise PdiffError(
                f"task.data: got {len(real)} real images in the split {split}, too few for the FID, expected more than "
                f"the {size} features. Take more images, or fewer features."
            )
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        self.seed = seed
        settings = {"reset_real_features": False, "normalize": True}
        self.fid = FrechetInceptionDistance(Given(size), **settings).to(real.device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save")  # it has to
            subset = min(100, images, len(real))
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
