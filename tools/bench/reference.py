"""The default engine side by side with the published procedure: same population, same machine, one process.

The published procedure is that of a checkout of the authors' repository (NUS-HPC-AI-Lab/Neural-Network-Diffusion),
whose networks and sampler are imported from `--reference`; without it, that of the preset `paper`, which has the same
architecture and steps. Samples are drawn and candidates evaluated one by one, as published. Its rows come from memory:
the files that the published code reads again in every step do not count.

Long stages can be measured by a share of their steps and scaled; the share stands in the table. Quality needs the
whole fit: `--quick` leaves it out.

    python tools/bench/reference.py runs/demo --quick
    python tools/bench/reference.py runs/demo --reference Neural-Network-Diffusion
"""

import argparse
import importlib
import importlib.util
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdiff.analysis.statistics import Values, contrast
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.scaling import PerTensor
from pdiff.engine.settings import engine_config
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.cost import peak_memory, reset_peak_memory
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import PdiffError, command
from pdiff.task.task import Evaluation
from pdiff.weights.layout import Layout

SAMPLES, TIMESTEPS = 200, 1000
QUICK = {"autoencoder": 8, "diffusion": 8, "timesteps": 40, "alone": 8}  # steps, steps, of one sample, candidates


@dataclass(frozen=True)
class Cost:
    """What a stage took.

    Attributes:
        seconds: of the whole stage, scaled from the share that was measured.
        memory: the process's bytes at the peak, libraries and data among them.
        share: what was measured, in words; empty for all of it.
    """

    seconds: float
    memory: int
    share: str = ""


def cost(function: Callable[[], Any], done: int = 1, whole: int = 1, unit: str = "") -> tuple[Any, Cost]:
    """Return what a call returns, and its cost, when it does `done` of `whole` units."""
    reset_peak_memory()
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    share = f"{done} of {whole} {unit}" if done < whole else ""
    return result, Cost(seconds * whole / done, peak_memory(), share)


class Published(ABC):
    """The published procedure on a population.

    Args:
        vectors: `(N, P)`.
        layout: the tensors inside a vector.
        seed: of everything that is drawn.
        bf16: autocast to bfloat16, as the published scripts are launched.
    """

    def __init__(self, vectors: Tensor, layout: Layout, seed: int, bf16: bool):
        self.vectors, self.layout, self.seed, self.bf16 = vectors, layout, seed, bf16
        self.config = engine_config({"preset": "paper"})

    @abstractmethod
    def fit_autoencoder(self, steps: int) -> None:
        """Train the autoencoder."""

    @abstractmethod
    def fit_diffusion(self, steps: int) -> None:
        """Train the denoiser on the latents."""

    @abstractmethod
    def draw(self, number: int, timesteps: int) -> Tensor:
        """Return sample `number`, a vector `(1, P)`, drawn alone."""

    def autocast(self) -> torch.autocast:
        """Return the precision of the forward passes."""
        return torch.autocast(self.vectors.device.type, torch.bfloat16, enabled=self.bf16)


class Preset(Published):
    """pdiff's preset `paper`."""

    def __init__(self, vectors: Tensor, layout: Layout, seed: int, bf16: bool):
        super().__init__(vectors, layout, seed, bf16)
        self.engine = ParameterDiffusion({"preset": "paper"}, seed=seed, device=str(vectors.device))
        self.engine.build(layout)

    def fit_autoencoder(self, steps: int) -> None:
        """Train pdiff's convolutional autoencoder."""
        self.engine.config["autoencoder_training"] |= {"steps": steps, "amp": self.bf16}
        self.engine.fit_codec(self.vectors, None)

    def fit_diffusion(self, steps: int) -> None:
        """Train pdiff's convolutional denoiser."""
        self.engine.config["generator_training"] |= {"steps": steps, "amp": self.bf16}
        latents = self.engine.encode(self.vectors).to(self.vectors.device)
        self.engine.fit_diffusion(latents, None)

    def draw(self, number: int, timesteps: int) -> Tensor:
        """Draw by pdiff's ancestral sampler."""
        with self.autocast():
            return self.engine.sample(1, number, sampler={"type": "DDPM", "steps": timesteps}).float()


