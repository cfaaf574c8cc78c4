"""Finished runs that differ in the seed alone: generated against trained, run by run and over all of them."""

import argparse
from pathlib import Path

import numpy as np

from pdiff.runtime.errors import command
from pdiff.runtime.storage import read_json

SHOWN = ("trained", "generated", "soup", "soup16", "gaussian", "noise05", "noise15")


@command()
def main() -> int:
    """Print the mean of every source, the best generated with its interval, and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    summaries = [read_json(run / "report" / "summary.json") for run in parser.parse_args().runs]
    print(f"{'seed':<8}" + "".join(f"{name:>11}" for name in SHOWN) + f"{'best generated (95 %)':>26}{'seconds':>9}")
    for summary in summaries:
        sources = summary["sources"]
        best = sources["generated"]["best"], *(sources["generated"]["best_ci"] or (float("nan"),) * 2)
        print(
            f"{summary['environment']['seed']:<8}"
            + "".join(f"{sources[name]['mean']:>11.4f}" for name in SHOWN)
            + f"{'{:.3f} ({:.3f} to {:.3f})'.format(*best):>26}{sum(summary['seconds'].values()):>9.0f}"
        )
    means = {name: np.mean([s["sources"][name]["mean"] for s in summaries]) for name in SHOWN}
    print(f"{'mean':<8}" + "".join(f"{means[name]:>11.4f}" for name in SHOWN))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
