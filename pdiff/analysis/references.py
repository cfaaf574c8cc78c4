"""Where vectors lie among the trained ones: how far off, how wide, along which axes, with which values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.analysis.neighbours import Neighbours
from pdiff.runtime.seeding import generator
from pdiff.weights.gram import MOST, axes_of_many, centred_blocks, centred_gram
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import (
    Deviations,
    Rows,
    Vectors,
    along_columns,
    deviations,
    mean,
    parts,
    pieces,
    relative_width,
)

COORDINATES = 2000
FEWEST = 8  # vectors, of which a distribution of values can be told


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


@dataclass(frozen=True)
class Surroundings:
    """The trained vectors, and what of them other vectors are held against.

    Attributes:
        neighbours: the trained vectors `(N, P)`, and how far others are from them.
        width: the trained vectors' mean standard deviation per coordinate.
        sampled: coordinates `(C,)` whose distributions are compared.
        values: the trained vectors' values there, in rising order `(C, N)`.
        projection: their first two principal axes.
        shown: coordinates whose densities are worth drawing, by name.
    """

    neighbours: Neighbours
    width: float
    sampled: Tensor
    values: Tensor
    projection: Projection
    shown: Mapping[str, int]


@dataclass(frozen=True)
class Place:
    """Where the M vectors of a source lie.

    Attributes:
        distances: from each to the nearest trained vector `(M,)`; see `Neighbours`.
        spread: their mean standard deviation per coordinate, over that of the trained; see `relative_width`.
        marginal: how far their values are distributed from the trained ones', beyond what chance gives samples of these
            sizes; None of fewer than `FEWEST` vectors. See `marginal_distance` and `by_chance`.
        projected: on the trained vectors' first two principal axes `(M, 2)`.
        shown: values `(M,)` of the coordinates worth drawing, by name.
    """

    distances: NDArray
    spread: float
    marginal: float | None
    projected: NDArray
    shown: Mapping[str, NDArray]


def survey(neighbours: Neighbours, layout: Layout, seed: int) -> Surroundings:
    """Return what of the trained vectors `(N, P)` others are held against; the seed draws the sampled coordinates."""
    trained = neighbours.trained
    deviation, sampled = deviations(trained), changing(trained, seed)
    return Surroundings(
        neighbours=neighbours,
        width=deviation.mean().item(),
        sampled=sampled,
        values=in_order(trained[:, sampled]),
        projection=principal_axes(trained, device=neighbours.device),
        shown=density_coordinates(deviation, layout),
    )


def locate(vectors: Vectors, among: Surroundings, own: NDArray | None = None) -> Place:
    """Return where vectors `(M, P)` lie, in one pass over those that are made.

    Args:
        vectors: of a source.
        among: the trained vectors.
        own: rows of the trained ones `(M,)`, where the vectors are such; each leaves out what it is akin to.
    """
    kin = None if own is None else among.neighbours.kin[own]
    distance, values, projected, shown, deviation = [], [], [], [], Deviations()
    places = torch.tensor([*among.shown.values()], dtype=torch.long)
    for piece in pieces(vectors):
        distance.append(among.neighbours.distances(piece, kin))
        for part in parts(piece):
            deviation.add(part)
            values.append(part[:, among.sampled])
            projected.append(project(part, among.projection))
            shown.append(part[:, places])
    return Place(
        distances=torch.cat(distance).numpy(),
        spread=relative_width(deviation.result().mean().item(), among.width),
        marginal=marginal_beyond_chance(torch.cat(values), among.values, own is not None),
        projected=torch.cat(projected).numpy(),
        shown=dict(zip(among.shown, torch.cat(shown).T.numpy(), strict=True)),
    )


def spread(vectors: Vectors, trained: Vectors) -> float:
    """Return the `relative_width` of vectors `(M, P)` beside trained ones `(N, P)`."""
    return relative_width(deviations(vectors).mean().item(), deviations(trained).mean().item())


def principal_axes(trained: Tensor | Rows, count: int = 2, device: torch.device | None = None) -> Projection:
    """Return the `count` principal axes of vectors `(N, P)`, from their Gram matrix `(N, N)`; see `axes_of_many`.

    The sign of an axis is such that its largest entry is positive. A device computes the Gram matrix.
    """
    axes, explained = torch.zeros(count, trained.shape[1]), torch.zeros(count)
    if len(trained) > MOST:
        found, variances = axes_of_many(trained, count)
        axes[: len(found)], explained[: len(found)] = found, (variances / deviations(trained).square().sum()).float()
        axes *= axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
        return Projection(mean(trained), axes, explained)
    coordinates, shares = coordinates_of(centred_gram(trained, device).cpu())
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


def project(vectors: Tensor, projection: Projection) -> Tensor:
    """Return the coordinates `(M, K)` of vectors `(M, P)` on the trained vectors' principal axes."""
    return (vectors - projection.mean) @ projection.axes.T


