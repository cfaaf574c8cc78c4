"""Time the evaluation of many candidates of an image generator against one by one, on a finished run.

Seconds are those of the processor, so that other work on the machine counts less. With S steps of the sampler and K
candidates, replay can save the first step of all but one: the limit of the ratio is `K S / (K (S - 1) + 1)`, less what
the selected layers of that step cost. The denoising loss can save all but the selected layers.

    python tools/bench/generation.py runs/generation --candidates 20
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pdiff_plugins.generation.evaluation import images_of, losses

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import command
from pdiff.runtime.storage import read_tensors
from pdiff.task.task import Evaluation


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its seconds of processor time."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def equal(a: Any, b: Any) -> bool:
    """Say whether two results of a candidate are the same, bit by bit."""
    if isinstance(a, Evaluation):
        return (a.metric, a.details) == (b.metric, b.details) and torch.equal(a.signature, b.signature)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@command()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    directory = RunDirectory(arguments.run)
    run = Run(resolve(directory.config()), directory)
    vectors = read_tensors(directory.folder("generate") / "vectors.safetensors")["vectors"][: arguments.candidates]
    bench, model, k = run.task.splits[arguments.split], run.task.model, len(vectors)

    def images(rows: torch.Tensor) -> list[torch.Tensor]:
        seen = [[] for _ in rows]
        for index, batch in images_of(model, run.candidates(rows), bench):
            seen[index].append(batch)
        return [torch.cat(batches) for batches in seen]

    def evaluation(rows: torch.Tensor) -> list[Evaluation]:
        return list(run.hook.evaluate(task=run.task, candidates=run.candidates(rows), split=arguments.split))

    def loss(rows: torch.Tensor) -> list[float]:
        return losses(model, run.candidates(rows), bench.held_out)

    print(environment(run.device))
    print("| | one by one | with replay | ratio | limit | identical |")
    print("|---|---|---|---|---|---|")
    steps = bench.sampler.steps
    limits = {"images": f"{k * steps / (k * (steps - 1) + 1):.2f}", "denoising loss": "", "evaluation": ""}
    for (name, limit), measure in zip(limits.items(), (images, loss, evaluation), strict=True):
        measure(vectors[:1])  # warms up
        together, replayed = timed(lambda measure=measure: measure(vectors))
        alone, one_by_one = timed(lambda measure=measure: [measure(row[None])[0] for row in vectors])
        same = sum(equal(a, b) for a, b in zip(together, alone, strict=True))
        ratio = one_by_one / replayed
        print(f"| {name} | {one_by_one:.2f} s | {replayed:.2f} s | {ratio:.2f} | {limit} | {same} of {k} |")


if __name__ == "__main__":
    raise SystemExit(main())
