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
from pdiff.run.measuring import evaluate_split, hook_of
from pdiff.run.refining import keep_refined
from pdiff.run.sources import candidates_of, check_sources, open_pool, open_source, source_names, tell_members
from pdiff.runtime import processes
from pdiff.runtime.storage import read_json, read_tensors, write_json, write_tensors, write_text
from pdiff.task.contract import SPLITS, check_evaluations
from pdiff.task.task import Candidates, Evaluation

if TYPE_CHECKING:
    from pdiff.run.run import Run


def evaluate(run: "Run") -> None:
    """Write `evaluation/<source>.jsonl` and `.safetensors`; sources that are there already are kept.

    Several processes share the candidates of each source.
    """
    folder, names = run.directory.folder("evaluate"), source_names(run)
    pool = replace(open_pool(run), finetune=partial(keep_finetuned, run), refine=partial(keep_refined, run))
    check_sources(run)
    if not run.conditional:
        tell_members(run, len(pool.fitted), len(pool.population))
    for source in processes.on_main(lambda: [name for name in names if not (folder / f"{name}.jsonl").exists()]):
        candidates = candidates_of(run, open_source(run, source, pool), pool)
        splits = (*SPLITS, "train") if source in run.config.evaluate.train and not run.conditional else SPLITS
        results = {split: evaluate_together(run, source, candidates, split) for split in splits}
        processes.on_main(partial(write_results, folder, source, results))
    if run.draws_path and processes.on_main(lambda: not (folder / "path.json").exists()):
        evaluate_path(run)


def write_results(folder: Path, source: str, results: Mapping[str, Sequence[Evaluation]]) -> None:
    """Write the evaluations of a source, by split; the `.jsonl` comes last and says that they are there."""
    tensors = {f"{split}.{key}": t for split, found in results.items() for key, t in stack(found).items()}
    write_tensors(folder / f"{source}.safetensors", tensors)
    lines = [line(index, split, result) for split, found in results.items() for index, result in enumerate(found)]
    write_text(folder / f"{source}.jsonl", "".join(lines))


def evaluate_path(run: "Run") -> None:
    """Write `path.json`: the metric on `test` of a few samples at some steps of their way from noise."""
    folder = run.directory.folder("generate")
    vectors = read_tensors(folder / "path.safetensors")["vectors"]
    steps = read_json(folder / "samples.json")["path_steps"]
    results = evaluate_together(run, "path", run.candidates(vectors.flatten(0, 1)), "test")
    metrics = torch.tensor([result.metric for result in results], dtype=torch.float64).unflatten(0, vectors.shape[:2])
    rows = [[value if math.isfinite(value) else None for value in row] for row in metrics.tolist()]
    path = run.directory.folder("evaluate") / "path.json"
    processes.on_main(lambda: write_json(path, {"steps": steps, "metrics": rows}))


def evaluate_together(run: "Run", source: str, candidates: Candidates, split: str) -> list[Evaluation]:
    """Return, in each process, the evaluation of every candidate, of which it has done its share.

    Args:
        run, source, candidates, split: as for `evaluate_split`.
    """
    results = evaluate_split(run, source, candidates, split, processes.own(len(candidates)))
    if processes.size() == 1:
        return results
    results = [result for part in processes.gather([detached(result) for result in results]) for result in part]
    check_evaluations(run.name, hook_of(candidates.vectors), results, len(candidates), run.task.metric, source)
    return results


def detached(result: Evaluation) -> Evaluation:
    """Return an evaluation with tensors of its own: a view would take along all that it is a view of."""
    scores = None if result.scores is None else result.scores.cpu().clone()
    return replace(result, signature=result.signature.cpu().clone(), scores=scores)


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
