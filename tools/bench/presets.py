"""The presets `fast` and `paper` on the population of one run: time, quality and spread, in one process."""

import argparse
import sys
import time
from pathlib import Path

import torch

from pdiff.config import resolve
from pdiff.engine import ParameterDiffusion
from pdiff.errors import PdiffError
from pdiff.novelty import spread
from pdiff.run import Run
from pdiff.rundir import RunDirectory


def timed(function, *arguments):
    """Return what a call returns, and its seconds."""
    start = time.monotonic()
    result = function(*arguments)
    return result, time.monotonic() - start


def mean_metric(run: Run, vectors: torch.Tensor, split: str) -> float:
    """Return the mean of the task's metric on a split."""
    results = run.hook.evaluate(task=run.task, candidates=run.candidates(vectors), split=split)
    return sum(result.metric for result in results) / len(vectors)


def draw_one_by_one(engine: ParameterDiffusion, count: int) -> list[torch.Tensor]:
    """Draw samples as the published code does: one at a time."""
    return [engine.sample(1, seed=index) for index in range(count)]


def measure(run: Run, preset: str, split: str, draw: int, singles: int) -> dict[str, float]:
    """Return seconds of fitting and of drawing 200, and the quality of what was drawn."""
    vectors = run.population.tensor()
    engine = ParameterDiffusion({"preset": preset}, seed=run.config.seed)
    _, fit_seconds = timed(engine.fit, vectors, run.population.layout)
    if singles:
        parts, seconds = timed(draw_one_by_one, engine, singles)
        draw_seconds = seconds * 200 / singles
        new = torch.cat([*parts, engine.sample(draw - singles, seed=run.config.seed + singles)])
    else:
        new, draw_seconds = timed(engine.sample, 200, run.config.seed)
    return {
        "fit seconds": fit_seconds,
        "seconds for 200 samples": draw_seconds,
        "seconds in all": fit_seconds + draw_seconds,
        "samples evaluated": len(new),
        "mean metric": mean_metric(run, new, split),
        "spread": spread(new, vectors),
    }


def main() -> int:
    """Print a column per preset, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run directory whose population is used, runs/demo for instance")
    parser.add_argument("--draw", type=int, default=64, help="samples of `paper` whose quality is measured")
    parser.add_argument("--singles", type=int, default=5, help="samples of `paper` that are drawn one by one and timed")
    parser.add_argument("--split", default="test", help="test (default), or select, for choosing settings")
    arguments = parser.parse_args()
    directory = RunDirectory(arguments.run)
    try:
        directory.require("collect")
        run = Run(resolve(directory.config()), directory)
        trained = mean_metric(run, run.population.tensor(), arguments.split)
        fast = measure(run, "fast", arguments.split, 200, 0)
        print("fast done", file=sys.stderr)
        paper = measure(run, "paper", arguments.split, arguments.draw, arguments.singles)
    except PdiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{'':<26}{'fast':>12}{'paper':>12}{'paper / fast':>14}")
    for key in fast:
        print(f"{key:<26}{fast[key]:>12.4f}{paper[key]:>12.4f}{paper[key] / fast[key]:>14.2f}")
    print(f"mean metric of the trained: {trained:.4f}; {torch.get_num_threads()} threads")
    print(f"paper's 200 samples, one by one: {arguments.singles} measured and scaled up")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
