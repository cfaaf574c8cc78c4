"""Summaries of finished runs, which another version may have written, and gains that they tell."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdiff.run.directory import UNSEEN, RunDirectory, flatten
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json


@dataclass(frozen=True)
class Gain:
    """How much better one source is than another, relative to a mean.

    Attributes:
        source: the other one.
        value: above 0 where the one is better, whatever the metric's direction.
        ends: of the 95 % interval; None where there is none.
    """

    source: str
    value: float
    ends: tuple[float, float] | None


def relative_gain(source: str, figures: Mapping[str, Any], mean: float) -> Gain:
    """Return a summary's difference to a source, and its interval, relative to a mean."""
    unit, ends = abs(mean), figures["ci"]
    return Gain(source, figures["difference"] / unit, ends and tuple(end / unit for end in ends))


@dataclass(frozen=True)
class Found:
    """One run's summary.

    Attributes:
        name: that tells the run apart.
        path: its directory.
        file: its `summary.json`.
        summary: what that holds.
    """

    name: str
    path: Path
    file: Path
    summary: Mapping[str, Any]

    @property
    def conditional(self) -> bool:
        """Whether the run is over conditions."""
        return bool(self.summary.get("conditional"))

    def demand(self, keys: Iterable[str], held: Mapping[str, Any] | None = None, of: str = "") -> None:
        """Refuse a summary, or a part of it that is `of` something, without all of these keys.

        Raises:
            PdiffError: some are missing.
        """
        missing = [key for key in keys if key not in (self.summary if held is None else held)]
        if missing:
            line = f"{self.file}: {of}lacks {', '.join(missing)}, so another version of pdiff wrote it."
            raise PdiffError(f"{line} Repeat its stage: --stage compare --overwrite.")


def find_summaries(paths: Sequence[Path]) -> list[Found]:
    """Return the summaries in the order of their paths.

    Raises:
        PdiffError: a path is given twice, is no run directory, or its run is not compared.
    """
    places = [Path(path).resolve() for path in paths]
    for place in places:
        if places.count(place) > 1:
            raise PdiffError(f"runs: got {place} twice, expected different run directories. Leave one out.")
    names = [place.name for place in places]
    chosen = [str(path) if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True)]
    return [find_summary(name, place) for name, place in zip(chosen, places, strict=True)]


def find_summary(name: str, path: Path) -> Found:
    """Return one run's summary."""
    if not (path / "config.yaml").is_file():
        raise PdiffError(f"{path}: is no run directory. Give the --work-dir of a run.")
    file = RunDirectory(path).folder("compare") / "summary.json"
    if not file.is_file():
        raise PdiffError(f"{path}: is not compared yet. Finish the run: the same command with --resume.")
    summary = read_json(file)
    if not isinstance(summary, dict):
        raise PdiffError(f"{file}: holds no summary. Repeat its stage: --stage compare --overwrite.")
    return Found(name, path, file, summary)


def check_drawn_anew(paths: Sequence[Path]) -> None:
    """Raise a `PdiffError` where two runs are of one config, seed included: a copy would pass for another draw."""
    found: dict[str, Path] = {}
    for path in paths:
        config = {key: value for key, value in flatten(RunDirectory(path).config()).items() if key not in UNSEEN}
        same = found.setdefault(json.dumps(config, sort_keys=True, default=str), path)
        if same is not path:
            line = f"got {same} and {path}, which are of one config, seed included, expected runs that differ"
            raise PdiffError(f"runs: {line}. Leave one out.")
