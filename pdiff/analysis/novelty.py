"""Are the new parameters new? Similarity of what candidates get wrong, copies of trained ones, and averages of them."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.analysis.references import coordinates_of, nearest_distance
from pdiff.analysis.statistics import superiority
from pdiff.weights.gram import centred_gram, centred_products
from pdiff.weights.vectors import Rows, Vectors

COPYING = 0.01  # an accusation needs more than the usual 0.05: trained vectors are no independent draws
SUBSPACE = 0.99  # of the trained vectors' variance
TOLD_APART = 0.75  # of the pairs; halfway between always and by chance


@dataclass(frozen=True)
class Copying:
    """Whether candidates lie closer to the trained vectors than held-out ones do.

    Attributes:
        statistic: z; negative where the candidates are closer.
        p: one-sided, of being no closer.
        copies: p is below `COPYING`.
        own: the candidates' median distance.
        reference: that of the held-out ones.
    """

    statistic: float
    p: float
    copies: bool
    own: float
    reference: float


@dataclass(frozen=True)
class Averaging:
    """How behaviour tells averages of a few trained ones from others: by similarity to the average of all, the soup.

    Attributes:
        trained: probability that an average is nearer to the soup than a trained one.
        generated: probability that it is nearer than a generated one.
    """

    trained: float
    generated: float

    @property
    def average_like(self) -> bool:
        """Averages can be told from the trained ones, but not from the generated."""
        return self.generated < TOLD_APART <= self.trained


def nearest_similarity(similarity: Tensor, leave_self_out: bool) -> Tensor:
    """Return each candidate's largest similarity to a trained one, from a table `(M, N)`."""
    if leave_self_out:
        similarity = similarity.clone().fill_diagonal_(-torch.inf)
    return similarity.max(1).values


def closer(own: NDArray, reference: NDArray) -> Copying:
    """Test whether distances `own` `(M,)` are smaller than distances `reference` `(H,)`.

    z is the statistic of Mann and Whitney without its mean and over its standard deviation, neither corrected for
    equals: with these, or with a handful of distances, p is too large rather than too small.
    """
    m, h = len(own), len(reference)
    farther = superiority(own, reference, higher_is_better=True)
    z = (farther - 0.5) * math.sqrt(12 * m * h / (m + h + 1))
    p = math.erfc(-z / math.sqrt(2)) / 2
    return Copying(z, p, p < COPYING, float(np.median(own)), float(np.median(reference)))


def copying(generated: Vectors, trained: Tensor | Rows, heldout: Vectors | None = None) -> Copying:
    """Test for data-copying (Meehan, Chaudhuri and Dasgupta 2020, arXiv 2004.05675).

    Vectors that are closer to the trained ones than held-out vectors of the same origin are copies of them rather than
    draws from their distribution. Three things differ from the paper:

    - The paper splits the space into cells and averages z over them, to find copying in one place that distance in
      another hides. That needs tens of held-out vectors per cell; a population holds out ten or so in all. So the
      whole space is one cell, and copying a small part of the population may go unseen.
    - Distances are of the coordinates on the principal axes that hold 99 % of the trained vectors' variance. Noise on
      thousands of coordinates, most of which never move in training, would otherwise hide the copy that it is added to.
    - What lies near the average of all is near to each of them without being a copy of any. So a second test draws the
      held-out vectors towards the average until their median distance from it is that of the generated; an accusation
      needs both, and the weaker one is returned.

    Held-out steps of a fine-tuning have neighbours among the trained ones just before and after. That makes them close
    and the test slow to accuse.

    Args:
        generated: `(M, P)`.
        trained: `(N, P)`, those that the engine was fitted to.
        heldout: `(H, P)`, of the same population, which the engine has not seen. None: the trained ones stand for
            them, each leaving itself out.
    """
    gram = centred_gram(trained)
    axes, explained = coordinates_of(gram)
    axes = axes[:, : int((explained.cumsum(0) < SUBSPACE).sum()) + 1]  # in the trained: inner products are coordinates
    own, fitted = (centred_products(generated, trained) @ axes).float(), (gram @ axes).float()
    reference = fitted if heldout is None else (centred_products(heldout, trained) @ axes).float()
    drawn = min(1.0, (own.norm(dim=1).median() / reference.norm(dim=1).median()).item())
    distance = nearest_distance(own, fitted, leave_self_out=False).numpy()
    references = (nearest_distance(scale * reference, fitted, heldout is None) for scale in (1.0, drawn))
    return max((closer(distance, other.numpy()) for other in references), key=lambda found: found.p)


def averaging(generated: NDArray, trained: NDArray, averages: NDArray) -> Averaging:
    """Return whether the generated can be told from averages of trained ones by how they behave.

    Args:
        generated: similarity of each candidate to the average of all trained ones, the soup `(M,)`.
        trained: that of each trained one `(N,)`.
        averages: that of each average of a few trained ones, soup16 `(A,)`.
    """
    against = (superiority(averages, others, higher_is_better=True) for others in (trained, generated))
    return Averaging(*against)


def pareto_front(metric: NDArray, similarity: NDArray, higher_is_better: bool) -> NDArray:
    """Return which candidates are on the front: none is at least as good and as dissimilar, and better in one of both.

    Args:
        metric: of each candidate `(K,)`; a dead one, at an infinity, is never on the front.
        similarity: largest to a trained one `(K,)`.
        higher_is_better: direction of the metric; similarity is the better the lower.

    Returns:
        Booleans `(K,)`.
    """
    quality = metric if higher_is_better else -metric
    alive = np.isfinite(metric)
    no_worse = (quality[:, None] >= quality) & (similarity[:, None] <= similarity)
    better = (quality[:, None] > quality) | (similarity[:, None] < similarity)
    return alive & ~(no_worse & better & alive[:, None]).any(0)
