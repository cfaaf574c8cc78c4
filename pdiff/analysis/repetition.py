"""Figures of runs that differ in the seed: the run is what is drawn anew."""

import math
from collections.abc import Sequence

import numpy as np

from pdiff.analysis.statistics import Values, mean_interval

ROUNDING = 1e-6  # of a figure, by which runs of the same may differ


def interval_over_runs(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean over runs; None of one run, and of runs that all have the same.

    What does not depend on the seeds has no spread over them: an interval of no width would pass for certainty.

    Args:
        values: one of each run, finite.
    """
    own = np.array(values, dtype=float)
    if len(own) < 2 or np.ptp(own) <= ROUNDING * np.abs(own).max():
        return None
    return mean_interval(Values("runs", own))


def over_runs(values: Sequence[float | None], form: str = "{:.4f}") -> str:
    """Return in words the mean over runs and, of several that differ, its 95 % interval.

    Nothing where a run has no finite figure.

    Args:
        values: one of each run.
        form: of a number.
    """
    own = np.array([math.nan if value is None else value for value in values], dtype=float)
    if not len(own) or not np.isfinite(own).all():
        return ""
    interval = interval_over_runs(own)
    ends = f" ({form} to {form})".format(*interval) if interval else ""
    return form.format(own.mean()) + ends
