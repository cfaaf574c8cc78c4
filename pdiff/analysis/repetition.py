"""Figures of runs that differ in the seed: the run is what is drawn anew."""

import math
from collections.abc import Sequence

import numpy as np

from pdiff.analysis.statistics import Values, mean_interval


def over_runs(values: Sequence[float | None], form: str = "{:.4f}") -> str:
    """Return in words the mean over runs and, of several, its 95 % interval; nothing where a run has no finite figure.

    Args:
        values: one of each run.
        form: of a number.
    """
    own = np.array([math.nan if value is None else value for value in values], dtype=float)
    if not len(own) or not np.isfinite(own).all():
        return ""
    interval = mean_interval(Values("runs", own)) if len(own) > 1 else None
    ends = f" ({form} to {form})".format(*interval) if interval else ""
    return form.format(own.mean()) + ends
