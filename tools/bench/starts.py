"""How good a beginning is: networks for unseen conditions after some steps of training from each of several beginnings.

    python tools/bench/starts.py runs/behaviour0 runs/behaviour1 runs/behaviour2 --draw starts.png

Of finished runs over conditions that differ in the seed. A beginning is a source; `base` is what all networks of the
collection began with: a training from scratch where that is an initialisation. For each beginning and each number of
steps the rate is the one that is best on select conditions; differences to the oracle are on unseen ones, and their
intervals over the runs.
"""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.analysis.repetition import over_runs
from pdiff.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION, draw
from pdiff.run.behaviour import has_loss
from pdiff.run.export import open_run
from pdiff.run.measuring import evaluate_split
from pdiff.run.refining import Refinement, refine
from pdiff.run.run import Run
from pdiff.run.sources import Drawn, Pool, open_pool, open_source, source_names
from pdiff.run.summaries import check_drawn_anew
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import PdiffError, check_not_negative, check_positive, command, known
from pdiff.runtime.progress import logger
from pdiff.runtime.storage import write_bytes

BEGINNINGS = ("base", "soup", "nearest", "ridge", "kernel_ridge", "generated", "hypernet")
HELP = f"sources; ratios are to the first; default: of {', '.join(BEGINNINGS)} those that all runs have"
STEPS = (8, 16, 32, 48, 80, 120, 160, 240)
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, GREY, INK)
MARKS = "os^DvP*X"
Curve = Mapping[int, float]  # steps to the difference to the oracle


def first_of_each(found: Drawn, count: int) -> Tensor:
    """Return a source's first vector for each of `count` wanted conditions `(W, P)`."""
    wanted = found.wanted.tolist()
    return found.vectors[torch.tensor([wanted.index(number) for number in range(count)])]


def by_group(run: Run, pool: Pool, vectors: Tensor) -> tuple[NDArray, float]:
    """Return the mean metric on `test` of each group of unseen conditions `(U,)`, and that of select ones on `select`.

    As in the report, a network that gives nothing finite counts as chance, where that is known.

    Args:
        run: the run.
        pool: what its sources draw from.
        vectors: one for each wanted condition `(W, P)`.
    """
    wanted, lost = pool.wanted, run.task.metric.worst if run.task.metric.chance is None else run.task.metric.chance
    candidates, found = run.candidates(vectors, wanted.conditions), {}
    for split in ("select", "test"):
        metrics = np.array([result.metric for result in evaluate_split(run, "beginning", candidates, split)])
        found[split] = np.where(np.isfinite(metrics), metrics, lost)
    groups = wanted.groups[wanted.unseen]
    means = [found["test"][wanted.unseen][groups == group].mean() for group in np.unique(groups)]
    return np.array(means), float(found["select"][~wanted.unseen].mean())


def curves_of(run: Run, beginnings: Sequence[str], steps: Sequence[int], rates: Sequence[float]) -> dict[str, Curve]:
    """Return for each beginning the mean difference to the oracle after some steps, at the rate that select chose."""
    pool = open_pool(run)
    sign = 1 if run.task.metric.higher_is_better else -1
    oracle, _ = by_group(run, pool, first_of_each(open_source(run, "oracle", pool), len(pool.wanted)))
    curves: dict[str, Curve] = {}
    for name in beginnings:
        vectors = first_of_each(open_source(run, name, pool), len(pool.wanted))
        curves[name] = {0: sign * float((by_group(run, pool, vectors)[0] - oracle).mean())}
        for count in steps:
            found = [by_group(run, pool, made) for made in refined_at(run, pool, name, vectors, count, rates)]
            test, _ = max(found, key=lambda pair: sign * pair[1])
            curves[name][count] = sign * float((test - oracle).mean())
    return curves


def refined_at(
    run: Run, pool: Pool, name: str, vectors: Tensor, steps: int, rates: Sequence[float]
) -> Iterator[Tensor]:
    """Yield what so many steps at each rate make of vectors `(W, P)`; a rate that drives them to infinity is left out.

    Raises:
        PdiffError: all rates do, or the training cannot be.
    """
    wrong: list[PdiffError] = []
    for rate in rates:
        how = Refinement(name, steps, rate, "weights", 1, len(vectors), 0.0)
        try:
            yield refine(run, how, vectors, pool.wanted.conditions)[0]
        except PdiffError as error:
            wrong.append(error)
            logger.warning("%s after %d steps at the rate %s is left out: %s", name, steps, rate, error)
    if len(wrong) == len(rates):
        raise wrong[-1]


