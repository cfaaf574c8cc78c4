"""Stage 4: every candidate of every source, measured by the plugin on the splits `select` and `test`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pdiff.run.finetuning import keep_finetuned
from pdiff.run.measuring import evaluate_sources, hook_of
from pdiff.run.refining import keep_refined
from pdiff.run.sources import candidates_of, check_sources, open_pool, open_source, source_names, tell_members
from pdiff.runtime import processes
from pdiff.runtime.storage import read_json, read_tensors, write_json, write_tensors, write_text
from pdiff.task.contract import SPLITS, check_evaluations
from pdiff.task.task import Candidates, Evaluation

if TYPE_CHECKING:
    from pdiff.run.run import Run


PATH = "generate/path"  # the way of a few samples among the sources, none of which has such a name


def evaluate(run: "Run") -> None:
    """Write `evaluation/<source>.jsonl` and `.safetensors`; sources that are there already are kept.

    The candidates of many sources (`evaluate.together`) are measured in one pass over a split. Several processes share
    them.
    """
    folder, names = run.directory.folder("evaluate"), source_names(run)
    pool = replace(open_pool(run), finetune=partial(keep_finetuned, run), refine=partial(keep_refined, run))
    check_sources(run)
    if not run.conditional:
        tell_members(run, len(pool.fitted), len(pool.population))
    left = processes.on_main(lambda: [name for name in names if not (folder / f"{name}.jsonl").exists()])
    if run.draws_path and processes.on_main(lambda: not (folder / "path.json").exists()):
        left.append(PATH)
    asked: dict[str, Candidates] = {}
    for name in left:
        if name == PATH:
            asked[name] = run.candidates(vectors_of_path(run))
        else:
            asked[name] = candidates_of(run, open_source(run, name, pool), pool)
        if name == left[-1] or sum(map(count_networks, asked.values())) >= run.config.evaluate.together:
            evaluate_together(run, asked)
            asked = {}


def count_networks(candidates: Candidates) -> int:
    """Return how many networks candidates are, the members of ensembles counted."""
    return candidates.vectors.shape[:-1].numel()


def evaluate_together(run: "Run", asked: Mapping[str, Candidates]) -> None:
    """Measure the candidates of some sources on every split, and write what they reach."""
    folder, found = run.directory.folder("evaluate"), {name: {} for name in asked}
    for split in (*SPLITS, "train"):
        own = {name: candidates for name, candidates in asked.items() if split in splits_of(run, name)}
        for name, results in evaluations(run, own, split).items():
            found[name][split] = results
    for name, results in found.items():
        write = partial(write_path, run) if name == PATH else partial(write_results, folder, name)
        processes.on_main(partial(write, results))


def splits_of(run: "Run", name: str) -> Sequence[str]:
    """Return the splits on which a source is measured."""
    if name == PATH:
        return ("test",)
    return (*SPLITS, "train") if name in run.config.evaluate.train and not run.conditional else SPLITS


def evaluations(run: "Run", asked: Mapping[str, Candidates], split: str) -> dict[str, list[Evaluation]]:
    """Return, in each process, the evaluations of all candidates by source, of which it has done its share."""
    share = processes.own(sum(map(len, asked.values())))
    results = evaluate_sources(run, asked, split, share)
    if processes.size() == 1:
        return results
    own = {name: [detached(result) for result in found] for name, found in results.items()}
    every = processes.gather(own)
    results = {name: [result for part in every for result in part[name]] for name in asked}
    for name, found in results.items():
        hook, count = hook_of(asked[name].vectors), len(asked[name])
        check_evaluations(run.name, hook, found, count, run.task.metric, name)
    return results


def vectors_of_path(run: "Run") -> Tensor:
    """Return a few samples at each of some steps of their way from noise, step by step `(M, P)`."""
    return read_tensors(run.directory.folder("generate") / "path.safetensors")["vectors"].flatten(0, 1)


def write_path(run: "Run", results: Mapping[str, Sequence[Evaluation]]) -> None:
    """Write `path.json`: the metric on `test` of a few samples at some steps of their way from noise."""
    steps = read_json(run.directory.folder("generate") / "samples.json")["path_steps"]
    metrics = [result.metric if math.isfinite(result.metric) else None for result in results["test"]]
    each = len(metrics) // len(steps)
    rows = [metrics[start : start + each] for start in range(0, len(metrics), each)]
    write_json(run.directory.folder("evaluate") / "path.json", {"steps": steps, "metrics": rows})


def write_results(folder: Path, source: str, results: Mapping[str, Sequence[Evaluation]]) -> None:
    """Write the evaluations of a source, by split; the `.jsonl` comes last and says that they are there."""
    tensors = {f"{split}.{key}": t for split, found in results.items() for key, t in stack(found).items()}
    write_tensors(folder / f"{source}.safetensors", tensors)
    lines = [line(index, split, result) for split, found in results.items() for index, result in enumerate(found)]
    write_text(folder / f"{source}.jsonl", "".join(lines))


def detached(result: Evaluation) -> Evaluation:
    """Return an evaluation with tensors of its own: a view would take along all that it is a view of."""
    scores = None if result.scores is None else result.scores.clone()
    return replace(result, signature=result.signature.clone(), scores=scores)


def stack(results: list[Evaluation]) -> dict[str, Tensor]:
    """Return signatures `(M, ...)` and, where there are any, scores `(M, S)`."""
    tensors = {"signature": torch.stack([result.signature for result in results])}
    if results[0].scores is not None:
        tensors["scores"] = torch.stack([result.scores for result in results])
    return tensors


def line(index: int, split: str, result: Evaluation) -> str:
    """Return one candidate's line; the metric of a dead one is null, for JSON has no infinity."""
    metric = result.metric if math.isfinite(result.metric) else None
    record = {"index": index, "split": split, "metric": metric, "details": dict(result.details)}
    if result.condition is not None:
        record["condition"] = dict(result.condition)
    return json.dumps(record, allow_nan=False) + "\n"
