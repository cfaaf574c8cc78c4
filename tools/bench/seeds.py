"""Finished runs that differ in the seed alone: generated against trained, run by run and over all of them."""

import argparse
from pathlib import Path

import numpy as np

from pdiff.runtime.errors import command
from pdiff.runtime.storage import read_json

SHOWN = ("trained", "generated", "soup", "soup16", "gaussian", "latent_gaussian", "noise05")


@command()
def main() -> int:
    """Print, as Markdown, the mean of every source, the gain over the trained with its interval, and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    summaries = [read_json(run / "report" / "summary.json") for run in parser.parse_args().runs]
    titles = ["seed", *SHOWN, "gain over trained (95 %)", "margin", "verdict", "but for that", "seconds"]
    print(f"| {' | '.join(titles)} |", "|" + "---|" * len(titles), sep="\n")
    for summary in summaries:
        print(f"| {' | '.join(cells(summary))} |")
    means = (f"{np.mean([s['sources'][name]['mean'] for s in summaries]):.4f}" for name in SHOWN)
    print(f"| mean | {' | '.join(means)} |{' |' * (len(titles) - len(SHOWN) - 1)}")
    return 0


def cells(summary: dict) -> list[str]:
    """Return a run's row."""
    gain = summary["comparisons"]["trained"]
    interval = "({:+.4f} to {:+.4f})".format(*gain["ci"]) if gain["ci"] else ""
    return [
        str(summary["environment"]["seed"]),
        *(f"{summary['sources'][name]['mean']:.4f}" for name in SHOWN),
        f"{gain['difference']:+.4f} {interval}",
        f"{summary['margin']:.4f}",
        summary["verdict_kind"],
        (summary["quality"] or "").split(":")[0],
        f"{sum(summary['seconds'].values()):.0f}",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