def steps_to(curve: Curve) -> float:
    """Return after how many steps a curve reaches 0, between two points on a line; infinity for never."""
    before: tuple[int, float] | None = None
    for steps, value in curve.items():
        if value >= 0:
            return steps if before is None else before[0] + (steps - before[0]) * before[1] / (before[1] - value)
        before = steps, value
    return math.inf


def print_curves(curves: Sequence[Mapping[str, Curve]], beginnings: Sequence[str]) -> None:
    """Print the differences, the steps to the oracle, and these over those of the first beginning."""
    titles = ["begun at", *map(str, curves[0][beginnings[0]]), "steps to the oracle (95 %)", "ratio (95 %)"]
    print(f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", sep="\n")
    first = [steps_to(own[beginnings[0]]) for own in curves]
    for name in beginnings:
        values = np.array([list(own[name].values()) for own in curves])
        reached = [steps_to(own[name]) for own in curves]
        ratios = [mine / other if other else math.nan for mine, other in zip(reached, first, strict=True)]
        ratio = over_runs(ratios, "{:.2f}")
        cells = [*(f"{value:+.4f}" for value in values.mean(0)), over_runs(reached, "{:.0f}"), ratio]
        print(f"| {name} | {' | '.join(cells)} |")


def draw_curves(axes: Any, curves: Sequence[Mapping[str, Curve]], label: str) -> None:
    """Draw the difference to the oracle over the steps: a line for each beginning, a dot for each run."""
    axes.axhline(0, color=GREY, linewidth=1)
    for number, name in enumerate(curves[0]):
        steps, values = list(curves[0][name]), np.array([list(own[name].values()) for own in curves])
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number % len(MARKS)]}
        axes.plot(steps, values.mean(0), label=name, linewidth=1.2, markersize=5, **style)
        for own in values:
            axes.plot(steps, own, ".", color=style["color"], alpha=0.4, markersize=3)
    axes.set_xscale("symlog", linthresh=8)
    axes.set_xticks(steps, map(str, steps))
    axes.set(xlabel="steps of training for the condition", ylabel=f"{label}, to the oracle", ylim=(-0.1, None))
    axes.legend()


def beginnings_of(runs: Sequence[Run], asked: Sequence[str] | None) -> list[str]:
    """Return the sources to begin with: those asked for, else those of `BEGINNINGS` that all runs have.

    Raises:
        PdiffError: the runs have no conditions, or no hook for the training, or one lacks a source that is asked for.
    """
    for run in runs:
        if not run.conditional:
            raise PdiffError(f"{run.directory.path}: has no conditions. Give runs whose checkpoints have.")
        if not has_loss(run):
            raise PdiffError(f"{run.directory.path}: the plugin {run.name} has no hook loss. Define it.")
    names = [name for name in source_names(runs[0]) if all(name in source_names(run) for run in runs)]
    for name in asked or ():
        if name not in names:
            raise PdiffError(f"--beginnings: got {name!r}. {known(name, names)}")
    return list(dict.fromkeys(asked or [name for name in BEGINNINGS if name in names]))


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and draw the figure where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="directories of finished runs over conditions")
    parser.add_argument("--beginnings", nargs="+", help=HELP)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--draw", type=Path, help="PNG file of the figure")
    arguments = parser.parse_args(argv)
    for count in arguments.steps:
        check_positive("starts", steps=count)
    for rate in arguments.rates:
        check_not_negative("starts", rates=rate)
    runs = [open_run(path.expanduser()) for path in arguments.runs]
    check_drawn_anew([run.directory.path for run in runs])
    beginnings, steps = beginnings_of(runs, arguments.beginnings), sorted({*arguments.steps})
    print(environment(runs[0].device).get("processor"))
    curves = [curves_of(run, beginnings, steps, arguments.rates) for run in runs]
    print_curves(curves, beginnings)
    if arguments.draw:
        write_bytes(arguments.draw, draw(draw_curves, curves, runs[0].task.metric.name, width=7.0, height=5.0))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
