"""What the candidates of one source reached."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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


def drop_dead(source: SourceResults) -> NDArray:
    """Return the scores `(M, S)` of the living candidates, or their metrics `(M,)` where there are no scores."""
    if source.scores is None:
        return source.test[source.alive]
    return source.scores[torch.from_numpy(source.alive)].numpy()
