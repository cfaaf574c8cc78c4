"""The scale of each unit: what is made has the norm of what is read, by which the sum of all squares is smallest.

With g^2 = exp(t) the sum of squares is convex in t: coordinate descent, each step in closed form, finds its minimum.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pdiff.canonical.applying import scale, scaled, views
from pdiff.weights.layout import Layout
from pdiff.weights.units import Gain, Place

TOLERANCE = 1e-9  # of a logarithm
SWEEPS = 10_000


def balance(layout: Layout, gains: Sequence[Gain], vectors: Tensor) -> Tensor:
    """Return the vectors `(M, P)` whose units are balanced; units that nothing makes, or nothing reads, stay."""
    return rescaled(layout, gains, vectors, balancing(layout, gains, vectors))


def rescaled(layout: Layout, gains: Sequence[Gain], vectors: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Return vectors `(M, P)` whose units are scaled by factors `(M, n)` for each gain, in double precision between."""
    if not gains:
        return vectors
    names = {place.tensor for gain in gains for place in (*gain.made, *gain.read)}
    tensors = {name: own.double() if name in names else own for name, own in views(layout, vectors).items()}
    found = torch.empty_like(vectors)
    for entry, own in zip(layout, scale(tensors, gains, factors, 1).values(), strict=True):
        found[:, entry.slice] = own.flatten(1)
    return found


def balancing(layout: Layout, gains: Sequence[Gain], vectors: Tensor) -> list[Tensor]:
    """Return the factors `(M, n)` for each gain that balance vectors `(M, P)`, in double precision."""
    squares = _squares(views(layout, vectors), gains)
    logs = [torch.zeros(len(vectors), gain.size, dtype=torch.float64) for gain in gains]
    moving = torch.ones(len(vectors), dtype=torch.bool)
    for _ in range(SWEEPS):
        largest = torch.zeros(len(vectors), dtype=torch.float64)
        for gain, log in zip(gains, logs, strict=True):
            step = torch.where(moving[:, None], _step(squares, gain), 0.0)
            log.add_(step)
            for places, change in ((gain.made, (2 * step).exp()), (gain.read, (-2 * step).exp())):
                squares |= {place.tensor: scaled(place, squares[place.tensor], change, 1) for place in places}
            largest = torch.maximum(largest, step.abs().amax(1))
        moving &= largest >= TOLERANCE
        if not moving.any():
            break
    return [log.exp() for log in logs]


def _squares(tensors: dict[str, Tensor], gains: Sequence[Gain]) -> dict[str, Tensor]:
    """Return the squares of the tensors that are scaled, summed along the axes where no unit stands."""
    axes: dict[str, set[int]] = {}
    for gain in gains:
        for place in (*gain.made, *gain.read):
            axes.setdefault(place.tensor, set()).add(place.axis + 1)
    squares = {}
    for name, kept in axes.items():
        square = tensors[name].double().square()
        rest = [axis for axis in range(1, square.ndim) if axis not in kept]
        squares[name] = square.sum(rest, keepdim=True) if rest else square
    return squares


def _step(squares: dict[str, Tensor], gain: Gain) -> Tensor:
    """Return the logarithms `(M, n)` by which one gain is to grow; half of it where a tensor both makes and reads."""
    made, read = (sum(_norms(place, squares) for place in places) for places in (gain.made, gain.read))
    both = {place.tensor for place in gain.made} & {place.tensor for place in gain.read}
    step = (read.log() - made.log()) / (8 if both else 4)
    return torch.where(step.isfinite(), step, 0.0)


def _norms(place: Place, squares: dict[str, Tensor]) -> Tensor:
    square = squares[place.tensor]
    rest = [axis for axis in range(1, square.ndim) if axis != place.axis + 1]
    return (square.sum(rest) if rest else square)[:, place.entries].sum(-1)
