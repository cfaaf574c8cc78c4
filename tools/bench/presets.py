"""Which settings of the preset `fast`? Each of a grid, on runs that differ in seed and data split.

What is measured is the metric on `select`; the test split is not touched. One collection a seed is shared by all
settings. Of those whose generated the copying test calls copies in no more than half of the runs, the one with the best
mean on `select` is the one to take.

    python tools/bench/presets.py --seeds 100 101 102 103 --work-dir runs/presets
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pdiff.analysis.copying import examine
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.gates.diffusion import denoising_losses
from pdiff.run.config import load_config
from pdiff.run.directory import RunDirectory
from pdiff.run.heldout import choose_heldout
from pdiff.run.measuring import evaluate_split
from pdiff.run.run import Run
from pdiff.runtime.errors import command
from pdiff.stages.pipeline import run_pipeline
from pdiff.weights.provenance import branch_labels
from pdiff.weights.vectors import Rows, deviations

HEAD = "| latent | noise | steps | gain on select | standard error | spread | kept | loss | held out | ratio | copies |"


def collected(arguments: argparse.Namespace, seed: int) -> Run:
    """Return a run whose population is there."""
    config = load_config(arguments.plugin, arguments.config, {"seed": seed}, {})
    directory = RunDirectory(arguments.work_dir / str(seed))
    run_pipeline(config, directory, stages=["collect"], resume=True)
    return Run(config, directory)


def measured(run: Run, grid: list[tuple], samples: int) -> Iterator[list[float]]:
    """Yield for each of the settings: gain on `select`, spread, kept, losses over the linear one's, ratio, copies."""
    population, labels = run.population.tensor(), branch_labels(run.population.provenance)
    rows = choose_heldout(run)["rows"]
    heldout = Rows(population, rows)
    fitted = Rows(population, [row for row in range(len(population)) if row not in rows])
    branches = tuple(labels[rows.rows.numpy()] for rows in (fitted, heldout))
    trained, average = mean(run, "trained", fitted), fitted[:].mean(0)
    for latent, noise, steps in grid:
        settings = {"preset": "fast", "autoencoder": {"latent": latent, "latent_noise": noise}}
        settings["generator_training"] = {"steps": steps}
        engine = ParameterDiffusion(settings, seed=run.seed("engine"), device=str(run.device))
        engine.fit(fitted, run.layout)
        vectors = engine.sample(samples, seed=0)
        decoded = tuple(engine.decode(engine.encode(rows)) for rows in (fitted, heldout))
        error = (decoded[1] - heldout[:]).square().sum()
        kept = 1 - (error / (heldout[:] - average).square().sum()).item()
        spread = (deviations(vectors).mean() / deviations(fitted).mean()).item()
        losses = []
        for rows in (fitted, heldout):
            loss, linear = denoising_losses(engine, engine.encode(rows), 0, engine.encode(fitted))
            losses.append(loss / linear)
        found = examine(vectors, fitted, heldout, lambda pair=decoded: pair, branches, None, 0)
        yield [mean(run, "generated", vectors) - trained, spread, kept, *losses, found.own, float(found.copies)]


def mean(run: Run, name: str, vectors) -> float:
    """Return the mean metric of vectors `(M, P)` on `select`, with the sign by which higher is better."""
    sign = 1 if run.task.metric.higher_is_better else -1
    results = evaluate_split(run, name, run.candidates(vectors), "select")
    return sign * float(np.mean([result.metric for result in results]))


@command()
def main() -> int:
    """Print a row for each setting: means over the seeds, and the standard error of the gain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", default="classification")
    parser.add_argument("--config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102, 103])
    parser.add_argument("--latents", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--noises", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--samples", type=int, default=50, help="generated for each (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, default=Path("runs/presets"))
    arguments = parser.parse_args()
    grid = list(itertools.product(arguments.latents, arguments.noises, arguments.steps))
    runs = [collected(arguments, seed) for seed in arguments.seeds]
    found = np.array([list(measured(run, grid, arguments.samples)) for run in runs])
    print(HEAD, "|" + "---|" * (HEAD.count("|") - 1), sep="\n")
    for number, settings in enumerate(grid):
        own = found[:, number]
        error = own[:, 0].std(ddof=1) / len(own) ** 0.5 if len(own) > 1 else float("nan")
        gain, *means = own.mean(0)
        cells = [*map(str, settings), f"{gain:+.4f}", f"{error:.4f}", *(f"{value:.2f}" for value in means)]
        print(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