def changing(trained: Tensor | Rows, seed: int) -> Tensor:
    """Return coordinates `(C,)` that change among the trained vectors `(N, P)`.

    Of more than 2,000, 2,000 are drawn from the seed, without replacement.
    """
    found = along_columns(lambda block: block.amax(0) > block.amin(0), trained).nonzero().flatten()
    return found[torch.randperm(len(found), generator=generator(seed, "coordinates"))[:COORDINATES]]


def marginal_beyond_chance(own: Tensor, reference: Tensor, same: bool) -> float | None:
    """Return the `marginal_distance` less what chance gives; 0 where both are the same vectors, None of too few."""
    if len(own) < FEWEST and not same:
        return None
    found = marginal_distance(own, reference)
    return found if found is None or same else found - by_chance(len(own), reference.shape[1])


def by_chance(first: int, second: int) -> float:
    """Return the mean of Kolmogorov and Smirnov's distance between two samples of one distribution, for large sizes."""
    return math.sqrt(math.pi / 2) * math.log(2) * math.sqrt(1 / first + 1 / second)


def in_order(values: Tensor) -> Tensor:
    """Return values `(M, C)` of each coordinate in rising order `(C, M)`."""
    return values.T.contiguous().sort(1).values


def marginal_distance(own: Tensor, reference: Tensor) -> float | None:
    """Return the mean over coordinates of Kolmogorov and Smirnov's distance between two sets of values.

    0: every coordinate is distributed as in the trained vectors; 1: no coordinate's values overlap. The distance is
    taken on at one of the first set's values, or just below it.

    Args:
        own: of some vectors `(M, C)`.
        reference: of the trained ones `(C, N)`, in rising order, at coordinates that change among them.

    Returns:
        The distance; None of no coordinates.
    """
    if not own.shape[1]:
        return None
    own, found = in_order(own), torch.zeros(own.shape[1], dtype=torch.float64)
    for right in (False, True):
        below = [torch.searchsorted(v, own, right=right).double() / v.shape[1] for v in (own, reference)]
        found = torch.maximum(found, (below[0] - below[1]).abs().amax(1))
    return found.mean().item()


def density_coordinates(deviation: Tensor, layout: Layout, count: int = 4) -> dict[str, int]:
    """Return coordinates whose densities are worth drawing: the one that varies most in each of the largest tensors.

    Args:
        deviation: the standard deviation of each coordinate among the trained vectors `(P,)`.
        layout: names and places of the tensors.
        count: how many at most; fewer where there are fewer tensors that change.

    Returns:
        The place in the vector, by a name like `layer4.1.bn1.weight[17]`; the largest tensor first.
    """
    coordinates = {}
    for entry in sorted(layout, key=lambda entry: -entry.size):
        inside = int(deviation[entry.slice].argmax())
        if deviation[entry.offset + inside] > 0 and len(coordinates) < count:
            coordinates[f"{entry.name}[{inside}]"] = entry.offset + inside
    return coordinates
