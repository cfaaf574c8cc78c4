"""What a gate found, check by check."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pdiff.runtime.storage import finite_or_null
from pdiff.task.task import Metric

Figure = float | int | str | None


@dataclass(frozen=True)
class Check:
    """One question to what a stage wrote, and its answer.

    Attributes:
        name: of the check.
        passed: whether the run may go on.
        line: what was found; of a failed check also the likely cause, and what to do.
        figures: what the answer rests on.
    """

    name: str
    passed: bool
    line: str
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def to_json(self, stage: str) -> dict[str, Any]:
        """Return the check of a stage as a JSON-ready record; figures that are not finite become null."""
        figures = {key: finite_or_null(value) for key, value in self.figures.items()}
        return {"stage": stage, "name": self.name, "passed": self.passed, "line": self.line, "figures": figures}


def not_measured(name: str, reason: str) -> Check:
    """Return the check that could not be made, and holds up nobody."""
    return Check(name, True, f"not measured: {reason}")


def goodness(metrics: Sequence[float], metric: Metric) -> Tensor:
    """Return metrics `(M,)` as numbers of which higher is better: the distance from chance, or from 0 without one."""
    sign = 1 if metric.higher_is_better else -1
    return sign * (torch.tensor(list(metrics), dtype=torch.float64) - (metric.chance or 0.0))


def in_words(value: float) -> str:
    """Return a metric's text."""
    if not math.isfinite(value):
        return "nothing finite"
    return f"{value:.4f}" if abs(value) < 1e9 else f"{value:.4g}"


def share_lost(before: float, after: float) -> float:
    """Return how much of a goodness is lost, as a share of it; 0 where nothing is."""
    if after >= before:
        return 0.0
    return (before - after) / abs(before) if before else math.inf


def whole(metric: Metric) -> str:
    """Return words for what `share_lost` is a share of."""
    return "its value" if metric.chance is None else f"its distance from chance ({metric.chance:.4f})"
