"""What checkpoints, or wanted networks, are conditioned on: C finite numbers of each, with a name for each number."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.runtime.errors import PdiffError, known

DIGITS = 6  # of distances: what float32 rounds must not decide which of two is nearer
MOST = float(np.finfo(np.float32).max)  # what a number may reach


class Conditions(Sequence):
    """M conditions of the same names; each is a mapping from name to number.

    Args:
        names: of the numbers, C of them.
        values: `(M, C)`, float32.

    Example:
        >>> conditions = Conditions.of([{"sine": 0.0, "cosine": 1.0}, {"sine": 1.0, "cosine": 0.0}])
        >>> conditions[1]["sine"], conditions.values.shape
        (1.0, torch.Size([2, 2]))
    """

    def __init__(self, names: Sequence[str], values: Tensor):
        self.names, self.values = tuple(names), values

    @classmethod
    def of(cls, conditions: Sequence[Mapping[str, float]], where: str = "conditions") -> "Conditions":
        """Return conditions as a table, columns in the order of the first one's names.

        Args:
            conditions: at least one.
            where: words for them in error lines.

        Raises:
            PdiffError: one has other names than the first, or a value that is no finite number.
        """
        names = tuple(conditions[0])
        for number, condition in enumerate(conditions):
            check_condition(condition, names, f"{where}, number {number}")
        return cls(names, torch.tensor([[float(condition[name]) for name in names] for condition in conditions]))

    @classmethod
    def joined(cls, tables: Sequence["Conditions"]) -> "Conditions":
        """Return the conditions of several tables of the same names, one behind another."""
        return cls(tables[0].names, torch.cat([table.values for table in tables]))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict[str, float]:
        return dict(zip(self.names, self.values[index].tolist(), strict=True))

    @property
    def binary(self) -> bool:
        """Whether each number is 0 or 1."""
        return bool(((self.values == 0) | (self.values == 1)).all())

    def distances(self, others: "Conditions") -> NDArray:
        """Return how far each of these lies from each of the others `(M, N)`.

        Where all numbers are 0 or 1, how many of them differ; else the Euclidean distance, each number in standard
        deviations of the others (one that never differs among them, as it is).
        """
        own, known = self.values.double().numpy(), others.values.double().numpy()
        from scipy.spatial.distance import cdist

        if self.binary and others.binary:
            return own @ (1 - known).T + (1 - own) @ known.T
        deviation = known.std(0)
        scale = np.where(deviation > 0, deviation, 1.0)
        return cdist(own / scale, known / scale).round(DIGITS)

    def beyond(self, others: "Conditions") -> Tensor:
        """Return which number of which of these lies beyond the range of the others `(M, C)`."""
        return (self.values < others.values.amin(0)) | (self.values > others.values.amax(0))

    def outside(self, others: "Conditions") -> list[str]:
        """Return the names of the numbers of which one of these lies beyond the range of the others."""
        return [name for name, found in zip(self.names, self.beyond(others).any(0).tolist(), strict=True) if found]

    def distinct(self) -> tuple["Conditions", NDArray]:
        """Return each condition once, by first appearance `(K, C)`, and the number of each one's `(M,)`."""
        first: dict[tuple[float, ...], int] = {}
        rows = [first.setdefault(tuple(row), place) for place, row in enumerate(self.values.tolist())]
        numbers = {row: number for number, row in enumerate(first.values())}
        return self.take([*first.values()]), np.array([numbers[row] for row in rows], dtype=int)

    def take(self, rows: slice | Sequence[int] | Tensor) -> "Conditions":
        """Return some of them, `(m, C)` of the `(M, C)`, in the order of `rows`."""
        return Conditions(self.names, self.values[rows])


def shown(condition: Mapping[str, float], most: int = 12) -> str:
    """Return a condition's text; of many numbers the first."""
    words = [f"{name} {value:g}" for name, value in list(condition.items())[:most]]
    return ", ".join(words) + (", ..." if len(condition) > most else "")


def check_condition(condition: Any, names: Sequence[str], where: str) -> None:
    """Raise a `PdiffError` unless a condition has these names, and a finite number for each.

    Args:
        condition: a mapping from name to number.
        names: what it must have, no more and no less.
        where: words for whose condition it is.
    """
    if not isinstance(condition, Mapping) or not condition:
        got = type(condition).__name__ if condition is not None else "no condition"
        words = f"expected numbers by name ({', '.join(names)})" if names else "expected numbers by name"
        raise PdiffError(f"{where}: got {got}, {words}. Give each one, or none of them.")
    for name in condition:
        if not isinstance(name, str):
            raise PdiffError(f"{where}: got the name {name!r}, expected a text. Name each number.")
        if name not in names:
            raise PdiffError(f"{where}: got the name {name!r}. {known(name, names)}")
    for name in names:
        if name not in condition:
            raise PdiffError(f"{where}: lacks {name!r}, expected {', '.join(names)}. Give a number for each.")
        value = condition[name]
        if isinstance(value, bool) or not isinstance(value, Real) or not abs(value) <= MOST:
            raise PdiffError(f"{where}: got {value!r} for {name!r}, expected a finite number. Mend it.")
