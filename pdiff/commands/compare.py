"""Set runs of several tasks side by side: what is gained, how new it is, what it costs.

Runs that differ in nothing but their seeds are one row, with means over them; settings that differ are columns.
Runs over conditions: how close the best source comes to the networks trained for them, in what share of the time.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pdiff.runtime.errors import command


def parse(argv: Sequence[str] | None, prog: str | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(prog, description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory of a finished run")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("comparison.html"),
        help="the page (default: comparison.html); a picture goes beside it, as .png",
    )  # fmt: skip
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all figures of the runs, a row per run")
    return parser.parse_args(argv)


@command()
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Compare."""
    arguments = parse(argv, prog)
    from pdiff.report.comparison_table import kind
    from pdiff.run.comparison import read_runs
    from pdiff.run.csv_rows import csv_rows, csv_text
    from pdiff.run.grouping import group_runs
    from pdiff.runtime.storage import write_text

    runs = read_runs([run.expanduser() for run in arguments.runs])
    groups = group_runs(runs)
    written = [arguments.output, kind(groups).write_comparison(groups, arguments.output.expanduser())]
    if arguments.csv:
        write_text(arguments.csv.expanduser(), csv_text(csv_rows(runs)))
        written.append(arguments.csv)
    kind(groups).print_comparison(groups)
    print(f"comparison: {', '.join(map(str, written))}")
