"""What a canonical form gives to networks of many trainings: half-way points, codecs, and what is generated.

    python tools/bench/lineages.py halves --config configs/classification/zoo_convnet_digits.yaml --work-dir runs/halves
    python tools/bench/lineages.py halves --config configs/classification/zoo_resnet_digits.yaml --ray runs/zoo_ray
    python tools/bench/lineages.py codecs --config configs/classification/zoo_digits.yaml --work-dir runs/codecs
    python tools/bench/lineages.py zoos runs/zoo0 runs/zoo1 runs/zoo2

`halves` collects a zoo, and says what is lost half-way between the last networks of two trainings as they are and in
canonical form, and how far from each other a network and its permuted copies end. With `--ray` the zoo is written as
Ray Tune leaves it, and read from there. `codecs` fits an engine for each form and codec, the collection shared. `zoos`
compares finished runs that differ in the seed: the generated with every other source, paired by run.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdiff.canonical.applying import flat, permute, scale, views
from pdiff.canonical.form import KINDS, Form
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.whitening import Whitening
from pdiff.run.comparison import read_runs
from pdiff.run.config import load_config, read_options
from pdiff.run.directory import RunDirectory
from pdiff.run.heldout import choose_heldout
from pdiff.run.measuring import evaluate_split
from pdiff.run.recalibration import Recalibration
from pdiff.run.run import Run
from pdiff.run.units import find_symmetries
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import command
from pdiff.runtime.seeding import generator
from pdiff.stages.canonical import in_form, representatives
from pdiff.stages.pipeline import run_pipeline
from pdiff.weights.vectors import Vectors

TRAINING = {"steps": 500, "batch_size": 64, "lr": 1e-3}
NARROW = {"encoder": [16, 32, 64, 64, 32], "decoder": [64, 64, 32, 16, 16]}  # for vectors of a thousand values
CODECS = {  # what is trained, with the preset that it comes from
    "principal": {},
    "conv": {"preset": "paper", "autoencoder": {"latent": 64, **NARROW}, "autoencoder_training": TRAINING},
    "tokens": {
        "preset": "tokens",
        "autoencoder": {"token": 64, "latents": 16, "latent_width": 4},
        "autoencoder_training": TRAINING,
    },
}
DIFFUSION = ("denoiser", "generator_training", "sampler", "noise_schedule", "condition_dropout")
COPIES = 8


def collected(config: str, folder: Path, **changes: Any) -> Run:
    """Return a run of a config, with changes by dotted keys, whose population is there as it was collected."""
    cfg, directory = load_config(None, config, {}, {"fit.canonical": "none", **changes}), RunDirectory(folder)
    run_pipeline(cfg, directory, ["collect"], resume=True, gates=False)
    return Run(cfg, directory)


def write_ray(run: Run, folder: Path) -> None:
    """Write a population as Ray Tune leaves trials: a folder for each training, in it its checkpoints and results."""
    for number in np.unique(run.lineages):
        trial = folder / f"{number:02d}_tune_trainable_zoo"
        lines = []
        for iteration, row in enumerate(np.flatnonzero(run.lineages == number)):
            path = trial / f"checkpoint_{iteration:06d}" / "checkpoints"
            path.parent.mkdir(parents=True, exist_ok=True)
            run.candidates(run.collected.tensor()[row : row + 1]).load(run.task.model, 0)
            torch.save(run.task.model.state_dict(), path)
            record = run.collected.provenance[row]
            figures = {name: record[name] for name in ("step", "loss", "accuracy")}
            lines.append(json.dumps({"training_iteration": iteration, **figures}))
        (trial / "params.json").write_text(json.dumps({"seed": int(number)}), encoding="utf-8")
        (trial / "result.json").write_text("\n".join(lines) + "\n", encoding="utf-8")


def in_each_form(run: Run, fitted: list[int]) -> Iterator[tuple[str, Tensor, Form | None]]:
    """Yield the population as it is, then in each canonical form, derived from fitted rows alone."""
    vectors, last = run.collected.tensor()[:], representatives(run, fitted)
    yield "none", vectors, None
    symmetries, own = find_symmetries(run), set(fitted)
    for kind in KINDS:
        form = Form.fit(kind, run.layout, symmetries, vectors, [row for row in last.values() if row in own])
        found = [form.permutations(vectors[last[lineage]]) for lineage in sorted(last)]
        orders = [torch.stack(group) for group in zip(*found, strict=True)]
        yield kind, in_form(form, vectors, run.lineages, orders), form


def mean_metric(run: Run, vectors: Vectors, split: str = "test") -> float:
    """Return the mean metric of vectors `(M, P)`; a dead one is at chance."""
    found = np.array([result.metric for result in evaluate_split(run, split, run.candidates(vectors), split)])
    return float(np.where(np.isfinite(found), found, run.built.metric.chance).mean())


def with_statistics(run: Run, vectors: Tensor) -> Tensor:
    """Return vectors `(M, P)` with their running statistics measured on the first batches of the training data."""
    measure, found = Recalibration(run), vectors.clone()
    for row in found:
        row[measure.places] = measure(row)
    return found


def copy(form: Form, vector: Tensor, seed: int) -> Tensor:
    """Return the same network with its units in random order, each of a random scale from 1/2 to 2 where it is free."""
    rng = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(group.size, generator=rng) for group in form.symmetries.groups]
    factors = [0.5 + 1.5 * torch.rand(gain.size, generator=rng) for gain in form.gains]
    tensors = permute(views(form.layout, vector), form.symmetries.groups, orders)
    return flat(form.layout, scale(tensors, form.gains, factors), 0)


def halves(arguments: argparse.Namespace) -> None:
    """Print for each form what half-way points reach, and how far copies end from their originals."""
    run = collected(arguments.config, arguments.work_dir / "collected")
    if arguments.ray:
        if not arguments.ray.exists():
            write_ray(run, arguments.ray)
        changes = {"checkpoints.files": str(arguments.ray), "checkpoints.format": {"type": "ray"}}
        run = collected(arguments.config, arguments.work_dir / "from_ray", **changes)
    last = [int(np.flatnonzero(run.lineages == number)[-1]) for number in np.unique(run.lineages)]
    anew = run.config.evaluate.recalibrate > 0
    trained = mean_metric(run, run.collected.tensor()[last])
    print(f"{len(last)} trainings, {len(run.collected)} networks of {run.layout.size:,} values: trained {trained:.4f}")
    print(
        "| form | half-way | loses | with statistics measured anew | loses | copy, of the norm |",
        "|---" * 6 + "|",
        sep="\n",
    )
    for kind, vectors, form in in_each_form(run, list(range(len(run.collected)))):
        first, second = (vectors[list(rows)] for rows in zip(*pairwise(last), strict=True))
        ends = {kind: second} | ({f"{kind}, onto each other": form.onto(second, first)} if form else {})
        for name, other in ends.items():
            middle = (first + other) / 2
            reached = [mean_metric(run, middle)] + ([mean_metric(run, with_statistics(run, middle))] if anew else [])
            cells = [cell for value in reached for cell in (f"{value:.4f}", f"{trained - value:.4f}")]
            words = [*cells, *([""] * (4 - len(cells))), farthest(run, form, last)]
            print(f"| {name} | {' | '.join(words)} |", flush=True)


def farthest(run: Run, form: Form | None, rows: list[int]) -> str:
    """Return how far apart a network and its permuted copy end at most, over its norm; without a form, nothing."""
    if form is None:
        return ""
    originals = run.collected.tensor()[rows[:COPIES]]
    copies = torch.stack([copy(form, vector, seed) for seed, vector in enumerate(originals)])
    ones, others = form.apply(originals), form.apply(copies)
    return f"{((ones - others).norm(dim=1) / ones.norm(dim=1)).max():.1e}"


def codecs(arguments: argparse.Namespace) -> None:
    """Print for each form and codec the mean metric on `test` of decoded networks, Gaussians and generated ones."""
    run = collected(arguments.config, arguments.work_dir, **read_options(arguments.cfg_options, {}))
    heldout = set(choose_heldout(run)["rows"])
    fitted = [row for row in range(len(run.collected)) if row not in heldout]
    spaced = np.linspace(0, len(fitted) - 1, arguments.num).round().astype(int).tolist()
    known = mean_metric_each(run, run.collected.tensor()[fitted])
    wanted = known.quantile(run.config.generate.target).expand(arguments.num, 1)
    trained = mean_metric(run, run.collected.tensor()[[fitted[row] for row in spaced]])
    print(f"trained {trained:.4f}", "| form | codec | kept | decoded | Gaussian of the latents | generated |", sep="\n")
    print("|---" * 6 + "|")
    for (kind, vectors, _), codec in product(list(in_each_form(run, fitted)), CODECS):
        engine, rows = engine_of(run, codec), vectors[fitted]
        engine.fit(rows, run.layout, arguments.work_dir / "fits" / f"{kind}_{codec}", known[:, None])
        decoded = engine.decode(engine.encode(rows[spaced]))
        kept = 1 - (decoded - rows[spaced]).square().sum() / (rows[spaced] - rows.mean(0)).square().sum()
        drawn = engine.sample(arguments.num, seed=0, conditions=wanted, guidance=run.config.generate.guidance)
        found = [mean_metric(run, each) for each in (decoded, gaussian(engine, rows, arguments.num), drawn)]
        print(f"| {kind} | {codec} | {kept:.2f} | {' | '.join(f'{value:.4f}' for value in found)} |", flush=True)


def engine_of(run: Run, codec: str) -> ParameterDiffusion:
    """Return the engine of the run's config; with another codec, whitened, and with the diffusion of the config."""
    own = run.config.engine.to_dict()
    if CODECS[codec]:
        own = {"whiten": True, **{key: own[key] for key in DIFFUSION}, **CODECS[codec]}
    return ParameterDiffusion(own, seed=run.seed("engine"), device=str(run.device))


