"""Time networks for conditions: many at once against one by one, in training and in evaluation.

With a finished run, also one network for a condition that is new to it. The fastest of several repeats counts, and a
ratio is of two times of one call. Bars of progress take time, most where networks follow one another: send them away.
Evaluation is timed for classification alone, which has two ways.

    python tools/bench/conditions.py --run runs/subsets_digits
    python tools/bench/conditions.py --config configs/detection/subsets_digits.yaml --networks 30 --steps 5 \\
        --cfg-options collect.train.enabled=false
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdiff.run.conditional_sources import drawn
from pdiff.run.config import load_config, read_options
from pdiff.run.directory import RunDirectory
from pdiff.run.export import chosen_source, open_run
from pdiff.run.run import Run
from pdiff.run.sources import open_pool, open_source, source_table
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import PdiffError, command
from pdiff.runtime.seeding import generator
from pdiff.task.task import Candidates
from pdiff.weights.conditions import Conditions

CONFIG = Path(__file__).parents[2] / "configs" / "classification" / "subsets_digits.yaml"
TOLERANCE = 1e-3  # of how far apart conditions lie: what rounding becomes in a few steps


def seconds(function: Callable[..., object], *arguments: object, repeats: int) -> float:
    """Return the fastest of several calls; the first, which warms up, does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def networks(run: Run, config: str, count: int | None, settings: Mapping[str, Any]) -> Candidates:
    """Return the first networks, or all, that a config collects with other settings, by dotted keys."""
    cfg = load_config(None, config, {}, settings)
    with tempfile.TemporaryDirectory() as folder:
        given = {"task": run.built, "names": run.selected, "cfg": cfg, "state": None, "folder": Path(folder)}
        found = run.hook.collect(**given, branch=None)
        snapshots = list(islice((snapshot for snapshot in found if snapshot.params), count))
    vectors = torch.stack([run.layout.flatten(snapshot.params) for snapshot in snapshots])
    conditions = Conditions.of([snapshot.condition for snapshot in snapshots])
    return Candidates(vectors, run.layout, run.hook.load_params, conditions)


@torch.no_grad()
def answers(run: Run, way: Callable, candidates: Candidates) -> Tensor:
    """Return the answers `(M, S)` of candidates on the split test, computed in one of the ways of the evaluation."""
    data, model = run.built.splits["test"], run.built.model.eval()
    found = torch.empty(len(candidates), len(data), dtype=torch.long)
    for members, rows, logits in way(model, [candidates], data.data):
        found[members, rows] = logits.argmax(2).cpu()
    return found


def new_condition(path: Path, repeats: int) -> Iterator[tuple[str, float, float]]:
    """Yield generated and best source of a run: the seconds for a network, engine loaded, and of `pdiff export`."""
    run = open_run(path)
    if not run.conditional:
        raise PdiffError(f"--run: the checkpoints of {path} have no conditions. Give a run whose checkpoints have.")
    pool = open_pool(run)
    conditions = pool.wanted.conditions.take(np.flatnonzero(pool.wanted.unseen)[:1])
    pool = replace(pool, wanted=pool.wanted.instead(conditions))
    asked = [f"{name}={value}" for name, value in conditions[0].items()]

    def make(name: str) -> None:
        own = source_table(run)[name]["type"] == "generated"
        vectors = drawn(pool, conditions, generator(0)) if own else open_source(run, name, pool).vectors
        run.candidates(vectors, conditions).load(run.task.model, 0)

    def export(name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pdiff", "export", path, "-o", f"{folder}/network.safetensors"]
            subprocess.run([*command, "--source", name, "--condition", *asked], check=True, stdout=subprocess.DEVNULL)

    for name in dict.fromkeys(["generated", chosen_source(run, "best")]):
        yield name, seconds(make, name, repeats=repeats), seconds(export, name, repeats=repeats)


def at_once(run: Run, config: str, count: int, steps: int, repeats: int, options: Mapping[str, Any]) -> float:
    """Print the table of many networks; return how far apart both trainings lie, over how far conditions do."""

    def train(together: int) -> Candidates:
        settings = {**options, "collect.together": together, "collect.networks.steps": steps}
        return networks(run, config, count, settings)

    ones, others = train(1), train(count)
    rows = {f"train, {steps} steps": (train, (1, count))}
    if run.name == "classification":
        from pdiff_plugins.classification.passes import replayed_logits, stacked_logits

        ways = replayed_logits, stacked_logits
        rows["evaluate"] = (lambda way: answers(run, way, ones), ways)
    print("| a network | one by one, s | at once, s | ratio |", "|---" * 4 + "|", sep="\n")
    for name, (function, each) in rows.items():
        alone, together = (seconds(function, one, repeats=repeats) / len(ones) for one in each)
        print(f"| {name} | {alone:.2g} | {together:.2g} | {alone / together:.1f} |")
    apart = (ones.vectors - others.vectors).abs().max() / (ones.vectors - ones.vectors.mean(0)).abs().max()
    print(f"\n{len(ones)} networks: both trainings lie {apart:.1g} times as far apart as conditions do")
    if run.name == "classification":
        first, second = (answers(run, way, ones) for way in ways)
        print(f"both evaluations differ in {(first != second).sum()} of {first.numel()} answers")
    return apart.item()


@command()
def main() -> int:
    """Print the tables; exit code 1 if the networks that are trained at once are not those trained one by one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(CONFIG), help="of sets of classes (default: subsets_digits)")
    parser.add_argument("--networks", type=int, default=64, help="so many, from 2 on (default: 64)")
    parser.add_argument("--steps", type=int, default=20, help="of their training (default: 20)")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement (default: 3)")
    parser.add_argument("--all", action="store_true", help="also train all networks, once, as the config says")
    parser.add_argument("--run", type=Path, help="directory of a finished run with conditions")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="settings over the config")
    arguments = parser.parse_args()
    options = read_options(arguments.cfg_options, {})
    run = Run(load_config(None, arguments.config, {}, options), RunDirectory(Path("runs")))  # nothing is written there
    print(environment(run.device))
    if arguments.run:  # first, so that a mistake is told at once
        print("| for a new condition | engine loaded, s | pdiff export, s | ratio |", "|---" * 4 + "|", sep="\n")
        for name, loaded, process in new_condition(arguments.run, arguments.repeats):
            print(f"| {name} | {loaded:.2g} | {process:.2g} | {process / loaded:.0f} |")
        print()
    apart = at_once(run, arguments.config, arguments.networks, arguments.steps, arguments.repeats, options)
    if arguments.all:
        start = time.perf_counter()
        every = networks(run, arguments.config, None, options)
        print(f"all {len(every)} networks: {time.perf_counter() - start:.1f} s")
    return 0 if apart <= TOLERANCE else 1


if __name__ == "__main__":
    raise SystemExit(main())
