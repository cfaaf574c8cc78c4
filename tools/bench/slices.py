"""Run all five stages on whole networks of more and more values: seconds and peak memory of each stage, as a table.

    python tools/bench/slices.py runs/slices

Each run is a process of its own; one that is done is not repeated. The networks are timm's, on digits of 32 pixels, so
that passes are short and the length P of a vector is what counts; they learn next to nothing. The runs of one network
share a collection of 20 checkpoints, of which the engine gets 15: `fast` has 16 axes for them in place of 32. `tokens`
trains its codec for a part of the steps of its preset, which the table names, and its denoiser, which does not know P,
for a part too. Memory is resident, pages of mapped files among it. Below the measured sizes stands what a straight line
through the two largest gives for another one.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pdiff.run.directory import ORDER, RunDirectory
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import PdiffError, command
from pdiff.runtime.settings import to_yaml
from pdiff.runtime.storage import write_text
from pdiff.weights.population import Population

TOOL = Path(__file__).parents[1] / "run.py"
NETWORKS = {
    "tiny": {"name": "resnet18", "options": {"channels": [10, 20, 40, 80]}},
    "resnet18": {"name": "resnet18"},
    "resnet50": {"name": "resnet50"},
    "convnext_small": {"name": "convnext_small"},
}
SIZES = tuple(name for name in NETWORKS if name != "tiny")  # that are measured
ENGINES = {
    "fast": {"preset": "fast", "autoencoder": {"latent": 16}},
    "tokens": {"preset": "tokens", "autoencoder_training": {"steps": 30}, "generator_training": {"steps": 100}},
}
LINE = 200_000_000  # values for which the line is told
Costs = Mapping[str, tuple[float, int, int]]  # of a stage: seconds, peak memory and disk in bytes


def config_of(network: str, engine: str) -> dict[str, Any]:
    """Return the config of one run."""
    training = {"batch_size": 64, "lr": 1.0e-3}
    sources = {"soup16": {"members": 4}, "ensemble": {"members": 4}}
    return {
        "plugin": "classification", "select": "all", "device": "cpu",
        "task": {
            "network": {"type": "timm", **NETWORKS[network]},
            "data": {"type": "digits", "size": 32, "train": 1500, "select": 128},
            "eval_batch": 200,
        },
        "collect": {
            "train": {"epochs": 1, **training},
            "finetune": {"steps": 5, **training, "lr": 1.0e-4},
            "branches": 4,
        },
        "engine": ENGINES[engine],
        "generate": {"num": 10, "path": 0},
        "evaluate": {"num": 4, "train": [], "sources": {**sources, "trained": {"num": 8}}},
    }  # fmt: skip


def run(folder: Path, network: str, engine: str, first: str) -> RunDirectory:
    """Return the run of a network and an engine, done in a process of its own unless it is.

    Args:
        folder: of all runs.
        network: its name.
        engine: its name.
        first: the engine whose run collects for all.
    """
    directory = RunDirectory(folder / f"{network}_{engine}")
    if set(ORDER) <= set(directory.records()):
        return directory
    config = folder / f"{network}_{engine}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(config, to_yaml(config_of(network, engine)))
    line = [sys.executable, str(TOOL), "--config", str(config), "--work-dir", str(directory.path), "--no-gates"]
    shared = [] if engine == first else ["--collection", str(folder / f"{network}_{first}")]
    done = subprocess.run([*line, "--resume", *shared], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise PdiffError(f"{directory.path}: the run ended with exit code {done.returncode}. The same command goes on.")
    return directory


def costs_of(directory: RunDirectory) -> Costs:
    """Return what each stage took."""
    found = {}
    for stage, record in directory.records().items():
        disk = sum(path.stat().st_size for path in directory.files(stage))
        found[stage] = record["seconds"], record["peak_memory_bytes"], disk
    return found


def straight(shorter: tuple[int, Costs], longer: tuple[int, Costs], size: int) -> Costs:
    """Return what a line through two lengths, each with its costs, gives for another length."""
    (p, before), (q, after) = shorter, longer
    share = (size - p) / (q - p)
    pairs = {stage: zip(before[stage], after[stage], strict=True) for stage in after}
    return {stage: tuple(a + share * (b - a) for a, b in pair) for stage, pair in pairs.items()}


def cells(costs: Costs, begun: bool) -> list[str]:
    """Return the costs of all stages in words, and the disk of all; a collection that was taken cost nothing."""
    found = [f"{seconds:,.0f} s, {peak / 1e9:.2f} GB" for seconds, peak, _ in (costs[stage] for stage in ORDER)]
    disk = sum(costs[stage][2] for stage in (ORDER if begun else ORDER[1:]))
    return [*(found if begun else ["as above", *found[1:]]), f"{disk / 1e9:.2f} GB"]


def told(engine: str) -> str:
    """Return an engine's name, with the steps of its codec where it takes a part of them."""
    training = ENGINES[engine].get("autoencoder_training")
    return f"{engine}, {training['steps']} steps" if training else engine


@command()
def main(argv: Sequence[str] | None = None) -> int:
    """Run what is not done, and print the table, a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the runs go; nothing is deleted")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=SIZES, help="default: all but tiny")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=[*ENGINES], help="default: both")
    parser.add_argument("--line", type=int, default=LINE, help="values that a line is drawn to (default: %(default)s)")
    arguments = parser.parse_args(argv)
    machine, start = environment(torch.device("cpu")), time.monotonic()
    print(f"{machine['processor']}, torch {machine['packages']['torch']}, {machine['threads']} threads")
    print(f"| network | P | N | preset | {' | '.join(ORDER)} | disk |", "|---" * (len(ORDER) + 5) + "|", sep="\n")
    first, *_ = arguments.engines
    found: dict[str, dict[int, Costs]] = {}
    for network in arguments.networks:
        for engine in arguments.engines:
            directory = run(arguments.folder, network, engine, first)
            rows, size = Population.open(directory.folder("collect")).tensor().shape
            costs = found.setdefault(engine, {})[size] = costs_of(directory)
            row = [network, f"{size:,}", f"{rows:,}", told(engine), *cells(costs, engine == first)]
            print(f"| {' | '.join(row)} |", flush=True)
    for engine, by_size in found.items():
        if len(by_size) > 1:
            costs = straight(*sorted(by_size.items())[-2:], arguments.line)
            row = ["a line", f"{arguments.line:,}", "", told(engine), *cells(costs, engine == first)]
            print(f"| {' | '.join(row)} |")
    print(f"{time.monotonic() - start:.0f} s in all")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