def gaussian(engine: ParameterDiffusion, rows: Tensor, num: int) -> Tensor:
    """Return decoded draws from a Gaussian with the moments of the latents of rows `(N, P)`."""
    latents = engine.encode(rows)
    whitening = Whitening(latents.shape[1])
    whitening.fit(latents)
    return engine.decode(whitening.inverse(torch.randn(num, latents.shape[1], generator=generator(0))))


def mean_metric_each(run: Run, vectors: Tensor) -> Tensor:
    """Return the metric of each vector on `select` `(M,)`."""
    results = evaluate_split(run, "select", run.candidates(vectors), "select")
    return torch.tensor([result.metric for result in results])


def zoos(arguments: argparse.Namespace) -> None:
    """Print the mean of every source over runs, and how far the generated lie above it, by a t-test paired by run."""
    from scipy.stats import ttest_rel

    summaries = [run.summary for run in read_runs(arguments.runs)]
    own = [mean_of(summary, "generated") for summary in summaries]
    print("| source |" + " run |" * len(own) + " mean | generated above | p |", "|---" * (4 + len(own)) + "|", sep="\n")
    for name in summaries[0]["sources"]:
        found = [mean_of(summary, name) for summary in summaries]
        above = np.subtract(own, found)
        p = "" if name == "generated" or len(own) < 2 else f"{ttest_rel(own, found).pvalue:.4f}"
        cells = [*(f"{value:.4f}" for value in found), f"{np.mean(found):.4f}", f"{above.mean():+.4f}", p]
        print(f"| {name} | {' | '.join(cells)} |")


def mean_of(summary: Mapping[str, Any], name: str) -> float:
    """Return the mean metric of a source; no number where the run has none, or none of it lives."""
    found = summary["sources"].get(name, {}).get("mean")
    return float("nan") if found is None else found


@command()
def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(required=True, metavar="halves | codecs | zoos")
    for name, function in (("halves", halves), ("codecs", codecs)):
        way = ways.add_parser(name, help=function.__doc__)
        way.add_argument("--config", required=True)
        way.add_argument("--work-dir", type=Path, default=Path("runs") / name)
        way.set_defaults(function=function)
        if name == "halves":
            way.add_argument("--ray", type=Path, help="folder where the zoo is written as Ray Tune does, and read from")
            continue
        way.add_argument("--num", type=int, default=200, help="networks of each kind (default: 200)")
        way.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="as of tools/run.py")
    way = ways.add_parser("zoos", help=zoos.__doc__)
    way.add_argument("runs", type=Path, nargs="+", help="run directories that differ in the seed")
    way.set_defaults(function=zoos)
    arguments = parser.parse_args()
    print(environment(torch.device("cpu")).get("processor"))
    arguments.function(arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
