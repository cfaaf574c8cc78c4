"""Set runs of several tasks side by side: what is gained, how new it is, what it costs.

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
    return parser.parse_args(argv)


@command()
def main(argv: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Compare."""
    arguments = parse(argv, prog)
    from pdiff.report import side_by_side, side_by_side_conditions
    from pdiff.run.comparison import read_runs

    runs = read_runs([run.expanduser() for run in arguments.runs])
    report = side_by_side_conditions if runs[0].summary.get("conditional") else side_by_side
    picture = report.write_comparison(runs, arguments.output.expanduser())
    report.print_comparison(runs)
    print(f"comparison: {arguments.output}, {picture}")
