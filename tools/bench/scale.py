"""Fit the engine to larger and larger vectors: time per training step and peak memory, as a table and a figure.

    python tools/bench/scale.py -o docs/scale.png

Each fit is a process of its own. The population is made up: a smooth curve through directions without any pattern, the
spectrum of which falls as that of a fine-tuning does. It says what a fit costs, and nothing about quality. Seconds are
those of one processor, whatever else the machine does; the memory counts what is mapped from the population's file.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.scaling import Scaled
from pdiff.runtime.cost import peak_memory
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import command
from pdiff.weights.layout import Layout
from pdiff.weights.population import Population

SIZES = (2_048, 30_016, 300_288, 3_000_000, 11_689_512)
MODES = 30  # directions of the curve
STEPS = 7  # that are timed
CODECS = {"principal": {}, "tokens": {"preset": "tokens", "autoencoder_training": {"steps": 4}}}


def made_up_layout(size: int) -> Layout:
    """Return tensors of `size` values in all: in pairs a large one and, a 256th of it, a small one."""
    sizes, left = [], size
    while left:
        large = min(left, max(256, left // 4))
        small = min(left - large, large // 256)
        sizes += [large, small] if small else [large]
        left -= large + small
    return Layout.of({f"tensor{i}": torch.empty(n, device="meta") for i, n in enumerate(sizes)})


def write_made_up(folder: Path, size: int, rows: int) -> None:
    """Write a population `(rows, size)`."""
    rng = torch.Generator().manual_seed(0)
    directions, average = torch.randn(MODES, size, generator=rng), torch.randn(size, generator=rng)
    place, mode = torch.linspace(0, 1, rows)[:, None], torch.arange(1, MODES + 1)
    scores = torch.cos(torch.pi * place * mode) / mode**1.5
    population = Population.create(folder, made_up_layout(size))
    for step, row in enumerate(scores):
        population.append(0.05 * average + 0.001 * (row @ directions), {"step": step})


def fit(folder: Path, codec: str) -> dict[str, float]:
    """Fit to the population in a folder, save, encode and decode a vector; return what that took."""
    torch.set_num_threads(1)
    population = Population.open(folder)
    config = {**CODECS[codec], "generator_training": {"steps": 4}}
    engine = ParameterDiffusion(config)
    start = time.process_time()
    engine.fit(population.tensor(), population.layout)
    whole = time.process_time() - start
    found = {"fit": whole, "weights": sum(p.numel() for p in engine.autoencoder.parameters())}
    found["axes"] = engine.autoencoder.axes.numel()
    found["step"] = step_seconds(engine, population)
    engine.save(folder / "engine")
    engine.decode(engine.encode(population.tensor()[:2]))
    return {**found, "peak": peak_memory()}


def step_seconds(engine: ParameterDiffusion, population: Population) -> float:
    """Return the seconds of a training step of the codec, or of coding a batch where nothing is trained; the fastest.

    What a denoiser's step takes depends on L alone.
    """
    from pdiff.engine.objectives import Reconstruction

    part, rows = engine.autoencoder.trainable(Scaled(population.tensor(), engine.scaling))
    noise = engine.autoencoder.vector_noise, engine.autoencoder.latent_noise
    objective, trained = Reconstruction(part, *noise, seed=0), list(part.parameters())
    seconds = []
    for step in range(STEPS):
        batch, start = rows[:8], time.process_time()
        if trained:
            torch.autograd.grad(objective(batch, step)["loss"], trained, allow_unused=True)
        else:
            part.decode(part.encode(batch))
        seconds.append(time.process_time() - start)
    return min(seconds)


def measure(size: int, codec: str, rows: int, place: Path | None) -> dict[str, float]:
    """Fit in a process of its own."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        write_made_up(Path(folder), size, rows)
        command = [sys.executable, __file__, "--fit", folder, "--codec", codec]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def growth(by_size: dict[int, dict[str, float]]) -> float:
    """Return the most that a step's time grew from one size to the next, over the growth of P; 1 is linear."""
    pairs = itertools.pairwise(sorted(by_size))
    return max(by_size[b]["step"] / by_size[a]["step"] / (b / a) for a, b in pairs)


def draw(path: Path, found: dict[str, dict[int, dict[str, float]]]) -> None:
    """Draw time per step and peak memory over P, beside lines that are linear in P and end in the same point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for codec, by_size in found.items():
        sizes, end = list(by_size), max(by_size)
        steps = [by_size[size]["step"] for size in sizes]
        (curve,) = left.loglog(sizes, steps, "o-", label=codec)
        left.loglog(sizes, [by_size[end]["step"] * size / end for size in sizes], ":", color=curve.get_color())
        right.loglog(sizes, [by_size[size]["peak"] / 1e9 for size in sizes], "o-", label=codec)
    left.set(xlabel="P, values of a vector", ylabel="seconds for a step of 8 vectors", title="dotted: linear in P")
    right.set(xlabel="P, values of a vector", ylabel="peak memory of the fit, GB")
    right.set_yticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    right.minorticks_off()
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=130)


@command()
def main() -> int:
    """Print the table, a row per size and codec, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="values of a vector")
    parser.add_argument("--rows", type=int, default=100, help="vectors of the population (default: 100)")
    parser.add_argument("--codec", choices=[*CODECS], help="one of the two (default: both)")
    parser.add_argument("--place", type=Path, help="folder for the populations (default: that of temporary files)")
    parser.add_argument("-o", "--output", type=Path, default=Path("scale.png"), help="the figure")
    parser.add_argument("--fit", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fit:
        print(json.dumps(fit(arguments.fit, arguments.codec)))
        return 0
    machine = environment(torch.device("cpu"))
    print(f"{machine['processor']}, torch {machine['packages']['torch']}, 1 thread, {arguments.rows} vectors")
    print("| P | codec | axes | learnt weights | s per step of 8 | s to fit | peak memory, GB |")
    print("|---" * 7 + "|")
    found: dict[str, dict[int, dict[str, float]]] = {}
    for codec in [arguments.codec] if arguments.codec else CODECS:
        for size in arguments.sizes:
            row = measure(size, codec, arguments.rows, arguments.place)
            found.setdefault(codec, {})[size] = row
            figures = (row["axes"], row["weights"], row["step"], row["fit"], row["peak"] / 1e9)
            print("| {:,} | {} | {:,} | {:,} | {:.2g} | {:.1f} | {:.2f} |".format(size, codec, *figures), flush=True)
    for codec, by_size in found.items():
        if len(by_size) > 1:
            first, last = min(by_size), max(by_size)
            grew = by_size[last]["step"] / by_size[first]["step"]
            print(f"{codec}: a step takes {grew:,.0f} times as long where P is {last / first:,.0f} times as large")
            print(f"{codec}: from one size to the next its time grew {growth(by_size):.2f} times as much as P at most")
    draw(arguments.output, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