def published_modules(checkout: Path) -> tuple[ModuleType, ModuleType]:
    """Import `model/pdiff.py` and `model/diffusion.py` of a checkout, under a name that hides no other package."""
    folder = checkout / "model"
    missing = [name for name in ("__init__.py", "pdiff.py", "diffusion.py") if not (folder / name).is_file()]
    if missing:
        raise PdiffError(
            f"--reference: got {str(checkout)!r}, which lacks model/{missing[0]}. "
            "Give a checkout of NUS-HPC-AI-Lab/Neural-Network-Diffusion."
        )
    name = "published_model"
    place = {"submodule_search_locations": [str(folder)]}
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", **place)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return importlib.import_module(f"{name}.pdiff"), importlib.import_module(f"{name}.diffusion")


class Checkout(Published):
    """The networks, losses and sampler of the authors' repository, trained by the settings of its scripts."""

    def __init__(self, checkout: Path, vectors: Tensor, layout: Layout, seed: int, bf16: bool):
        super().__init__(vectors, layout, seed, bf16)
        networks, diffusion = published_modules(checkout)
        autoencoder, denoiser, noise = (self.config[key] for key in ("autoencoder", "denoiser", "noise_schedule"))
        size, device = layout.size + -layout.size % 64, vectors.device
        torch.manual_seed(seed)
        self.vae = networks.OneDimVAE(list(autoencoder["encoder"]), autoencoder["latent"], size).to(device)
        self.latent, self.schedule, self.sampler = autoencoder["latent"], noise, diffusion.DDPMSampler
        networks.PDiff.config = {
            "layer_channels": [1, *denoiser["channels"], 1],
            "model_dim": self.latent,
            "kernel_size": 7,
            "sample_mode": diffusion.DDPMSampler,
            "beta": (noise["beta_start"], noise["beta_end"]),
            "T": noise["timesteps"],
        }
        self.diffusion = networks.PDiff(sequence_length=size).to(device)
        self.scaling = PerTensor(layout.size).to(device)
        self.scaling.fit(vectors, layout)
        self.rows = torch.nn.functional.pad(self.scaling(vectors), (0, size - layout.size))

    def train(self, network: torch.nn.Module, settings: dict[str, Any], steps: int, loss: Callable) -> None:
        """Minimise `loss` of random batches, by AdamW and a cosine, reading every loss as the published loop does."""
        optimizer = torch.optim.AdamW(network.parameters(), settings["lr"], weight_decay=settings["weight_decay"])
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings["steps"])
        network.train()
        order = torch.empty(0, dtype=torch.long)
        for _ in range(steps):
            if len(order) < settings["batch_size"]:
                order = torch.randperm(len(self.rows))
            batch, order = order[: settings["batch_size"]], order[settings["batch_size"] :]
            optimizer.zero_grad()
            with self.autocast():
                value = loss(self.rows[batch])
            value.backward()
            optimizer.step()
            cosine.step()
            value.item()

    def fit_autoencoder(self, steps: int) -> None:
        """Train the published autoencoder."""
        noise = {"use_var": True, "manual_std": self.config["autoencoder"]["latent_noise"], "kld_weight": 0.0}
        spread = self.config["autoencoder"]["vector_noise"]

        def loss(batch: Tensor) -> Tensor:
            return self.vae(x=batch + spread * torch.randn_like(batch), **noise)

        self.train(self.vae, self.config["autoencoder_training"], steps, loss)

    def fit_diffusion(self, steps: int) -> None:
        """Train the published denoiser, on latents that are encoded anew in every step."""

        def loss(batch: Tensor) -> Tensor:
            with torch.no_grad():
                latents, _ = self.vae.encode(batch)
            return self.diffusion(x=latents)

        self.train(self.diffusion, self.config["generator_training"], steps, loss)
        self.diffusion.eval()  # the published scripts never do that to the autoencoder

    @torch.no_grad()
    def draw(self, number: int, timesteps: int) -> Tensor:
        """Draw by the published sampler; fewer timesteps than trained are for timing alone."""
        torch.manual_seed(self.seed + number)
        beta = (self.schedule["beta_start"], self.schedule["beta_end"])
        sampler = self.sampler(self.diffusion.net, beta, timesteps).to(self.rows.device)
        with self.autocast():
            latents = sampler(torch.randn(1, self.latent, device=self.rows.device), 0.0)
            rows = self.vae.decode(latents).float()
        return self.scaling.inverse(rows[:, : self.layout.size]).cpu()


