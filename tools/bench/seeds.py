"""Finished runs that differ in the seed alone: generated against trained, run by run and over all of them."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdiff.run.comparison import read_runs
from pdiff.runtime.errors import command

SHOWN = ("trained", "generated", "soup", "soup16", "gaussian", "latent_gaussian", "noise05")


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Print, as Markdown, the mean of every source, the gain over the trained with its interval, and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories; a source that one lacks is left empty")
    summaries = [run.summary for run in read_runs([run.expanduser() for run in parser.parse_args(argv).runs])]
    titles = ["seed", *SHOWN, "gain over trained (95 %)", "margin", "verdict", "but for that", "seconds"]
    print(f"| {' | '.join(titles)} |", "|" + "---|" * len(titles), sep="\n")
    for summary in summaries:
        print(f"| {' | '.join(cells(summary))} |")
    means = (in_words([mean_of(summary, name) for summary in summaries]) for name in SHOWN)
    print(f"| mean | {' | '.join(means)} |{' |' * (len(titles) - len(SHOWN) - 1)}")
    return 0


def mean_of(summary: Mapping[str, Any], name: str) -> float | None:
    """Return the mean metric of a source; None where the run has no such source, or none of it lives."""
    return summary["sources"].get(name, {}).get("mean")


def in_words(values: Sequence[float | None]) -> str:
    """Return the mean of some values in words; an empty word where one is missing."""
    return "" if None in values else f"{np.mean(values):.4f}"


def cells(summary: Mapping[str, Any]) -> list[str]:
    """Return a run's row."""
    gain, means = summary["comparisons"]["trained"], (mean_of(summary, name) for name in SHOWN)
    interval = "({:+.4f} to {:+.4f})".format(*gain["ci"]) if gain["ci"] else ""
    return [
        str(summary["environment"]["seed"]),
        *(in_words([mean]) for mean in means),
        f"{gain['difference']:+.4f} {interval}",
        f"{summary['margin']:.4f}",
        summary["verdict_kind"],
        (summary["quality"] or "").split(":")[0],
        f"{sum(summary['seconds'].values()):.0f}",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
