"""Stage 5: the sources side by side: how good, and how new."""

import json
import math
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pdiff.measure import measured
from pdiff.novelty import nearest_distance, nearest_similarity, spread
from pdiff.report.figures import draw_figures
from pdiff.report.table import markdown_table
from pdiff.run import Run
from pdiff.rundir import STAGES
from pdiff.sources import source_names, source_vectors
from pdiff.statistics import best_index, describe, mean_interval, ranked
from pdiff.storage import read_json, read_tensors, read_text, write_json, write_text

REFERENCE = "trained"
SUBJECT = "generated"
PICKS = 8  # candidates of each source that a plugin may draw


@dataclass(frozen=True)
class SourceResults:
    """What one source's evaluation left on disk.

    Attributes:
        name: of the source.
        vectors: `(M, P)`.
        tensors: signatures and scores.
        metrics: the primary metric `(M,)`, by split.
        details: further figures of each candidate on `test`.
    """

    name: str
    vectors: Tensor
    tensors: dict[str, Tensor]
    metrics: dict[str, np.ndarray]
    details: list[dict[str, float]]


def compare(run: Run) -> None:
    """Write `report/`: summary.json, table.md and the figures."""
    folder = run.directory.folder("compare")
    folder.mkdir(parents=True, exist_ok=True)
    with measured() as cost:
        sources = read_sources(run)
        reference = sources[REFERENCE]
        similarities = {name: similarity(run, source, reference) for name, source in sources.items()}
        rows = {name: row(run, source, reference, similarities[name]) for name, source in sources.items()}
        tests = {name: source.metrics["test"] for name, source in sources.items()}
        history = read_json(run.directory.folder("fit") / "history.json")
        draw_figures(folder, run.task.metric, tests, similarities, history)
        pictures = draw(run, sources)
    costs = {**run.directory.records(), "compare": cost}
    whole = summary(run, rows, pictures, costs)
    write_text(folder / "table.md", markdown_table(whole))
    write_json(folder / "summary.json", whole)


def read_sources(run: Run) -> dict[str, SourceResults]:
    """Return the results of every source of the config."""
    generated = read_tensors(run.directory.folder("generate") / "vectors.safetensors")["vectors"]
    folder = run.directory.folder("evaluate")
    return {
        name: SourceResults(
            name,
            source_vectors(run, name, generated),
            read_tensors(folder / f"{name}.safetensors"),
            read_metrics(folder / f"{name}.jsonl"),
            [record["details"] for record in read_lines(folder / f"{name}.jsonl") if record["split"] == "test"],
        )
        for name in source_names(run)
    }


def draw(run: Run, sources: dict[str, SourceResults]) -> list[dict[str, str]]:
    """Let the plugin draw, if it does, and return what its pictures are."""
    if not run.hook.draw.get_hookimpls():
        return []
    higher = run.task.metric.higher_is_better
    picks = {
        name: run.candidates(source.vectors[ranked(source.metrics["select"], higher, PICKS)])
        for name, source in sources.items()
    }
    pictures = run.hook.draw(task=run.task, picks=picks, folder=run.directory.folder("compare"))
    return [asdict(picture) for picture in pictures]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return what was written of each candidate on each split."""
    return [json.loads(line) for line in read_text(path).splitlines()]


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Return the primary metric of each candidate `(M,)`, by split."""
    metrics: dict[str, list[float]] = {}
    for record in read_lines(path):
        metrics.setdefault(record["split"], []).append(record["metric"])
    return {split: np.array(values) for split, values in metrics.items()}


def similarity(run: Run, source: SourceResults, reference: SourceResults) -> np.ndarray:
    """Return each candidate's largest similarity `(M,)` to a trained one on `test`; a trained one leaves itself out."""
    table = run.task.similarity(source.tensors["test.signature"], reference.tensors["test.signature"])
    return nearest_similarity(table, source.name == REFERENCE).numpy()


def row(run: Run, source: SourceResults, reference: SourceResults, similarities: np.ndarray) -> dict[str, Any]:
    """Return one source's figures; of the metric, all on `test`."""
    higher, test = run.task.metric.higher_is_better, source.metrics["test"]
    best = best_index(source.metrics["select"], higher)
    distance = nearest_distance(source.vectors, reference.vectors, source.name == REFERENCE)
    scores = source.tensors.get("test.scores")
    interval = None
    if scores is not None:
        interval = mean_interval(scores[best].numpy(), run.config.compare.resamples, run.config.seed)
    figures = {
        "best": test[best],
        **describe(test, higher),
        "similarity": similarities.mean(),
        "distance": distance.mean().item(),
        "spread": spread(source.vectors, reference.vectors),
    }
    row = {"n": len(test), "best_index": best, "best_ci": interval} | {k: finite(v) for k, v in figures.items()}
    return row | {"details": aggregate(source.details, best)}


def aggregate(details: list[dict[str, float]], best: int) -> dict[str, dict[str, float]]:
    """Return the mean of each further figure over the candidates that have it, and that of the best candidate."""
    keys = dict.fromkeys(key for figures in details for key in figures)
    means = {key: float(np.mean([figures[key] for figures in details if key in figures])) for key in keys}
    return {key: {"best": details[best].get(key), "mean": mean} for key, mean in means.items()}


def finite(value: float) -> float | None:
    """Return a plain number that JSON can hold; None for one that is not finite."""
    return float(value) if math.isfinite(value) else None


def summary(
    run: Run, rows: dict[str, dict[str, Any]], pictures: list[dict[str, str]], costs: dict[str, Any]
) -> dict[str, Any]:
    """Return what other programs read."""
    metric = run.task.metric
    return {
        "plugin": run.name,
        "metric": {"name": metric.name, "higher_is_better": metric.higher_is_better},
        "task": dict(run.task.facts),
        "verdict": verdict(rows, metric.name, metric.higher_is_better),
        "sources": rows,
        "pictures": pictures,
        "seconds": {stage: costs[stage]["seconds"] for stage in STAGES},
        "peak_memory_bytes": {stage: costs[stage]["peak_memory_bytes"] for stage in STAGES},
        "resumed": [stage for stage in STAGES if costs[stage].get("resumed")],  # of these, the last attempt's cost
        "environment": read_json(run.directory.path / "environment.json"),
        "command": shlex.join(sys.argv),
    }


def verdict(rows: dict[str, dict[str, Any]], metric: str, higher_is_better: bool) -> str:
    """Return one line: generated against trained by mean, and every baseline whose mean is better."""
    if not {REFERENCE, SUBJECT} <= rows.keys():
        return "not compared: the sources lack trained or generated"
    sign = 1 if higher_is_better else -1
    means = {name: row["mean"] for name, row in rows.items()}
    gain = sign * (means[SUBJECT] - means[REFERENCE])
    baselines = [name for name in means if name not in (REFERENCE, SUBJECT)]
    better = [name for name in baselines if sign * (means[name] - means[SUBJECT]) > 0]
    relation = "better than" if gain > 0 else "worse than" if gain < 0 else "equal to"
    line = f"mean {metric} of generated {means[SUBJECT]:.4f} is {relation} that of trained {means[REFERENCE]:.4f}; "
    return line + (f"better still on average: {', '.join(better)}" if better else "no baseline is better on average")
