"""Settings of a sweep against one of them, seed by seed: what is the same but for the setting is taken in pairs.

Figures are named by their place in a run's summary.json, checks of gates as `gates.denoiser.memorisation`.
"""

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdiff.analysis.repetition import over_runs
from pdiff.run.directory import RunDirectory
from pdiff.runtime.errors import PdiffError, command, known
from pdiff.runtime.storage import read_json

SHOWN = ("sources.generated.mean", "sources.generated.similarity", "sources.generated.spread", "copying.own")


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Print, as Markdown, the mean of each figure over the seeds, and its difference to the first setting's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweep", type=Path, help="folder of a sweep")
    parser.add_argument("key", help="dotted key that was varied")
    parser.add_argument("--figures", nargs="+", default=SHOWN, help="places in summary.json")
    arguments = parser.parse_args(argv)
    found = read_settings(arguments.sweep, arguments.key)
    first = next(iter(found))
    titles = [arguments.key, *(title for name in arguments.figures for title in (name, f"against {first}"))]
    print(f"| {' | '.join(titles)} |", "|" + "---|" * len(titles), sep="\n")
    for value, runs in found.items():
        cells = [cell for name in arguments.figures for cell in compared(name, runs, found[first])]
        print(f"| {' | '.join([value, *cells])} |")
    return 0


def read_settings(folder: Path, key: str) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the summaries of a sweep's finished runs, by the text of the key's value, then by the seeds' texts."""
    table = folder / "sweep.csv"
    if not table.is_file():
        raise PdiffError(f"{table}: is no file. Give the folder of a sweep that has ended.")
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if key not in rows[0]:
        raise PdiffError(f"key: got {key!r}. {known(key, list(rows[0]))}")
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        path = RunDirectory(folder / "runs" / row["run"]).folder("compare") / "summary.json"
        if path.is_file():
            found.setdefault(row[key], {})[f"{row['seed']} {row['fit.seed']}"] = read_json(path)
    return found


def compared(name: str, runs: Mapping[str, Mapping[str, Any]], first: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a figure over the seeds of a setting, and its difference to another setting's at the seeds of both."""
    own = {seed: figure(summary, name) for seed, summary in runs.items()}
    pairs = [(own[seed], figure(first[seed], name)) for seed in own if seed in first]
    apart = [None if None in pair else pair[0] - pair[1] for pair in pairs]
    return [over_runs(list(own.values())), "" if runs is first else over_runs(apart, "{:+.4f}")]


def figure(summary: Mapping[str, Any], name: str) -> float | None:
    """Return a figure of a summary by its place; None where it has none."""
    checks = {check["name"]: check["figures"] for check in summary["gates"]}
    value: Any = {**summary, "gates": checks}
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


if __name__ == "__main__":
    raise SystemExit(main())
