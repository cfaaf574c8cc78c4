"""FID as of infinitely many images, and its test-set noise, by the jackknife over groups of images.

FID is biased upwards by a term in 1/n of the numbers of images (Chong and Forsyth, 2020, arXiv 1911.07023, who
extrapolate a line over several n). The jackknife removes the same term from the FIDs with one group left out (Efron and
Tibshirani, 1993, An Introduction to the Bootstrap, chapters 10 and 11). They follow from sums over the groups: no
feature is computed again.
"""

import torch
from torch import Tensor

from pdiff import generator


def moments(features: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return means `(G + 1, F)` and covariances `(G + 1, F, F)` of features `(n, F)`: of all, and without each group.

    Args:
        features: in double precision; group g is the g-th share of the rows.
        groups: number of groups G.
    """
    parts = features.tensor_split(groups)
    counts = torch.tensor([len(part) for part in parts], dtype=features.dtype)
    sums, products = torch.stack([part.sum(0) for part in parts]), torch.stack([part.T @ part for part in parts])
    n, sums, products = (torch.cat([x.sum(0, keepdim=True), x.sum(0) - x]) for x in (counts, sums, products))
    means = sums / n[:, None]
    covariances = products - n[:, None, None] * means[:, :, None] * means[:, None]
    return means, covariances / (n - 1)[:, None, None]


def root(matrices: Tensor) -> Tensor:
    """Return the symmetric roots of positive semi-definite matrices `(..., F, F)`."""
    values, vectors = torch.linalg.eigh(matrices)
    return vectors * values.clamp(min=0).sqrt()[..., None, :] @ vectors.mT


def trace(matrices: Tensor) -> Tensor:
    """Return the traces of matrices `(..., F, F)`."""
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)


class Jackknife:
    """FID to the real images of a split, one pseudo-value per group; group g is a share of the real images and noises.

    Args:
        real: features of the real images `(R, F)`.
        groups: number of groups G.
        seed: of the real images' shares; their order may be by class.
    """

    def __init__(self, real: Tensor, groups: int, seed: int):
        order = torch.randperm(len(real), generator=generator(seed, "groups"))
        real = real.double()[order]
        self.groups, self.origin = groups, real.mean(0)  # products of centred features keep more digits
        self.means, self.covariances = moments(real - self.origin, groups)
        self.roots = root(self.covariances)

    def fids(self, features: Tensor) -> Tensor:
        """Return the FIDs `(G + 1,)` of a candidate's features `(n, F)`: of all images, and without each group."""
        means, covariances = moments(features.double() - self.origin, self.groups)
        # The eigenvalues of C1 C2 are those of the symmetric C1^(1/2) C2 C1^(1/2).
        values = torch.linalg.eigvalsh(self.roots @ covariances @ self.roots).clamp(min=0)
        traces = trace(self.covariances) + trace(covariances) - 2 * values.sqrt().sum(-1)
        return (self.means - means).square().sum(-1) + traces

    def __call__(self, features: Tensor) -> Tensor:
        """Return the pseudo-values `(G,)` of a candidate's features `(n, F)`: `G FID - (G - 1) FID without group g`.

        Their mean is the FID without its term in 1/n; their standard deviation, over the root of G, its standard error.
        """
        fids = self.fids(features)
        return self.groups * fids[0] - (self.groups - 1) * fids[1:]
