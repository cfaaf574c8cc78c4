"""What an evaluation left on disk, source by source."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pdiff.analysis.source_results import SourceResults
from pdiff.run.sources import open_pool, source_names, source_vectors
from pdiff.runtime.storage import read_tensors, read_text

if TYPE_CHECKING:
    from pdiff.run.run import Run


def read_lines(run: "Run", source: str) -> list[dict[str, Any]]:
    """Return what was written of each candidate on each split."""
    path = run.directory.folder("evaluate") / f"{source}.jsonl"
    return [json.loads(line) for line in read_text(path).splitlines()]


def read_metrics(run: "Run", source: str) -> dict[str, NDArray]:
    """Return the primary metric of each candidate `(M,)`, by split; that of a dead one is infinitely bad."""
    metrics: dict[str, list[float]] = {}
    for record in read_lines(run, source):
        value = run.built.metric.worst if record["metric"] is None else record["metric"]
        metrics.setdefault(record["split"], []).append(value)
    return {split: np.array(values) for split, values in metrics.items()}


def read_sources(run: "Run") -> dict[str, SourceResults]:
    """Return the results of every source of the config, in its order."""
    folder, pool = run.directory.folder("evaluate"), open_pool(run)
    return {
        name: SourceResults(
            name,
            source_vectors(run, name, pool),
            read_tensors(folder / f"{name}.safetensors"),
            read_metrics(run, name),
            [record["details"] for record in read_lines(run, name) if record["split"] == "test"],
        )
        for name in source_names(run)
    }
