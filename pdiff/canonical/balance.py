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
    """Return the vectors `(M, P)` whose units are balanced, float32; units that nothing makes or reads stay."""
    if not gains:
        return vectors
    tensors = views(layout, vectors)
    factors = balancing(tensors, gains)
    found = vectors.clone()
    names = {place.tensor for gain in gains for place in (*gain.made, *gain.read)}
    balanced = scale({name: tensors[name].double() for name in names}, gains, factors, 1)
    for name, own in views(layout, found).items():
        if name in names:
            own.copy_(balanced[name])
    return found


def balancing(tensors: dict[str, Tensor], gains: Sequence[Gain]) -> list[Tensor]:
    """Return the factors `(M, n)` for each gain that balance tensors `(M, ...)`, in double precision."""
    squares = _squares(tensors, gains)
    count = len(next(iter(tensors.values())))
    logs = [torch.zeros(count, gain.size, dtype=torch.float64) for gain in gains]
    for _ in range(SWEEPS):
        largest = 0.0
        for gain, log in zip(gains, logs, strict=True):
            step = _step(squares, gain)
            log.add_(step)
            for place in gain.made:
                squares[place.tensor] = scaled(place, squares[place.tensor], (2 * step).exp(), 1)
            for place in gain.read:
                squares[place.tensor] = scaled(place, squares[place.tensor], (-2 * step).exp(), 1)
            largest = max(largest, step.abs().max().item())
        if largest < TOLERANCE:
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
