"""What the candidates of one source reached."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pdiff.weights.conditions import Conditions
from pdiff.weights.vectors import Vectors

OF_GENERATED = ("generated_soup", "generated_ensemble")  # types of sources of several generated each


@dataclass(frozen=True)
class SourceResults:
    """The candidates of one source.

    Attributes:
        name: of the source.
        vectors: `(M, P)`; of ensembles `(M, K, P)`.
        tensors: `<split>.signature` `(M, ...)` and, where there are any, `<split>.scores` `(M, S)`.
        metrics: the primary metric `(M,)`, by split; infinitely bad where the network gave nothing finite.
        dead: which candidates are dead `(M,)`.
        details: further figures of each candidate on `test`.
        type: of the source.
        begins: type of the source whose candidates it begins with; None where it is made of no other source's.
        parents: the row of the population that each candidate is or is made of `(M,)`; None where there is not one.
        fits: which fit drew each candidate `(M,)`; None where no fit, or a single one, did.
        wanted: which wanted condition each candidate is for `(M,)`; None without conditions.
        measured: the condition of each candidate as it was measured on `test`; None where it was not.
        conditions: of each candidate `(M, C)`; None without conditions.
        seconds: that it took to open the source (a regression is fitted then, vectors are made later), and before,
            where they are kept.
    """

    name: str
    vectors: Vectors
    tensors: dict[str, Tensor]
    metrics: dict[str, NDArray]
    dead: NDArray
    details: list[dict[str, float]] = field(default_factory=list)
    type: str = ""
    begins: str | None = None
    parents: NDArray | None = None
    fits: NDArray | None = None
    wanted: NDArray | None = None
    measured: list[dict[str, float] | None] = field(default_factory=list)
    conditions: Conditions | None = None
    seconds: float = 0.0

    @property
    def test(self) -> NDArray:
        """The metric on `test` `(M,)`."""
        return self.metrics["test"]

    @property
    def signature(self) -> Tensor:
        """The signatures on `test` `(M, ...)`."""
        return self.tensors["test.signature"]

    @property
    def scores(self) -> Tensor | None:
        """The scores on `test` `(M, S)`; None where the metric has none."""
        return self.tensors.get("test.scores")

    @property
    def root(self) -> str:
        """The type of the source that it begins with: its own, where it is made of no other source's candidates."""
        return self.begins or self.type

    @property
    def of_generated(self) -> bool:
        """Whether it is made of generated vectors, and so no baseline of theirs."""
        return self.type in OF_GENERATED or (self.begins or "").startswith("generated")

    @property
    def has_place(self) -> bool:
        """Whether a candidate is one vector; an ensemble is several, and lies nowhere."""
        return self.vectors.ndim == 2

    @cached_property
    def finite(self) -> NDArray:
        """Which candidates have a metric on `test` `(M,)`."""
        return np.isfinite(self.test)
