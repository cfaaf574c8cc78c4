"""What a sweep has found: how each run has ended, and its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdiff.run.comparison import read_runs
from pdiff.run.grouping import Run, figures, value_texts
from pdiff.runtime.errors import PdiffError
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

    @property
    def metric(self) -> Mapping[str, Any]:
        """The name of a finished run's metric, and whether higher is better."""
        return self.run.summary["metric"]

    @property
    def means(self) -> dict[str, float | None]:
        """The means of a finished run's compared sources, by name; None for one without a living network."""
        return {name: row["mean"] for name, row in self.run.summary["sources"].items()}


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
    texts = [texts_of(key, results) for key in keys]
    rows = []
    for result, *told in zip(results, *texts, strict=True):
        setting, config = result.setting, result.setting.config
        values = dict(zip(keys, told, strict=True))
        of_fit = config["seed"] if config["fit"]["seed"] is None else config["fit"]["seed"]
        own = {"run": setting.name, **values, "seed": config["seed"], "fit.seed": of_fit}
        own["status"] = DONE if result.line is None else result.line
        rows.append(own | (figures(result.run) if result.run else {}))
    columns = dict.fromkeys(column for row in rows for column in row)
    return [{column: row.get(column) for column in columns} for row in rows]


def texts_of(key: str, results: Sequence[Result]) -> list[str | None]:
    """Return the value that each run has of a varied key, as a text; None where its config has no such key."""
    having = [result.setting.values[key] for result in results if key in result.setting.values]
    texts = iter(value_texts(having))
    return [next(texts) if key in result.setting.values else None for result in results]


def lines_below(seeds_of: str, results: Sequence[Result]) -> list[str]:
    """Return what is said below the table: what the seeds are of, and each run that has not ended well."""
    lines = [f"{result.setting.name}: {result.line}" for result in results if result.line]
    several = len({result.setting.seed for result in results}) > 1
    lost = f"{len(lines)} of {len(results)} runs have not ended well, and are in none of the figures:"
    return [*([seeds_of] if several else []), *([lost] if lines else []), *lines]
