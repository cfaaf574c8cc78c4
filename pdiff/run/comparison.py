"""Runs of several tasks side by side: what generated parameters gain over trained ones, in every task's own measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdiff.run.conditional_comparison import ComparedOverConditions, read_over_conditions
from pdiff.run.summaries import Found, Gain, find_summaries, relative_gain
from pdiff.runtime.errors import PdiffError

KEYS = ("plugin", "metric", "verdict", "verdict_kind", "margin", "gates", "sources", "comparisons", "seconds")


@dataclass(frozen=True)
class Compared:
    """One run among others.

    Attributes:
        name: that tells it apart.
        path: its directory.
        summary: as in its `summary.json`.
        gain: over the trained ones.
        hardest: over the baseline that is strongest by its mean on `select`; None without any baseline.
    """

    name: str
    path: Path
    summary: Mapping[str, Any]
    gain: Gain
    hardest: Gain | None

    @property
    def seconds(self) -> float:
        """What the whole run took."""
        return sum(self.summary["seconds"].values())


def read_runs(paths: Sequence[Path]) -> list[Compared] | list[ComparedOverConditions]:
    """Return the runs in the order of their paths.

    Raises:
        PdiffError: a path is given twice, is no run directory, or its run is not compared or lacks what is needed; some
            runs are over conditions and others are not.
    """
    found = find_summaries(paths)
    over = [run.name for run in found if run.conditional]
    without = [run.name for run in found if not run.conditional]
    if over and without:
        line = f"runs: got {', '.join(over)} over conditions and {', '.join(without)} without, expected one kind."
        raise PdiffError(f"{line} Compare each kind alone.")
    return list(map(read_over_conditions, found)) if over else list(map(read_run, found))


def read_run(found: Found) -> Compared:
    """Return one run."""
    file, summary = found.file, found.summary
    found.demand(KEYS)
    lacking = [source for source in ("trained", "generated") if source not in summary["sources"]]
    if lacking:
        raise PdiffError(f"{file}: has no source {lacking[0]!r}, which gains are measured by. Run with it.")
    for source in ("trained", "generated"):
        mean = summary["sources"][source]["mean"]
        if not mean:
            line = f"{file}: got mean {mean} of {source}, expected one to which a gain can be relative."
            raise PdiffError(f"{line} Leave this run out.")
    hardest = strongest(summary)
    gains = relative(summary, "trained"), hardest and relative(summary, hardest)
    return Compared(found.name, found.path, summary, *gains)


def strongest(summary: Mapping[str, Any]) -> str | None:
    """Return the baseline with the best mean on `select`: chosen on `test`, its luck there would count, too."""
    means = {name: summary["sources"][name]["select"] for name in summary["comparisons"] if name != "trained"}
    known = {name: value for name, value in means.items() if value is not None}
    best = max if summary["metric"]["higher_is_better"] else min
    return best(known, key=known.get, default=None)


def relative(summary: Mapping[str, Any], source: str) -> Gain:
    """Return the gain of the generated over a source, relative to the mean of the trained."""
    return relative_gain(source, summary["comparisons"][source], summary["sources"]["trained"]["mean"])