def evaluate(run: Run, vectors: Tensor, split: str) -> list[Evaluation]:
    """Return the plugin's evaluation of vectors `(M, P)`."""
    return list(run.hook.evaluate(task=run.task, candidates=run.candidates(vectors), split=split, ensembles=()))


def measure_ours(run: Run, vectors: Tensor, count: int) -> tuple[Tensor, dict[str, Cost]]:
    """Return 200 samples of the preset `fast`, and what each stage took."""
    layout, seed = run.population.layout, run.config.seed
    engine, costs = ParameterDiffusion({"preset": "fast"}, seed=seed, device=str(run.device)), {}
    engine.build(layout)
    _, costs["fit autoencoder"] = cost(lambda: engine.fit_codec(vectors, None))
    latents = engine.encode(vectors).to(run.device)
    _, costs["fit diffusion"] = cost(lambda: engine.fit_diffusion(latents, None))
    new, costs[f"draw {SAMPLES}"] = cost(lambda: engine.sample(SAMPLES, seed))
    many = engine.sample(count, seed + 1)
    _, costs[f"evaluate {count}"] = cost(lambda: evaluate(run, many, "test"))
    return new, costs


def measure_published(
    side: Published, run: Run, count: int, quick: bool, samples: int, alone: int
) -> tuple[Tensor, dict[str, Cost]]:
    """Return the samples of the published procedure, and what each stage took, scaled to the whole of it."""
    whole = [side.config[section]["steps"] for section in ("autoencoder_training", "generator_training")]
    steps = [QUICK["autoencoder"], QUICK["diffusion"]] if quick else whole
    timesteps, costs = QUICK["timesteps"] if quick else TIMESTEPS, {}
    _, costs["fit autoencoder"] = cost(lambda: side.fit_autoencoder(steps[0]), steps[0], whole[0], "steps")
    _, costs["fit diffusion"] = cost(lambda: side.fit_diffusion(steps[1]), steps[1], whole[1], "steps")
    done, all_steps = samples * timesteps, SAMPLES * TIMESTEPS
    new, drawing = cost(lambda: [side.draw(i, timesteps) for i in range(samples)], done, all_steps, "timesteps")
    new, costs[f"draw {SAMPLES}"] = torch.cat(new), drawing
    candidates = new[torch.arange(alone) % len(new)]

    def one_by_one() -> None:
        for row in candidates:
            evaluate(run, row[None], "test")

    _, costs[f"evaluate {count}"] = cost(one_by_one, alone, count, "candidates")
    return new, costs


def quality(run: Run, found: dict[str, list[Evaluation]], trained: Tensor) -> dict[str, float]:
    """Return mean and best metric on `test`, the best chosen on `select`, and the similarity to the trained."""
    metrics = {split: torch.tensor([result.metric for result in results]) for split, results in found.items()}
    best = metrics["select"].argmax() if run.task.metric.higher_is_better else metrics["select"].argmin()
    signature = torch.stack([result.signature for result in found["test"]])
    return {
        f"mean {run.task.metric.name}": metrics["test"].mean().item(),
        f"best {run.task.metric.name}": metrics["test"][best].item(),
        "similarity": run.task.similarity(signature, trained).float().amax(1).mean().item(),
        "samples": len(signature),
    }


def values(name: str, results: list[Evaluation]) -> Values:
    """Return the metrics of candidates, with the mean score of each test sample where there are any."""
    columns = None
    if results[0].scores is not None:
        columns = torch.stack([result.scores for result in results]).double().mean(0).numpy()
    return Values(name, np.array([result.metric for result in results]), None, columns)


