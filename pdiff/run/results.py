"""What an evaluation left on disk, source by source."""

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pdiff.analysis.dead import dead
from pdiff.analysis.source_results import SourceResults
from pdiff.run.derived import OF_ANOTHER, root
from pdiff.run.sources import Pool, open_source, source_names, source_table
from pdiff.runtime.storage import read_tensors, read_text
from pdiff.task.contract import check_alike

if TYPE_CHECKING:
    from pdiff.run.run import Run

LARGEST = 1e60  # a variance is squared once more


def read_lines(run: "Run", source: str) -> list[dict[str, Any]]:
    """Return what was written of each candidate on each split."""
    path = run.directory.folder("evaluate") / f"{source}.jsonl"
    return [json.loads(line) for line in read_text(path).splitlines()]


def read_metrics(run: "Run", source: str) -> dict[str, NDArray]:
    """Return the primary metric of each candidate `(M,)`, by split; infinitely bad where there is none to compute with.

    That is so, too, of one beyond `LARGEST`: no variance could be told.
    """
    metrics: dict[str, list[float]] = {}
    for record in read_lines(run, source):
        value, lost = record["metric"], run.built.metric.worst
        metrics.setdefault(record["split"], []).append(lost if value is None or abs(value) > LARGEST else value)
    return {split: np.array(values) for split, values in metrics.items()}


def read_sources(run: "Run", pool: Pool, reference: str = "trained") -> dict[str, SourceResults]:
    """Return the results of every source of the config, in its order; the metrics of `reference` say who is dead."""
    trained = read_metrics(run, reference)
    sources = {name: read_source(run, name, pool, trained) for name in source_names(run)}
    check_alike(run.name, "signature", {name: source.signature.shape[1:] for name, source in sources.items()})
    scores = {name: source.scores.shape[1:] for name, source in sources.items() if source.scores is not None}
    check_alike(run.name, "scores", scores)
    return sources


def read_source(run: "Run", name: str, pool: Pool, trained: Mapping[str, NDArray]) -> SourceResults:
    """Return the results of one source; the metrics of the trained say who is dead."""
    begun = time.perf_counter()
    found = open_source(run, name, pool)
    seconds = found.seconds + time.perf_counter() - begun
    kind, metrics, lines = source_table(run)[name]["type"], read_metrics(run, name), read_lines(run, name)
    begins = root(source_table(run), name) if kind in OF_ANOTHER else None
    fits, test = np.array(run.fits)[: len(found.vectors)], [record for record in lines if record["split"] == "test"]
    return SourceResults(
        name,
        found.vectors,
        read_tensors(run.directory.folder("evaluate") / f"{name}.safetensors"),
        metrics,
        dead(metrics, trained, run.built.metric),
        [record["details"] for record in test],
        kind,
        begins,
        None if found.parents is None else found.parents.numpy(),
        fits if (kind == "generated" or (kind, begins) == ("refined", "generated")) and max(run.fits) > 0 else None,
        None if found.wanted is None else found.wanted.numpy(),
        [record.get("condition") for record in test],
        None if pool.wanted is None else pool.wanted.conditions.take(found.wanted),
        seconds,
    )
