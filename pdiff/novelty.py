"""Are the new parameters new? Similarity of what candidates get wrong, and where vectors lie among the trained ones."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.seeding import generator
from pdiff.statistics import superiority
from pdiff.weights.layout import Layout
from pdiff.weights.products import centred_blocks, centred_gram, centred_products
from pdiff.weights.vectors import Rows, Vectors, along_columns, column_blocks, deviations, mean, parts, pieces

COPYING = 0.01  # an accusation needs more than the usual 0.05: trained vectors are no independent draws
SUBSPACE = 0.99  # of the trained vectors' variance
TOLD_APART = 0.75  # of the pairs; halfway between always and by chance
COORDINATES = 2000


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


@dataclass(frozen=True)
class Projection:
    """Principal axes of the trained vectors.

    Attributes:
        mean: of the trained vectors `(P,)`.
        axes: `(K, P)`, orthonormal; zeros where the vectors do not reach into so many dimensions.
        explained: share of the trained vectors' variance along each axis `(K,)`.
    """

    mean: Tensor
    axes: Tensor
    explained: Tensor


def error_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return |wrong_a AND wrong_b| / |wrong_a OR wrong_b| for every pair; 1 where neither is ever wrong.

    Args:
        a: booleans `(A, S)`, True where candidate A is wrong on sample S.
        b: booleans `(B, S)`.

    Returns:
        `(A, B)`, float32.
    """
    a, b = a.float(), b.float()
    both = a @ b.T
    either = a.sum(1, keepdim=True) + b.sum(1) - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def nearest_similarity(similarity: Tensor, leave_self_out: bool) -> Tensor:
    """Return each candidate's largest similarity to a trained one, from a table `(M, N)`."""
    if leave_self_out:
        similarity = similarity.clone().fill_diagonal_(-torch.inf)
    return similarity.max(1).values


def nearest_distance(vectors: Vectors, trained: Tensor | Rows, leave_self_out: bool) -> Tensor:
    """Return each vector's Euclidean distance to the nearest trained vector.

    Args:
        vectors: `(M, P)`.
        trained: `(N, P)`.
        leave_self_out: the vectors are the trained ones; each leaves itself out.

    Returns:
        `(M,)`. Differences are formed before squaring: the usual expansion into products loses small distances.
    """
    distance = torch.cat([distances(piece, trained) for piece in pieces(vectors)])
    if leave_self_out:
        distance.fill_diagonal_(torch.inf)
    return distance.min(1).values


def distances(vectors: Tensor | Rows, trained: Tensor | Rows) -> Tensor:
    """Return the distances `(M, N)` of vectors `(M, P)` to trained ones `(N, P)`, summed over blocks of columns."""
    squares = torch.zeros(len(vectors), len(trained), dtype=torch.float64)
    for place in column_blocks(vectors, trained):
        block = torch.cdist(vectors[:, place], trained[:, place], compute_mode="donot_use_mm_for_euclid_dist")
        squares += block.double().square()
    return squares.sqrt().to(vectors.dtype)


def spread(vectors: Vectors, trained: Vectors) -> float:
    """Return the mean standard deviation per coordinate, over that of the trained vectors.

    1 means as wide as the trained ones, 0 a single point. Trained vectors that never differ give 1 when these
    do not differ either, else infinity.
    """
    if len(vectors) < 2:
        return 0.0
    own, reference = deviations(vectors).mean().item(), deviations(trained).mean().item()
    if reference == 0:
        return 1.0 if own == 0 else float("inf")
    return own / reference


def principal_axes(trained: Tensor | Rows, count: int = 2) -> Projection:
    """Return the `count` principal axes of vectors `(N, P)`, from their Gram matrix `(N, N)`.

    The sign of an axis is such that its largest entry is positive.
    """
    axes, explained = torch.zeros(count, trained.shape[1]), torch.zeros(count)
    coordinates, shares = coordinates_of(centred_gram(trained))
    reached = min(count, len(shares))
    for place, centred in centred_blocks(trained):
        axes[:reached, place] = (coordinates[:, :reached].T @ centred).float()
    axes *= axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    explained[:reached] = shares[:reached].float()
    return Projection(mean(trained), axes, explained)


def coordinates_of(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return how the principal axes are made of the vectors, and their shares of the variance.

    Args:
        gram: inner products `(N, N)` of the vectors' deviations from their average.

    Returns:
        `(N, K)`: an axis is the sum of the deviations with these weights, and has length 1; and `(K,)`. K counts the
        axes whose variance is not mere rounding of float32.
    """
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    reached = int((values > 1e-6 * values[0]).sum())
    return vectors[:, :reached] / values[:reached].sqrt(), values[:reached] / values.sum()


def project(vectors: Vectors, projection: Projection) -> Tensor:
    """Return the coordinates `(M, K)` of vectors `(M, P)` on the trained vectors' principal axes."""
    return torch.cat([(part - projection.mean) @ projection.axes.T for part in parts(vectors)])


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


def marginal_distance(vectors: Vectors, trained: Tensor | Rows, seed: int) -> float | None:
    """Return the mean over coordinates of Kolmogorov and Smirnov's distance between two sets of vectors.

    0: every coordinate is distributed as in the trained vectors; 1: no coordinate's values overlap. Coordinates
    that never change among the trained are left out; of more than 2,000 others, 2,000 are drawn from the seed,
    without replacement. None where no coordinate changes.

    Args:
        vectors: `(M, P)`.
        trained: `(N, P)`.
        seed: of the draw; the same for sources that are compared.
    """
    changing = along_columns(lambda block: block.amax(0) > block.amin(0), trained).nonzero().flatten()
    if not len(changing):
        return None
    order = torch.randperm(len(changing), generator=generator(seed, "coordinates"))
    chosen = changing[order[:COORDINATES]]
    own, reference = (columns(v, chosen).T.contiguous().sort(1).values for v in (vectors, trained))
    values = torch.cat([own, reference], 1)
    below = [torch.searchsorted(v, values, right=True).double() / v.shape[1] for v in (own, reference)]
    return (below[0] - below[1]).abs().amax(1).mean().item()


def columns(vectors: Vectors, chosen: Tensor) -> Tensor:
    """Return some coordinates of all vectors `(M, C)`."""
    return torch.cat([part[:, chosen] for part in parts(vectors)])


def density_coordinates(trained: Tensor, layout: Layout, count: int = 4) -> dict[str, int]:
    """Return coordinates whose densities are worth drawing: the one that varies most in each of the largest tensors.

    Args:
        trained: `(N, P)`.
        layout: names and places of the tensors.
        count: how many at most; fewer where there are fewer tensors that change.

    Returns:
        The place in the vector, by a name like `layer4.1.bn1.weight[17]`; the largest tensor first.
    """
    deviation = deviations(trained)
    coordinates = {}
    for entry in sorted(layout, key=lambda entry: -entry.size):
        inside = int(deviation[entry.slice].argmax())
        if deviation[entry.offset + inside] > 0 and len(coordinates) < count:
            coordinates[f"{entry.name}[{inside}]"] = entry.offset + inside
    return coordinates


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
