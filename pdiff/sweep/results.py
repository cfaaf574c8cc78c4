"""What a sweep has found: how each run has ended, and its figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdiff.run.comparison import read_runs
from pdiff.run.grouping import Run, figures, value_text
from pdiff.runtime.errors import PdiffError
from pdiff.sweep.point import Point
from pdiff.sweep.record import RUNS
from pdiff.sweep.setting import Setting

DONE = "done"


@dataclass(frozen=True)
class Result:
    """One run of a sweep, as it has ended.

    Attributes:
        setting: of the run.
        line: what went wrong; None where nothing did.
        run: what is compared; None where something went wrong.
    """

    setting: Setting
    line: str | None
    run: Run | None


def read_result(folder: Path, setting: Setting, line: str | None) -> Result:
    """Return how one run has ended: with a line of what went wrong, or with figures."""
    if line is None:
        try:
            return Result(setting, None, read_runs([folder / RUNS / setting.name])[0])
        except PdiffError as error:
            line = str(error)
    return Result(setting, line, None)


def rows_of(keys: Sequence[str], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return a row per run: its name, the values of the varied keys, seeds, how it has ended, figures if it is done.

    Every row has all columns; what a run does not have is None.
    """
    rows = []
    for result in results:
        setting, config = result.setting, result.setting.config
        values = {key: value_text(setting.values[key]) if key in setting.values else None for key in keys}
        of_fit = config["seed"] if config["fit"]["seed"] is None else config["fit"]["seed"]
        own = {"run": setting.name, **values, "seed": config["seed"], "fit.seed": of_fit}
        own["status"] = DONE if result.line is None else result.line
        rows.append(own | (figures(result.run) if result.run else {}))
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column) for column in columns} for row in rows]


def points_of(results: Sequence[Result]) -> list[Point]:
    """Return what the pictures show of the runs that are done."""
    found = []
    for result in results:
        if result.run is not None:
            summary = result.run.summary
            means = {name: row["mean"] for name, row in summary["sources"].items()}
            found.append(Point(result.setting, summary["metric"], means))
    return found


def lines_below(seeds_of: str, results: Sequence[Result]) -> list[str]:
    """Return what is said below the table: what the seeds are of, and each run that has not ended well."""
    several = len({result.setting.seed for result in results}) > 1
    return [*([seeds_of] if several else []), *(f"{r.setting.name}: {r.line}" for r in results if r.line)]
