"""What an evaluation left on disk, source by source."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.run import Run
from pdiff.sources import open_pool, source_names, source_vectors
from pdiff.storage import read_tensors, read_text
from pdiff.task import Metric
from pdiff.weights.vectors import Vectors


@dataclass(frozen=True)
class SourceResults:
    """The candidates of one source.

    Attributes:
        name: of the source.
        vectors: `(M, P)`; of ensembles `(M, K, P)`.
        tensors: `<split>.signature` `(M, ...)` and, where the metric is a mean, `<split>.scores` `(M, S)`.
        metrics: the primary metric `(M,)`, by split; that of a dead candidate is infinitely bad.
        details: further figures of each candidate on `test`.
    """

    name: str
    vectors: Vectors
    tensors: dict[str, Tensor]
    metrics: dict[str, NDArray]
    details: list[dict[str, float]]

    @property
    def test(self) -> NDArray:
        """The metric on `test` `(M,)`."""
        return self.metrics["test"]

    @cached_property
    def alive(self) -> NDArray:
        """Which candidates have a metric on `test` `(M,)`."""
        return np.isfinite(self.test)

    @property
    def signature(self) -> Tensor:
        """The signatures on `test` `(M, ...)`."""
        return self.tensors["test.signature"]

    @property
    def scores(self) -> Tensor | None:
        """The scores on `test` `(M, S)`; None where the metric is no mean."""
        return self.tensors.get("test.scores")

    @property
    def has_place(self) -> bool:
        """Whether a candidate is one vector; an ensemble is several, and lies nowhere."""
        return self.vectors.ndim == 2


def read_lines(run: Run, source: str) -> list[dict[str, Any]]:
    """Return what was written of each candidate on each split."""
    path = run.directory.folder("evaluate") / f"{source}.jsonl"
    return [json.loads(line) for line in read_text(path).splitlines()]


def read_metrics(run: Run, source: str) -> dict[str, NDArray]:
    """Return the primary metric of each candidate `(M,)`, by split; that of a dead one is infinitely bad."""
    metrics: dict[str, list[float]] = {}
    for record in read_lines(run, source):
        value = worst(run.task.metric) if record["metric"] is None else record["metric"]
        metrics.setdefault(record["split"], []).append(value)
    return {split: np.array(values) for split, values in metrics.items()}


def worst(metric: Metric) -> float:
    """Return the infinity that is worse than any value of a metric."""
    return -math.inf if metric.higher_is_better else math.inf


def read_sources(run: Run) -> dict[str, SourceResults]:
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


def drop_dead(source: SourceResults) -> NDArray:
    """Return the scores `(M, S)` of the living candidates, or their metrics `(M,)` where there are no scores."""
    if source.scores is None:
        return source.test[source.alive]
    return source.scores[torch.from_numpy(source.alive)].numpy()
