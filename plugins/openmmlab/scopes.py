"""What of a split counts for each candidate: all of it, or the classes and the images that its condition is about."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pdiff_plugins.openmmlab.conditions import Kind
from pdiff_plugins.openmmlab.data import Split
from pdiff_plugins.openmmlab.draws import Part
from pdiff_plugins.openmmlab.prediction import predictions
from torch import Tensor, nn
from torch.utils.data import Dataset

from pdiff import Candidates, PdiffError

T = TypeVar("T")


@dataclass(frozen=True)
class Scope:
    """What counts for one candidate.

    Attributes:
        labels: of the classes that are objects, in order; None: of all.
        rows: numbers of the images in the data set, in order; None: all.
    """

    labels: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None


EVERYTHING = Scope()


def scopes(split: Split, candidates: Candidates) -> list[Scope]:
    """Return what counts for each candidate; everything where the split has no kind of condition.

    Raises:
        PdiffError: the split has one, and the candidates have no conditions, or such of other names.
    """
    if split.kind is None:
        return [EVERYTHING] * len(candidates)
    return [scope(split.kind, split.dataset, values) for values in values_of(split.kind, candidates)]


def values_of(kind: Kind, candidates: Candidates) -> Tensor:
    """Return what the candidates are for `(M, C)`; raise a `PdiffError` where that is not said."""
    expected = ", ".join(kind.table.names)
    if candidates.conditions is None:
        raise PdiffError(f"collect.conditions: got candidates without them, expected {expected}. Give one for each.")
    if candidates.conditions.names != kind.table.names:
        got = ", ".join(candidates.conditions.names)
        raise PdiffError(f"collect.conditions: got candidates for {got}, expected {expected}. Name these.")
    return candidates.conditions.values


def scope(kind: Kind, dataset: Dataset, values: Tensor) -> Scope:
    """Return what of a data set counts under a condition `(C,)`; raise a `PdiffError` where that is no image."""
    labels, rows = kind.labels(values), kind.rows(dataset, values)
    if rows is not None and len(rows) == 0:
        asked = ", ".join(f"{name}={value:g}" for name, value in zip(kind.table.names, values.tolist(), strict=True))
        raise PdiffError(f"collect.conditions: no image of a split is for {asked}. Give such images, or leave it out.")
    return Scope(None if labels is None else tuple(labels), None if rows is None else tuple(map(int, rows)))


def predictions_within(
    model: nn.Module,
    split: Split,
    candidates: Candidates,
    wanted: Sequence[Scope],
    title: str,
    read: Callable[[Sequence[Any]], T],
) -> Iterator[tuple[int, Sequence[Any], T]]:
    """Yield what `predictions` does, each candidate's on the images of its scope; same images share their batches.

    Args:
        model: the network.
        split: the data.
        candidates: what is put into the network.
        wanted: what counts for each of them.
        title: of the progress bar.
        read: from the predicted data samples of a batch to a few tensors.
    """
    for rows in dict.fromkeys(each.rows for each in wanted):
        members = [index for index, each in enumerate(wanted) if each.rows == rows]
        part = split if rows is None else replace(split, dataset=Part(split.dataset, rows))
        some = candidates if len(members) == len(candidates) else candidates.take(members)
        for index, truths, predicted in predictions(model, part, some, title, read):
            yield members[index], truths, predicted
