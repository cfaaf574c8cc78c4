"""What a candidate makes of the same noise as others, and how alike two candidates are by that."""

import torch
from torch import Tensor


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return `1 / (1 + d)` for every pair of candidates.

    d is the mean, over the noises, of the Euclidean distance between the features of the two images that the two
    candidates make of one noise, in units of the mean distance between two different real images. So 1 means equal
    output, 1/2 that the images of one noise are as far apart as real images that have nothing to do with each other.
    A candidate whose images are not finite is like none: 0.

    Args:
        a: features `(A, S, F)` in those units, infinite where the images are not finite.
        b: `(B, S, F)`.

    Returns:
        `(A, B)`.
    """
    # By products, as torch does it for many points, equal features would not be at distance 0.
    d = torch.cdist(a.transpose(0, 1), b.transpose(0, 1), compute_mode="donot_use_mm_for_euclid_dist").mean(0)
    return torch.where(d.isfinite(), 1 / (1 + d), 0.0)
