"""Set runs of several tasks side by side: what is gained, how new it is, what it costs."""

import argparse
from pathlib import Path

from pdiff.report.side_by_side import print_comparison, write_comparison
from pdiff.run.comparison import read_runs
from pdiff.runtime.errors import command


@command
def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory of a finished run")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("comparison.html"),
        help="the page (default: comparison.html); a picture goes beside it, as .png",
    )  # fmt: skip
    arguments = parser.parse_args()
    runs = read_runs(arguments.runs)
    picture = write_comparison(runs, arguments.output)
    print_comparison(runs)
    print(f"comparison: {arguments.output}, {picture}")


if __name__ == "__main__":
    raise SystemExit(main())
