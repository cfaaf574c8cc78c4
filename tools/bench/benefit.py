"""What generating is good for: figures of finished runs that differ in the seed, with 95 % intervals over the seeds.

    python tools/bench/benefit.py conditions runs/behaviour0 runs/behaviour1 runs/behaviour2 --draw cost.png
    python tools/bench/benefit.py uncertainty runs/sure0 runs/sure1 runs/sure2
    python tools/bench/benefit.py storage runs/behaviour0 runs/behaviour1 runs/behaviour2
    python tools/bench/benefit.py choice runs/sure0 runs/sure1 runs/sure2

A seed settles everything: images, conditions, initial weights, what is drawn. So the unit of every interval is the
run, by Student's t; that of one run over conditions or candidates stands in its own report.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdiff.analysis.repetition import over_runs
from pdiff.analysis.verdict import TRAINED
from pdiff.report.conditional_charts import conditional_styles, costs
from pdiff.report.drawing import draw
from pdiff.run.comparison import Compared, ComparedOverConditions, read_runs
from pdiff.run.directory import RunDirectory
from pdiff.run.summaries import check_drawn_anew
from pdiff.runtime.errors import PdiffError, command
from pdiff.runtime.storage import write_bytes

Run = Compared | ComparedOverConditions
TENSORS = ("*.safetensors", "*.f32")
DECODING = ("scaling", "autoencoder", "decoder", "whitening", "denoiser", "conditioning")
OF_ENGINE = ("scaling",)  # what a hypernetwork needs of the engine


def print_table(titles: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    """Print rows as Markdown."""
    print(f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", sep="\n")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


def common(runs: Sequence[Run]) -> list[str]:
    """Return the names of the sources that all runs have, in the order of the first one's."""
    return [name for name in runs[0].summary["sources"] if all(name in run.summary["sources"] for run in runs)]


def each(runs: Sequence[Run], *keys: str) -> list[Any]:
    """Return what lies in every run's summary behind some keys; None where one lacks it."""

    def inside(values: Any) -> Any:
        for key in keys:
            values = values.get(key) if isinstance(values, Mapping) else None
        return values

    return [inside(run.summary) for run in runs]


