"""Stage 4: every candidate of every source, measured by the plugin on the splits `select` and `test`."""

import json
import math

import torch
from torch import Tensor

from pdiff.errors import PdiffError
from pdiff.run import Run
from pdiff.sources import source_names, source_vectors
from pdiff.storage import read_tensors, write_tensors, write_text
from pdiff.task import Evaluation

SPLITS = ("select", "test")


def evaluate(run: Run) -> None:
    """Write `evaluation/<source>.jsonl` and `.safetensors`; sources that are there already are kept."""
    folder = run.directory.folder("evaluate")
    generated = read_tensors(run.directory.folder("generate") / "vectors.safetensors")["vectors"]
    for source in source_names(run):
        if (folder / f"{source}.jsonl").exists():
            continue
        vectors = source_vectors(run, source, generated)
        results = {split: evaluate_split(run, source, vectors, split) for split in SPLITS}
        tensors = {f"{split}.{key}": t for split, found in results.items() for key, t in stack(found).items()}
        write_tensors(folder / f"{source}.safetensors", tensors)
        lines = [line(index, split, result) for split, found in results.items() for index, result in enumerate(found)]
        write_text(folder / f"{source}.jsonl", "".join(lines))


def evaluate_split(run: Run, source: str, vectors: Tensor, split: str) -> list[Evaluation]:
    """Return the plugin's evaluation of every candidate, each of them looked at."""
    results = list(run.hook.evaluate(task=run.task, candidates=run.candidates(vectors), split=split))
    if len(results) != len(vectors):
        raise PdiffError(f"plugin {run.name}: evaluate yielded {len(results)} results for {len(vectors)} candidates.")
    shapes = {result.signature.shape for result in results if isinstance(result, Evaluation)}
    if len(shapes) > 1:
        raise PdiffError(f"plugin {run.name}: evaluate yielded signatures of {len(shapes)} shapes, expected one.")
    for index, result in enumerate(results):
        if not isinstance(result, Evaluation) or not math.isfinite(result.metric):
            raise PdiffError(f"plugin {run.name}: evaluate yielded {result!r} for candidate {index} of {source}.")
    return results


def stack(results: list[Evaluation]) -> dict[str, Tensor]:
    """Return signatures `(M, ...)` and, where there are any, scores `(M, S)`."""
    tensors = {"signature": torch.stack([result.signature for result in results])}
    if results[0].scores is not None:
        tensors["scores"] = torch.stack([result.scores for result in results])
    return tensors


def line(index: int, split: str, result: Evaluation) -> str:
    """Return one candidate's line."""
    record = {"index": index, "split": split, "metric": result.metric, "details": dict(result.details)}
    return json.dumps(record) + "\n"
