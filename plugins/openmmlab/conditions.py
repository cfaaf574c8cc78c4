"""What detectors and segmentors are made for: a kind of condition says which classes are objects, and in which images.

A kind is built from the config alone, so that the number of its conditions is known before any data are loaded; it is
then bound to the data, which must fit.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import Registry
from torch import Tensor
from torch.utils.data import Dataset

from pdiff import Conditions, build

CONDITIONS = Registry("kind of condition", scope="pdiff", locations=["pdiff_plugins.openmmlab.conditions"])


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
    def bind(self, datasets: Mapping[str, Dataset]) -> None:
        """Set `table` from the data sets of the splits `train`, `select` and `test`.

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


def build_kind(cfg: Mapping[str, Any], seed: int) -> Kind:
    """Return the kind of condition of a config section; `seed` is the run's."""
    return build(CONDITIONS, cfg, "collect.conditions", {"seed": seed})


def only(sample: Any, labels: Sequence[int], background: int | None) -> Any:
    """Return a copy of a training sample in which only some classes are objects, whatever annotations it has.

    Args:
        sample: mmdet's or mmseg's data sample, with `gt_instances` or `gt_sem_seg`.
        labels: of the classes that stay.
        background: the label that the pixels of all others get; pixels that are ignored stay so.
    """
    raise NotImplementedError  # until it is written
