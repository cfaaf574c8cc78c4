"""Which networks are dead: one definition for gate, table and verdict.

A candidate is dead whose metric is not finite on a split, or that is hardly better than chance on `select`.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pdiff.task.task import Metric

HARDLY = 0.1  # of the way from chance to the median of the trained: who is not farther has learnt nothing


def dead(metrics: Mapping[str, NDArray], trained: Mapping[str, NDArray], metric: Metric) -> NDArray:
    """Return which candidates are dead `(M,)`.

    Args:
        metrics: of the candidates `(M,)`, by split.
        trained: those of the trained `(N,)`.
        metric: the task's; where its chance is not known, only what is not finite is dead.
    """
    lost = ~np.logical_and.reduce([np.isfinite(values) for values in metrics.values()])
    if metric.chance is None:
        return lost
    sign = 1 if metric.higher_is_better else -1
    good, reference = (sign * (values["select"] - metric.chance) for values in (metrics, trained))
    return lost | (good <= HARDLY * max(float(np.median(reference)), 0.0))
