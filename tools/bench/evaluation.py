"""Time the evaluation of many candidates against one by one, and against what the parts of it allow.

Works on a finished run of a plugin whose network has OpenMMLab's interface (detection, segmentation). The limit is the
time of the frozen prefix once, and of suffix and metric for each of K candidates: `prefix + K (suffix + metric)`.

    python tools/bench/evaluation.py runs/detection --candidates 100
"""

import argparse
import itertools
import time
from pathlib import Path

import torch

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.environment import environment
from pdiff.runtime.errors import command


def seconds(function, repeats: int = 3) -> float:
    """Return the fastest of several runs; the first, which warms up, does not count."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.no_grad()
def parts(run: Run, vectors: torch.Tensor, split: str) -> dict[str, float]:
    """Return the seconds of loading, prefix, suffix and metric, for one candidate on the whole split."""
    data, model = run.task.splits[split].split, run.task.model.eval()
    run.candidates(vectors[:1]).load(model, 0)
    batches = [model.data_preprocessor(batch, False) for batch in data.batches()]

    def whole() -> None:
        for batch in batches:
            model(batch["inputs"], [sample.clone() for sample in batch["data_samples"]], mode="predict")

    def evaluation() -> None:
        list(run.hook.evaluate(task=run.task, candidates=run.candidates(vectors[:1]), split=split, ensembles=()))

    loading = seconds(lambda: [model.data_preprocessor(batch, False) for batch in data.batches()])
    prefix = seconds(lambda: [model.extract_feat(batch["inputs"]) for batch in batches])
    forward = seconds(whole)
    outputs = [model(batch["inputs"], batch["data_samples"], mode="predict") for batch in batches]
    again = itertools.cycle(outputs)
    model.forward = lambda inputs, data_samples, mode: next(again)  # what is left of an evaluation: data and metric
    metric = seconds(evaluation) - loading
    del model.forward
    return {"loading": loading, "prefix": prefix, "suffix": forward - prefix, "metric": metric}


@command()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    directory = RunDirectory(arguments.run)
    run = Run(resolve(directory.config()), directory)
    vectors = run.population.tensor()[: arguments.candidates]
    k = len(vectors)
    part = parts(run, vectors, arguments.split)

    start = time.perf_counter()
    given = {"task": run.task, "split": arguments.split, "ensembles": ()}
    together = list(run.hook.evaluate(**given, candidates=run.candidates(vectors)))
    replayed = time.perf_counter() - start
    start = time.perf_counter()
    alone = [next(run.hook.evaluate(**given, candidates=run.candidates(row[None]))) for row in vectors]
    one_by_one = time.perf_counter() - start

    limit = part["loading"] + part["prefix"] + k * (part["suffix"] + part["metric"])
    equal = sum(
        a.metric == b.metric and a.details == b.details and torch.equal(a.signature, b.signature)
        for a, b in zip(together, alone, strict=True)
    )
    print(environment(run.device))
    for name, value in part.items():
        print(f"| {name}, one candidate | {value * 1e3:.0f} ms |")
    print(f"| {k} candidates one by one | {one_by_one:.1f} s |")
    print(f"| {k} candidates with replay | {replayed:.1f} s |")
    print(f"| ratio | {one_by_one / replayed:.2f} |")
    print(f"| ratio, loading left out of one by one | {(one_by_one - (k - 1) * part['loading']) / replayed:.2f} |")
    print(f"| limit `loading + prefix + K (suffix + metric)` | {limit:.1f} s |")
    print(f"| share of the limit | {limit / replayed:.1%} |")
    print(f"| identical results | {equal} of {k} |")


if __name__ == "__main__":
    raise SystemExit(main())
