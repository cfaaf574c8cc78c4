"""What detectors and segmentors are made for: a kind of condition says which classes are objects, and in which images.

A kind is built from the config alone, so that the number of its conditions is known before any data are loaded; it is
then bound to the data, which must fit.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from mmengine.registry import Registry
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import Dataset

from pdiff import Conditions, build

PARTS = ["pdiff_plugins.openmmlab.classes", "pdiff_plugins.openmmlab.columns"]
CONDITIONS = Registry("kind of condition", scope="pdiff", locations=PARTS)
SPLITS = ("train", "select", "test")
IGNORED = 255  # label of pixels that count in nothing, as mmseg has it


class Kind(ABC):
    """What a condition asks of a network.

    Attributes:
        table: all conditions to train for; once it is bound.
        background: the label that pixels of other classes get in training and in measuring; None of a detector, whose
            other classes are no objects.
    """

    table: Conditions
    background: int | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return how many conditions there are to train for."""

    @abstractmethod
    def bind(self, datasets: Mapping[str, Dataset], counts: Mapping[str, Sequence[int]] | None = None) -> None:
        """Set `table` from the data sets of the splits `train`, `select` and `test`.

        Args:
            datasets: by the name of their split; there may be others.
            counts: of segmentation, how many pixels of each class a split has; None: not known.

        Raises:
            PdiffError: the data lack a class or an image that a condition is about, or a split has no object of one.
        """

    def labels(self, values: Tensor) -> list[int] | None:
        """Return the labels that are objects under a condition `(C,)`, in order; None: those of all classes.

        Raises:
            PdiffError: it is no condition of this kind, one of no class say.
        """
        return None

    def rows(self, dataset: Dataset, values: Tensor) -> Sequence[int] | None:
        """Return which images of a data set a condition `(C,)` is about, in order; None: all."""
        return None

    def facts(self) -> Mapping[str, Any]:
        """Return what a reader must know to read the metric; once it is bound."""
        return {}


def build_kind(cfg: Mapping[str, Any], seed: int) -> Kind:
    """Return the kind of condition of a config section; `seed` is the run's."""
    return build(CONDITIONS, cfg, "collect.conditions", {"seed": seed})


@cache
def on_device(labels: tuple[int, ...], device: torch.device) -> Tensor:
    """Return labels `(n,)` on a device, copied there once."""
    return torch.tensor(labels, dtype=torch.int64, device=device)


@cache
def relabelled(labels: tuple[int, ...], background: int, device: torch.device) -> Tensor:
    """Return what each label of a map, 8 bits, becomes `(256,)`."""
    kept = {*labels, IGNORED}
    return torch.tensor([label if label in kept else background for label in range(IGNORED + 1)], device=device)


def copied(sample: BaseDataElement) -> BaseDataElement:
    """Return a copy of a data sample, and of what is in it, whose entries may be replaced; it shares the tensors."""
    own = sample.clone()
    for name, value in sample.items():
        if isinstance(value, BaseDataElement):
            own.set_data({name: value.clone()})
    return own


def only(sample: Any, labels: Sequence[int], background: int | None) -> Any:
    """Return a copy of a training sample in which only some classes are objects, whatever annotations it has.

    Args:
        sample: mmdet's or mmseg's data sample, with `gt_instances` or `gt_sem_seg`; it shares its tensors with the
            copy, where they stay as they are.
        labels: of the classes that stay.
        background: the label that the pixels of all others get; pixels that are ignored stay so. None: label maps stay.
    """
    own = copied(sample)
    if "gt_instances" in sample:
        found = sample.gt_instances
        wanted = on_device(tuple(labels), found.labels.device)
        # Places, which a GPU is waited for once, and not a mask, which it is for each entry of the instances.
        own.gt_instances = found[(found.labels[:, None] == wanted).any(1).nonzero().flatten()]
    if "gt_sem_seg" in sample and background is not None:
        data = sample.gt_sem_seg.data
        own.gt_sem_seg.data = relabelled(tuple(labels), background, data.device)[data.long()]
    return own
