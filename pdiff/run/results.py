"""What an evaluation left on disk, source by source."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pdiff.analysis.dead import dead
from pdiff.analysis.source_results import SourceResults
from pdiff.run.sources import Pool, open_pool, source_children, source_names
from pdiff.runtime.storage import read_tensors, read_text

if TYPE_CHECKING:
    from pdiff.run.run import Run


def read_lines(run: "Run", source: str) -> list[dict[str, Any]]:
    """Return what was written of each candidate on each split."""
    path = run.directory.folder("evaluate") / f"{source}.jsonl"
    return [json.loads(line) for line in read_text(path).splitlines()]


def read_metrics(run: "Run", source: str) -> dict[str, NDArray]:
    """Return the primary metric of each candidate `(M,)`, by split; infinitely bad where there is none."""
    metrics: dict[str, list[float]] = {}
    for record in read_lines(run, source):
        value = run.built.metric.worst if record["metric"] is None else record["metric"]
        metrics.setdefault(record["split"], []).append(value)
    return {split: np.array(values) for split, values in metrics.items()}


def read_sources(run: "Run") -> dict[str, SourceResults]:
    """Return the results of every source of the config, in its order."""
    pool, trained = open_pool(run), read_metrics(run, "trained")
    return {name: read_source(run, name, pool, trained) for name in source_names(run)}


def read_source(run: "Run", name: str, pool: Pool, trained: Mapping[str, NDArray]) -> SourceResults:
    """Return the results of one source; the metrics of the trained say who is dead."""
    vectors, parents = source_children(run, name, pool)
    kind, metrics = run.config.evaluate.sources[name]["type"], read_metrics(run, name)
    fits = np.array(run.fits)
    return SourceResults(
        name,
        vectors,
        read_tensors(run.directory.folder("evaluate") / f"{name}.safetensors"),
        metrics,
        dead(metrics, trained, run.built.metric),
        [record["details"] for record in read_lines(run, name) if record["split"] == "test"],
        kind,
        None if parents is None else parents.numpy(),
        fits if kind == "generated" and fits.max() > 0 else None,
    )
