"""What choosing a candidate by its metric on other data gives on `test`: against no choice, and against another way.

Intervals are over new test samples, the same ones for everything that is compared (paired); the candidates are given.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdiff.analysis.statistics import Difference, best_rows, choice, clustered


@dataclass(frozen=True)
class Reached:
    """What a choice, or the mean of all candidates, reaches on `test`.

    Attributes:
        metric: of the chosen one; the mean of several that are equally good by what chooses.
        scores: its terms, one per test sample `(S,)`; None where the metric has none.
    """

    metric: float
    scores: NDArray | None

    @classmethod
    def by(cls, numbers: NDArray, test: NDArray, scores: NDArray | None, higher_is_better: bool) -> "Reached":
        """Return what the candidate with the best of some numbers reaches.

        Args:
            numbers: that choose `(n,)`.
            test: the metric on `test` `(n,)`.
            scores: of each on `test` `(n, S)`; None without any.
            higher_is_better: direction of the numbers.
        """
        rows = best_rows(numbers, higher_is_better)
        own = None if scores is None else scores[rows].mean(0, dtype=np.float64)
        return cls(float(test[rows].mean()), own)

    def ahead_of(self, other: "Reached", higher_is_better: bool) -> tuple[float | None, list[float] | None]:
        """Return how much better this is, and the 95 % interval; None where a metric is not finite, or nobody knows."""
        sign = 1 if higher_is_better else -1
        ahead = sign * (self.metric - other.metric) + 0.0  # no -0.0
        if not math.isfinite(ahead):
            return None, None
        if self.scores is None or other.scores is None:
            return ahead, None
        component = clustered(sign * (self.scores - other.scores), None, "test samples")
        ends = Difference(ahead, (component,)).interval
        return ahead, None if ends is None else list(ends)


def choosing(
    train: NDArray,
    select: NDArray,
    test: NDArray,
    scores: NDArray | None,
    everyone: Reached,
    higher_is_better: bool,
) -> dict[str, Any]:
    """Return how well training data choose among candidates, how well `select` does, and which of them does better.

    Args:
        train: the metric on training data `(n,)`.
        select: that on `select` `(n,)`.
        test: that on `test` `(n,)`, one of them alive.
        scores: of each on `test` `(n, S)`; None without any.
        everyone: what the mean of all candidates reaches.
        higher_is_better: direction of all.

    Returns:
        The figures of `statistics.Choice` by training data; `gain` over the mean of all candidates, and `gain_ci`;
        `difference` to what is chosen on `select`, and `difference_ci`; and as `select` the same of choosing there.
    """
    picks = [Reached.by(numbers, test, scores, higher_is_better) for numbers in (train, select)]
    found = []
    for numbers, pick in zip((train, select), picks, strict=True):
        gain, ends = pick.ahead_of(everyone, higher_is_better)
        found.append({**asdict(choice(numbers, test, higher_is_better)), "gain": gain, "gain_ci": ends})
    difference, ends = picks[0].ahead_of(picks[1], higher_is_better)
    del found[1]["n"]
    return {**found[0], "difference": difference, "difference_ci": ends, "select": found[1]}
