"""The figures of runs as rows of a CSV file, one per run."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pdiff.run.directory import RunDirectory, flatten
from pdiff.run.grouping import Run, figures, group_runs, seeds_of, value_texts


def csv_rows(runs: Sequence[Run], keys: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return a row per run: its name, group, both seeds, the values of keys, and its figures.

    Every row has all columns; what a run does not have is None.

    Args:
        runs: of one kind.
        keys: as `group_runs` takes them.
    """
    rows = {}
    groups = group_runs(runs, keys)
    texts = {key: value_texts([group.values[key] for group in groups]) for key in groups[0].values}
    for place, group in enumerate(groups):
        for run in group.runs:
            seed, of_fit = seeds_of(flatten(RunDirectory(run.path).config()))
            values = {key: column[place] for key, column in texts.items()}
            drawn = {"run": run.name, "group": group.name, "seed": seed, "fit.seed": of_fit}
            rows[run.name] = {**drawn, **values, **figures(run)}
    columns = dict.fromkeys(column for row in rows.values() for column in row)
    return [{column: rows[run.name].get(column) for column in columns} for run in runs]


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of the same columns as a CSV file's text, what does not exist as nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
