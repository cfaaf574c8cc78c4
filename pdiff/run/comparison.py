"""Runs of several tasks side by side: what generated parameters gain over trained ones, in every task's own measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdiff.run.directory import RunDirectory
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json

KEYS = ("plugin", "metric", "verdict", "verdict_kind", "margin", "gates", "sources", "comparisons", "seconds")


@dataclass(frozen=True)
class Gain:
    """How much better generated are than a source, relative to the mean of the trained ones.

    Attributes:
        source: the other one.
        value: above 0 where generated are better, whatever the metric's direction.
        ends: of the 95 % interval; None where there is none.
    """

    source: str
    value: float
    ends: tuple[float, float] | None


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


def read_runs(paths: Sequence[Path]) -> list[Compared]:
    """Return the runs in the order of their paths.

    Raises:
        PdiffError: a path is given twice, is no run directory, or its run is over conditions, is not compared or lacks
            what is needed.
    """
    places = [Path(path).resolve() for path in paths]
    for place in places:
        if places.count(place) > 1:
            raise PdiffError(f"runs: got {place} twice, expected different run directories. Leave one out.")
    names = [place.name for place in places]
    chosen = [str(path) if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True)]
    return [read_run(name, place) for name, place in zip(chosen, places, strict=True)]


def read_run(name: str, path: Path) -> Compared:
    """Return one run."""
    directory = RunDirectory(path)
    if not (path / "config.yaml").is_file():
        raise PdiffError(f"{path}: is no run directory. Give the --work-dir of a run.")
    file = directory.folder("compare") / "summary.json"
    if not file.is_file():
        raise PdiffError(f"{path}: is not compared yet. Finish the run: the same command with --resume.")
    summary = read_json(file)
    if not isinstance(summary, dict):
        raise PdiffError(f"{file}: holds no summary. Repeat its stage: --stage compare --overwrite.")
    if summary.get("conditional"):
        line = f"{path}: is a run over conditions, which has no trained to gain over and cannot be compared yet."
        raise PdiffError(f"{line} Leave it out; its own page is {file.with_name('report.html')}.")
    missing = [key for key in KEYS if key not in summary]
    if missing:
        line = f"{file}: lacks {', '.join(missing)}, so another version of pdiff wrote it."
        raise PdiffError(f"{line} Repeat its stage: --stage compare --overwrite.")
    lacking = [source for source in ("trained", "generated") if source not in summary["sources"]]
    if lacking:
        raise PdiffError(f"{file}: has no source {lacking[0]!r}, which gains are measured by. Run with it.")
    for source in ("trained", "generated"):
        mean = summary["sources"][source]["mean"]
        if not mean:
            line = f"{file}: got mean {mean} of {source}, expected one to which a gain can be relative."
            raise PdiffError(f"{line} Leave this run out.")
    hardest = strongest(summary)
    return Compared(name, path, summary, relative(summary, "trained"), hardest and relative(summary, hardest))


def strongest(summary: Mapping[str, Any]) -> str | None:
    """Return the baseline with the best mean on `select`: chosen on `test`, its luck there would count, too."""
    means = {name: summary["sources"][name]["select"] for name in summary["comparisons"] if name != "trained"}
    known = {name: value for name, value in means.items() if value is not None}
    best = max if summary["metric"]["higher_is_better"] else min
    return best(known, key=known.get, default=None)


def relative(summary: Mapping[str, Any], source: str) -> Gain:
    """Return the gain over a source."""
    unit, figures = abs(summary["sources"]["trained"]["mean"]), summary["comparisons"][source]
    ends = figures["ci"] and tuple(end / unit for end in figures["ci"])
    return Gain(source, figures["difference"] / unit, ends)
