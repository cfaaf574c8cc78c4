"""Runs over conditions side by side: how close each comes to networks that were trained for the conditions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdiff.analysis.standards import BASE, GENERATED, ORACLE, REFERENCES
from pdiff.run.summaries import Found, Gain, relative_gain
from pdiff.runtime.errors import PdiffError

KEYS = ("metric", "conditions", "best_source", "verdict", "verdict_kind", "gates", "sources")
ROW = ("mean", "to_oracle", "seconds")


@dataclass(frozen=True)
class ComparedOverConditions:
    """One run over conditions among others.

    Attributes:
        name: that tells it apart.
        path: its directory.
        summary: as in its `summary.json`.
    """

    name: str
    path: Path
    summary: Mapping[str, Any]

    @property
    def sources(self) -> Mapping[str, Mapping[str, Any]]:
        """The figures of each source."""
        return self.summary["sources"]

    @property
    def oracle(self) -> Mapping[str, Any]:
        """Those of the networks that were trained for the conditions."""
        return self.sources[ORACLE]

    @property
    def best(self) -> str | None:
        """The source that is best on the select conditions; None where nothing could be chosen."""
        return self.summary["best_source"]

    @property
    def base(self) -> str | None:
        """The source that every network was fine-tuned from; None without one."""
        return next((name for name in self.sources if self.type_of(name) == BASE), None)

    @property
    def groups(self) -> int:
        """How many groups the unseen conditions form, each of which counts once."""
        return self.summary["conditions"]["groups"]["unseen"]

    def type_of(self, name: str) -> str:
        """Return a source's type; where an older summary does not say it, its name, which is the type by default."""
        return self.sources[name].get("type", name)

    @property
    def given(self) -> list[str]:
        """The sources that give networks for new conditions."""
        return [name for name in self.sources if self.type_of(name) not in REFERENCES]

    def share(self, name: str) -> float | None:
        """Return the seconds of one network as a share of the oracle's; None where either's are not known."""
        own, whole = self.sources[name]["seconds"], self.oracle["seconds"]
        return own / whole if own is not None and whole else None

    def to_oracle(self, name: str | None) -> Gain | None:
        """Return a source's gain over the oracle, relative to its mean; None without a source, or a measured gain."""
        figures = self.sources[name]["to_oracle"] if name else None
        return figures and relative_gain(ORACLE, figures, self.oracle["mean"])

    @property
    def reached(self) -> float | None:
        """The share of what fine-tuning gains over the base that the best source reaches.

        None without one of the two, and where the oracle is not surely better than the base.
        """
        base, best = self.to_oracle(self.base), self.to_oracle(self.best)
        if base is None or best is None or base.ends is None or base.ends[1] >= 0:
            return None
        return 1 - best.value / base.value

    @property
    def rank(self) -> tuple[int, int] | None:
        """The generated's place by their mean among so many sources that give networks; None where none lives."""
        sign, own = (1 if self.summary["metric"]["higher_is_better"] else -1), self.sources[GENERATED]["mean"]
        if own is None:
            return None
        means = [self.sources[name]["mean"] for name in self.given]
        return 1 + sum(mean is not None and sign * (mean - own) > 0 for mean in means), len(means)


def read_over_conditions(found: Found) -> ComparedOverConditions:
    """Return one run over conditions.

    Raises:
        PdiffError: its summary lacks something, or nothing can be relative to the oracle's mean.
    """
    found.demand(KEYS)
    found.demand(("unseen", "groups"), found.summary["conditions"], "conditions ")
    for name, row in found.summary["sources"].items():
        found.demand(ROW, row, f"source {name!r} ")
    run = ComparedOverConditions(found.name, found.path, found.summary)
    lacking = [name for name in (ORACLE, GENERATED) if name not in run.sources]
    if lacking:
        raise PdiffError(f"{found.file}: has no source {lacking[0]!r}, which is compared here. Run with it.")
    if not run.oracle["mean"]:
        line = f"{found.file}: got mean {run.oracle['mean']} of {ORACLE}, expected one to which others can be relative."
        raise PdiffError(f"{line} Leave this run out.")
    return run
