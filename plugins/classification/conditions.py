"""What the networks of a task are made for: a kind of condition says what each asks of images and labels.

A kind is built from the config alone, so that the number of its conditions is known before any data are loaded; their
values may come from the training images.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from mmengine.registry import Registry
from pdiff_plugins.images.data import Split, at
from torch import Tensor

from pdiff import Candidates, Conditions, PdiffError, build

PARTS = ["pdiff_plugins.classification.subsets", "pdiff_plugins.classification.rotation"]
CONDITIONS = Registry("kind of condition", scope="pdiff", locations=PARTS)


class Kind(ABC):
    """What a condition asks of a network.

    Attributes:
        outputs: of every network; None: one for each class of the data.
        same_images: whether every condition leaves the images as they are.
    """

    outputs: int | None = None
    same_images = True

    @abstractmethod
    def __len__(self) -> int:
        """Return how many conditions there are to train for."""

    @abstractmethod
    def table(self, train: Split) -> Conditions:
        """Return all conditions to train for; raise a `PdiffError` where the data do not fit."""

    def provenance(self, number: int) -> Mapping[str, Any]:
        """Return what the row of a network of condition `number` says beside it."""
        return {}

    def facts(self, table: Conditions) -> Mapping[str, Any]:
        """Return what a reader must know to read the metric."""
        return {}

    def chance(self, classes: int) -> float:
        """Return the metric of a network that has learnt nothing."""
        return 1 / classes

    def images(self, data: Split, images: Tensor, conditions: Tensor, table: Conditions) -> Tensor:
        """Return what the networks of n conditions see.

        Args:
            data: the split that the images are of.
            images: normalised, in their stored size `(B, channels, H, W)`.
            conditions: `(n, C)`, on the device of the images.
            table: all conditions to train for.

        Returns:
            `(n, B, channels, H, W)`; `images` itself where they are the same for all.
        """
        return images

    def labels(self, labels: Tensor, conditions: Tensor) -> Tensor:
        """Return the right answers `(n, B)` to images with labels `(B,)` under conditions `(n, C)`, on their device."""
        return labels.expand(len(conditions), -1)

    def checked(self, conditions: Tensor) -> Tensor:
        """Return conditions `(n, C)`, finite numbers; raise a `PdiffError` for one that cannot be."""
        return conditions

    def measured(self, answers: Tensor, labels: Tensor) -> Mapping[str, float] | None:
        """Return what a network does, in the terms of a condition; None where that cannot be said.

        Args:
            answers: the classes that it gives `(S,)`.
            labels: those of the data `(S,)`.
        """
        return None


class ConditionalSplit:
    """A split of the data, and the conditions under which networks see it.

    Args:
        data: images and labels as they are, `classes` the number of outputs.
        kind: what a condition asks.
        table: all conditions to train for.
    """

    def __init__(self, data: Split, kind: Kind, table: Conditions):
        self.data, self.kind, self.table = data, kind, table

    def __len__(self) -> int:
        return len(self.data)

    def inputs(
        self, rows: Tensor | slice, conditions: Tensor, change: Callable[[Tensor], Tensor] = torch.clone
    ) -> Tensor:
        """Return what networks see of some rows: `(n, B, channels, size, size)`, or, the same for all, without n.

        Args:
            rows: of the split.
            conditions: n of them `(n, C)`, on the device.
            change: an augmentation, done before anything that the conditions do.
        """
        images = self.kind.images(self.data, change(self.data.pixels(rows)), conditions, self.table)
        return self.data.resized(images.flatten(0, -4)).reshape(*images.shape[:-2], self.data.size, self.data.size)

    def answers(self, rows: Tensor | slice, conditions: Tensor) -> Tensor:
        """Return the right answers `(n, B)` to some rows under n conditions `(n, C)`, all on the device."""
        return self.kind.labels(at(self.data.answers, rows), conditions)

    def batches(self) -> Iterator[slice]:
        """Yield the rows of each batch of the evaluation, in order."""
        for start in range(0, len(self), self.data.eval_batch):
            yield slice(start, min(start + self.data.eval_batch, len(self)))

    def inputs_in_turn(self) -> Iterator[tuple[Tensor]]:
        """Yield what a network of some condition sees of each batch: of the first condition the first, and so on."""
        for number, rows in enumerate(self.batches()):
            images = self.inputs(rows, self.table.values[number % len(self.table) :][:1].to(self.data.device))
            yield (images.flatten(0, -4),)

    def values(self, candidates: Candidates) -> Tensor:
        """Return what the candidates are for `(M, C)`; raise a `PdiffError` where that is not said."""
        return self.values_of(candidates.conditions)

    def values_of(self, conditions: Conditions | None) -> Tensor:
        """Return the numbers of conditions `(M, C)`; raise a `PdiffError` where they cannot be those of the task."""
        if conditions is None:
            names = ", ".join(self.table.names)
            raise PdiffError(f"task.conditions: got candidates without them, expected {names}. Give one for each.")
        if conditions.names != self.table.names:
            got, expected = (", ".join(names) for names in (conditions.names, self.table.names))
            raise PdiffError(f"task.conditions: got candidates for {got}, expected {expected}. Name these.")
        return self.kind.checked(conditions.values)


def build_kind(cfg: Mapping[str, Any], seed: int) -> Kind:
    """Return the kind of condition of a config section; `seed` is the run's."""
    return build(CONDITIONS, cfg, "task.conditions", {"seed": seed})


def conditional(splits: Mapping[str, Split], kind: Kind) -> dict[str, ConditionalSplit]:
    """Return splits under conditions, whose networks have as many outputs as these ask for."""
    table = kind.table(splits["train"])
    for split in splits.values():
        split.classes = kind.outputs or split.classes
    return {name: ConditionalSplit(split, kind, table) for name, split in splits.items()}
