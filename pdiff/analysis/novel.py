"""Which candidates are new and good at once, in the units of a zoo of independently trained networks.

How far apart networks are that nobody would call copies is what the zoo says itself: the distance of a trained network
to the nearest of another training. A candidate is new at k where it keeps k times that from every trained network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MULTIPLES = (0.5, 1.0, 2.0)
FEWEST = 20  # lineages, to speak of a zoo
GRID = np.geomspace(0.1, 5.0, 80)  # multiples of a figure


@dataclass(frozen=True)
class Bar:
    """What a candidate must reach.

    Attributes:
        unit: the zoo's own nearest distance: the median over the trained of that to the nearest of another lineage.
        metric: the trained's mean on `test`, less the margin.
        higher_is_better: direction of the metric.
    """

    unit: float
    metric: float
    higher_is_better: bool = True

    @classmethod
    def of(cls, distances: NDArray, mean: float, margin: float, higher_is_better: bool) -> "Bar":
        """Return the bar of a zoo.

        Args:
            distances: of each trained network to the nearest of another lineage `(N,)`; infinite where there is none.
            mean: of the trained's metric on `test`.
            margin: how far below is as good, in the metric's units.
            higher_is_better: direction of the metric.
        """
        metric = mean - margin if higher_is_better else mean + margin
        return cls(float(np.median(distances[np.isfinite(distances)])), metric, higher_is_better)

    def shares(self, distances: NDArray, metrics: NDArray, multiples: Sequence[float] | NDArray) -> list[float]:
        """Return the share of candidates that are new and good, for each multiple of the unit.

        Args:
            distances: of each candidate to the nearest trained network `(M,)`; of a trained one of another lineage.
            metrics: on `test` `(M,)`; one that is not finite is not good.
            multiples: K of them.
        """
        good = metrics >= self.metric if self.higher_is_better else metrics <= self.metric
        good &= np.isfinite(metrics)
        return [float((good & (distances >= multiple * self.unit)).mean()) for multiple in multiples]


def novel_figures(
    bar: Bar, distances: Mapping[str, NDArray], metrics: Mapping[str, NDArray], similarities: Mapping[str, NDArray]
) -> dict[str, dict[str, list[float] | float | None]]:
    """Return, of each source whose candidates lie somewhere, what other programs read.

    Args:
        bar: of the zoo.
        distances: see `Bar.shares`, by source.
        metrics: on `test`, by source.
        similarities: largest of each candidate to a fitted network `(M,)`, by source; NaN where there is none.

    Returns:
        `shares` for `MULTIPLES`; `disagreement`, one less the mean similarity: on which of the samples that either gets
        wrong a candidate and the trained network that behaves most like it disagree.
    """
    found = {}
    for name, own in distances.items():
        known = similarities[name][np.isfinite(similarities[name])]
        disagreement = float(1 - known.mean()) if len(known) else None
        found[name] = {"shares": bar.shares(own, metrics[name], MULTIPLES), "disagreement": disagreement}
    return found


def words_for_novel(shares: Sequence[float]) -> str:
    """Return the sentence that says how many of the generated are new and good, for `MULTIPLES`."""
    each = (f"{share:.0%} at {multiple:g}" for share, multiple in zip(shares, MULTIPLES, strict=True))
    return f"new and good at once: of the generated {', '.join(each)} times the zoo's own nearest distance"
