"""What plugins and the core hand to each other."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pdiff.task.similarity import error_iou
from pdiff.weights.checkpoints import export_state_dict
from pdiff.weights.conditions import Conditions
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Joined, Vectors, pieces


@dataclass(frozen=True)
class Metric:
    """A task's primary metric.

    Attributes:
        name: as it stands in tables.
        higher_is_better: its direction.
        chance: what a network reaches that has learnt nothing; a candidate near it counts as dead. None: not known.
        best: the best value that there is: 1 of an accuracy, 0 of a distance. None: not known.
    """

    name: str
    higher_is_better: bool = True
    chance: float | None = None
    best: float | None = None

    @property
    def worst(self) -> float:
        """The infinity that is worse than any value: the metric of a dead candidate."""
        return -math.inf if self.higher_is_better else math.inf


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        file: name of a PNG in the report's folder.
        title: a few words.
        caption: one sentence on how to read it.
    """

    file: str
    title: str
    caption: str


@dataclass(frozen=True)
class Task:
    """What a plugin's `build` returns.

    Attributes:
        model: the network, on the device of the run.
        splits: the data, by the names `train`, `select` and `test`; only the plugin looks inside.
        metric: the primary metric.
        head: names of the modules that the selector `head` means.
        similarity: from two stacks of signatures, `(A, ...)` and `(B, ...)`, their similarities `(A, B)`; 1 means
            equal behaviour. Default: the error-IoU of boolean signatures.
        export: writes the network, one candidate in it, to a path in the format that the task's own library loads.
            Default: the state dict, as `.safetensors`, `.pth` or `.pt`.
        facts: what a reader must know to read the metric; JSON values, of which the table's caption names the texts.
        for_condition: changes a network that is exported for a condition so that it does what is asked, and nothing
            beyond; raises a `PdiffError` for a condition that cannot be. None: it is exported as it is.
        conditions: of all snapshots that the collection will yield, where that is known before and their provenance
            names neither `group` nor `split`: then too few of them are refused before anything is trained.
    """

    model: nn.Module
    splits: Mapping[str, Any]
    metric: Metric
    head: Sequence[str] = ()
    similarity: Callable[[Tensor, Tensor], Tensor] = error_iou
    export: Callable[[nn.Module, Path], None] = export_state_dict
    facts: Mapping[str, Any] = field(default_factory=dict)
    for_condition: Callable[[nn.Module, Mapping[str, float]], None] | None = None
    conditions: Conditions | None = None


@dataclass(frozen=True)
class Snapshot:
    """One step of a collection.

    Attributes:
        params: the selected tensors by name; empty where the collection only rests (after an epoch of the base
            training, say) so that it can go on from `state`.
        provenance: JSON values that say where it comes from: seed, branch, step, training metric.
        state: tensors from which `collect` can go on after this snapshot; optional.
        condition: what the parameters are for: finite numbers by name, the same names in every snapshot; optional.
    """

    params: Mapping[str, Tensor]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Tensor] | None = None
    condition: Mapping[str, float] | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        names: Sequence[str],
        provenance: Mapping[str, Any] | None = None,
        state: Mapping[str, Tensor] | None = None,
        condition: Mapping[str, float] | None = None,
    ) -> "Snapshot":
        """Return a copy of the tensors that a network holds under `names`, as a snapshot."""
        tensors = model.state_dict()
        return cls({name: tensors[name].detach().clone() for name in names}, provenance or {}, state, condition)


@dataclass(frozen=True)
class Evaluation:
    """What one candidate reached on one split.

    Attributes:
        metric: the primary metric, a fraction where it is one.
        signature: what the candidate gets wrong, sample by sample; compared by `Task.similarity`.
        scores: one number per test unit `(S,)`, the same units for every candidate; their mean is `metric`, and their
            spread gives its test-set noise. Where the metric is a mean, its terms, one per sample; where it is none,
            first-order pseudo-values (of the delta method, or of a jackknife over groups of samples). Of a dead
            candidate only the shape counts. None where the noise is not known.
        details: further figures.
        condition: what the network does, in the terms of its condition, where that can be measured: numbers by some or
            all of the condition's names. Does it obey? None where it is not measured.
    """

    metric: float
    signature: Tensor
    scores: Tensor | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    condition: Mapping[str, float] | None = None


class Candidates(Sequence):
    """M vectors to be evaluated, and the way to put one into the network.

    Args:
        vectors: `(M, P)`, a tensor or something else of `Vectors`; what is in storage is read one by one. Of M
            ensembles of K members `(M, K, P)`. Those that a plugin gets to measure are on the device of the run.
        layout: what the vectors stand for.
        load_params: the hook that puts one selection into the network.
        conditions: what each candidate is for, M of them; None in a run without conditions.
    """

    def __init__(
        self,
        vectors: Vectors | Joined,
        layout: Layout,
        load_params: Callable[[nn.Module, dict], None],
        conditions: Conditions | None = None,
    ):
        self.vectors = vectors
        self.layout = layout
        self.load_params = load_params
        self.conditions = conditions

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.layout.unflatten(self.vectors[index])

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self[index] for index in range(len(self)))

    def take(self, rows: slice | Sequence[int]) -> "Candidates":
        """Return some of the candidates, `(m, P)` of the `(M, P)`, in the order of `rows`."""
        return self.with_vectors(self.vectors[rows], rows)

    @classmethod
    def joined(cls, groups: Sequence["Candidates"]) -> "Candidates":
        """Return the candidates of several groups of one run, one behind another; none of their vectors is copied.

        So one `Replay` serves candidates and the members of ensembles: data are loaded, and what is frozen is computed,
        once for all.
        """
        first = groups[0]
        conditions = None if first.conditions is None else Conditions.joined([group.conditions for group in groups])
        return cls(Joined([group.vectors for group in groups]), first.layout, first.load_params, conditions)

    def with_vectors(self, vectors: Vectors | Joined, rows: slice | Sequence[int]) -> "Candidates":
        """Return what stands for some of the candidates, with vectors that are theirs."""
        conditions = None if self.conditions is None else self.conditions.take(rows)
        return Candidates(vectors, self.layout, self.load_params, conditions)

    def pieces(self, rows: slice | None = None) -> Iterator["Candidates"]:
        """Yield all candidates or some successive ones, as many at a time as `pdiff.weights.vectors.pieces` does."""
        rows = rows or slice(0, len(self))
        start = rows.start
        for vectors in pieces(self.vectors, rows) if rows.start < rows.stop else ():
            yield self.with_vectors(vectors, slice(start, start + len(vectors)))
            start += len(vectors)

    def members(self) -> Iterator["Candidates"]:
        """Yield the members of each ensemble, of M ensembles `(M, K, P)`."""
        for index, vectors in enumerate(self.vectors):
            yield self.with_vectors(vectors, [index] * len(vectors))

    def load(self, model: nn.Module, index: int) -> None:
        """Put candidate `index` into the network."""
        self.load_params(model=model, params=self[index])