def check_alike(runs: Sequence[Run]) -> None:
    """Raise a `PdiffError` for runs of which a mean says nothing: of several tasks or measures, or copies of one."""
    for keys in (("plugin",), ("metric", "name")):
        found = dict.fromkeys(map(str, each(runs, *keys)))
        if len(found) > 1:
            line = f"runs: got those of {' and '.join(found)}, expected one {keys[0]}"
            raise PdiffError(f"{line}. Give runs that differ in the seed.")
    check_drawn_anew([run.path for run in runs])


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean over runs; None where one has no figure."""
    return None if None in values else float(np.mean(values))


def conditions(runs: Sequence[Run], file: Path | None) -> None:
    """Print quality for unseen conditions against the seconds of a network, source by source, best first."""
    if isinstance(runs[0], Compared):
        raise PdiffError(f"conditions: the checkpoints of {runs[0].path} have no conditions. Give runs whose have.")
    names = [name for name in common(runs) if None not in each(runs, "sources", name, "mean")]
    sign = 1 if runs[0].summary["metric"]["higher_is_better"] else -1
    names.sort(key=lambda name: -sign * np.mean(each(runs, "sources", name, "mean")))
    differences = {name: each(runs, "sources", name, "to_oracle", "difference") for name in names}
    seconds = {name: mean_of(each(runs, "sources", name, "seconds")) for name in names}
    titles = ["source", "mean (95 % over runs)", "to the oracle (95 %)", "on select", "seconds for one more"]
    print_table(
        titles,
        (
            [
                name,
                over_runs(each(runs, "sources", name, "mean")),
                over_runs(differences[name], "{:+.4f}") if name != "oracle" else "",
                over_runs(each(runs, "sources", name, "select")).partition(" (")[0],
                "" if seconds[name] is None else f"{seconds[name]:.2g}",
            ]
            for name in names
        ),
    )
    spent = {stage: mean_of(each(runs, "seconds", stage)) for stage in runs[0].summary.get("seconds", {})}
    spent = [f"{stage} {took:.0f}" for stage, took in spent.items() if took is not None]
    print(f"\nseconds of the stages: {', '.join(spent) or 'not known'}")
    if file:
        means = {name: mean_of(each(runs, "sources", name, "mean")) for name in names}
        drawn = {name: (seconds[name], means[name]) for name in names if seconds[name]}
        label = f"{runs[0].summary['metric']['name']}, mean over runs"
        write_bytes(file, draw(costs, drawn, conditional_styles(drawn), label, None, width=8.0, height=6.0))


def uncertainty(runs: Sequence[Run], file: Path | None) -> None:
    """Print the metric of every source and its further figures, means over candidates, beside those of the trained.

    The trained have the interval of the figure, all others that of their difference to the trained, paired by run.
    """
    names = common(runs)
    details = list(dict.fromkeys(key for name in names for key in each(runs, "sources", name, "details")[0] or {}))
    if not details:
        raise PdiffError(f"uncertainty: {runs[0].path} has no figures but the metric. Set task.uncertainty.")

    def figures(name: str) -> list[list[float | None]]:
        found = (each(runs, "sources", name, "details", key, "mean") for key in details)
        return [each(runs, "sources", name, "mean"), *found]

    def row(name: str) -> list[str]:
        if name == TRAINED:
            return [name, *map(over_runs, figures(name))]
        return [name, *map(beside, figures(name), figures(TRAINED))]

    print_table(["source", runs[0].summary["metric"]["name"], *details], map(row, names))


def beside(own: Sequence[float | None], others: Sequence[float | None]) -> str:
    """Return in words the mean over runs, and the difference to the figures of another source with its interval."""
    if None in own or None in others:
        return ""
    apart = [one - other for one, other in zip(own, others, strict=True)]
    return f"{np.mean(own):.4f}, {over_runs(apart, '{:+.4f}')}"


def bytes_of(folder: Path, names: Sequence[str] | None = None) -> int:
    """Return how many bytes the tensors in a folder take: all of them, or those of some files."""
    files = [path for pattern in TENSORS for path in folder.glob(pattern) if names is None or path.stem in names]
    return sum(path.stat().st_size for path in files)


def storage(runs: Sequence[Run], file: Path | None) -> None:
    """Print the bytes of what networks can be had from, beside what these reach; runs with one latent in one row."""
    reference = "oracle" if isinstance(runs[0], ComparedOverConditions) else "trained"
    for run in runs:
        if not bytes_of(run.path / "population"):
            raise PdiffError(f"{run.path / 'population'}: has no networks. Give a run that still has its collection.")
    by_latent: dict[int, list[Run]] = {}
    for run in runs:
        by_latent.setdefault(RunDirectory(run.path).config()["engine"]["autoencoder"]["latent"], []).append(run)

    def row(name: str, latent: int) -> list[str]:
        own = by_latent[latent]
        whole = [bytes_of(run.path / "population") for run in own]
        sizes = whole if name == reference else [bytes_behind(run, name) for run in own]
        shares = [size / of for size, of in zip(sizes, whole, strict=True)]
        pairs = list(zip(*(each(own, "sources", other, "mean") for other in (name, reference)), strict=True))
        gains = [None if None in pair else pair[0] - pair[1] for pair in pairs]
        means = over_runs(each(own, "sources", name, "mean"))
        sized = [f"{np.mean(sizes) / 1e6:.2f}", f"{np.mean(shares):.3f}", means]
        return [name, "", *sized, ""] if name == reference else [name, str(latent), *sized, over_runs(gains, "{:+.4f}")]

    made = [name for name in common(runs) if name == "generated" or type_of(runs[0], name) == "hypernet"]
    wanted = [(reference, next(iter(by_latent))), *((name, latent) for name in made for latent in sorted(by_latent))]
    titles = ["networks from", "L", "MB", "of the population", "mean (95 %)", f"to the {reference} (95 %)"]
    print_table(titles, (row(*each_one) for each_one in wanted))


def type_of(run: Run, name: str) -> str:
    """Return a source's type, where the summary says it."""
    return run.type_of(name) if isinstance(run, ComparedOverConditions) else name


def bytes_behind(run: Run, name: str) -> int:
    """Return the bytes of what the engine, or its hypernetwork, gives networks from."""
    folder = run.path / "engine"
    if name == "generated":
        return bytes_of(folder, DECODING)
    return bytes_of(folder / "hypernet") + bytes_of(folder, OF_ENGINE)


def choice(runs: Sequence[Run], file: Path | None) -> None:
    """Print how well training data, and the split select, choose the best of the generated."""
    found: list[Mapping[str, Any] | None] = each(runs, "choice")
    for run, own in zip(runs, found, strict=True):
        if own is None:
            line = "has not measured its generated on training data"
            raise PdiffError(f"choice: {run.path} {line}. Set evaluate.train, in a run without conditions.")
    for title, figures in (("by training data", found), ("by select", [own.get("select") or {} for own in found])):
        keys = [key for key in figures[0] if key != "select" and not key.endswith("_ci")]
        print_table([title, "mean over runs (95 %)"], ([key, over_runs([o.get(key) for o in figures])] for key in keys))


WAYS: Mapping[str, Callable[[Sequence[Run], Path | None], None]] = {
    function.__name__: function for function in (conditions, uncertainty, storage, choice)
}


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Print a table, and draw a figure where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(draw=None)
    ways = parser.add_subparsers(required=True, metavar=" | ".join(WAYS), dest="way")
    for name, function in WAYS.items():
        way = ways.add_parser(name, help=function.__doc__)
        way.add_argument("runs", type=Path, nargs="+", help="run directories that differ in the seed")
    ways.choices["conditions"].add_argument("--draw", type=Path, help="PNG file of the figure")
    arguments = parser.parse_args(argv)
    runs = read_runs([run.expanduser() for run in arguments.runs])
    check_alike(runs)
    WAYS[arguments.way](runs, arguments.draw)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