def print_quality(run: Run, new: Tensor, theirs: Tensor, vectors: Tensor) -> None:
    """Print a line per figure, the interval of the difference, and the mean of the trained."""
    trained = evaluate(run, vectors, "test")
    signatures = torch.stack([result.signature for result in trained])
    sides = [{split: evaluate(run, side, split) for split in ("select", "test")} for side in (new, theirs)]
    rows = [quality(run, side, signatures) for side in sides]
    print("\n| | fast | published |\n|---|---|---|")
    for name in rows[0]:
        print(f"| {name} | {rows[0][name]:.4f} | {rows[1][name]:.4f} |")
    ours, published = (values(name, side["test"]) for name, side in zip(("fast", "published"), sides, strict=True))
    found = contrast(ours, published, run.task.metric.higher_is_better)
    low, high = found.interval
    print(f"fast better than published by {found.difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}")
    print(f"mean of the trained: {sum(result.metric for result in trained) / len(trained):.4f}")


def warmed_up(build: Callable[[], Published], run: Run, vectors: Tensor) -> Published:
    """Return the published procedure, untrained, after first steps of everything: they are slow."""
    evaluate(run, vectors[:2].cpu(), "test")
    ParameterDiffusion({"generator_training": {"steps": 2}}, device=str(run.device)).fit(vectors).sample(1)
    throw_away = build()
    throw_away.fit_autoencoder(1)
    throw_away.fit_diffusion(1)
    return build()


def print_costs(ours: dict[str, Cost], published: dict[str, Cost]) -> None:
    """Print a line per stage, and one for fit and samples."""
    print("| | fast | published | ratio | measured of published | peak memory, fast | peak memory, published |")
    print("|---|---|---|---|---|---|---|")
    for name, own in ours.items():
        other = published[name]
        ratio, memory = other.seconds / own.seconds, f"{own.memory / 2**20:.0f} MiB | {other.memory / 2**20:.0f} MiB"
        times = f"{own.seconds:.2f} s | {other.seconds:.1f} s | {ratio:.1f}"
        print(f"| {name} | {times} | {other.share or 'all'} | {memory} |")
    first = list(ours)[:3]
    sums = [sum(side[name].seconds for name in first) for side in (ours, published)]
    print(f"| fit and {SAMPLES} samples | {sums[0]:.2f} s | {sums[1]:.1f} s | {sums[1] / sums[0]:.1f} | | | |")


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="finished run whose population is used, runs/demo for instance")
    parser.add_argument("--reference", type=Path, help="checkout of the authors' repository; default: the preset paper")
    parser.add_argument("--quick", action="store_true", help="times from a share of the steps, no quality")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16", help="of the published; default: bf16")
    parser.add_argument("--candidates", type=int, default=500, help="to be evaluated (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="drawn of the published (default: %(default)s)")
    return parser.parse_args()


@command()
def main() -> None:
    """Print the tables."""
    arguments = parse()
    directory, reference = RunDirectory(arguments.run), arguments.reference
    directory.require("collect")
    run = Run(resolve(directory.config()), directory)
    vectors, layout = run.population.tensor().to(run.device), run.population.layout
    settings = (vectors, layout, run.config.seed, arguments.precision == "bf16")
    print(environment(run.device))
    side = warmed_up(lambda: Checkout(reference, *settings) if reference else Preset(*settings), run, vectors)
    new, ours = measure_ours(run, vectors, arguments.candidates)
    samples, alone = (1, QUICK["alone"]) if arguments.quick else (arguments.samples, 4 * QUICK["alone"])
    theirs, published = measure_published(side, run, arguments.candidates, arguments.quick, samples, alone)
    print(f"published: {reference or 'preset paper'}, {arguments.precision}\n")
    print_costs(ours, published)
    if not arguments.quick:
        print_quality(run, new, theirs, vectors.cpu())


if __name__ == "__main__":
    raise SystemExit(main())
