"""The mean intersection over union of many candidates on one split, with mmseg's own metric."""

import copy
from array import array
from collections.abc import Sequence

import numpy as np
import torch
from mmseg.evaluation.metrics import IoUMetric
from numpy.typing import NDArray
from torch import Tensor

from pdiff import PdiffError


def counted(numbers: Tensor, count: int) -> Tensor:
    """Return how often each number from 0 to `count` - 1 is among some `(N,)`: int64 `(count,)`.

    A GPU is not waited for, as torch.bincount does to learn the largest.
    """
    if numbers.device.type == "cpu":
        return torch.bincount(numbers, minlength=count)
    edges = torch.arange(count + 1, dtype=numbers.dtype, device=numbers.device)
    return torch.searchsorted(numbers.sort().values, edges).diff()


def rows_of(truth: Tensor, classes: int, ignored: int) -> Tensor:
    """Return where in a table the row of each pixel's label begins `(H W,)`, int64; see `areas_of`.

    The table has C + 1 columns and C + 2 rows: for each of C classes, for labels that are none, and for the ignored.

    Args:
        truth: true labels `(1, H, W)`.
        classes: C.
        ignored: label of pixels that count in nothing.
    """
    truth = truth.flatten().long()
    alien = (truth < 0) | (truth >= classes)
    return truth.masked_fill(alien, classes).masked_fill(truth == ignored, classes + 1) * (classes + 1)


def areas_of(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return how many pixels of each class are right, are predicted and are there, int64 `(3, C)`.

    Args:
        rows: of the pixels' true labels, see `rows_of`.
        labels: predicted ones `(1, H, W)`, on the same device.
        classes: C.
    """
    cells = rows + labels.flatten().long().clamp(max=classes)
    table = counted(cells, (classes + 2) * (classes + 1)).view(classes + 2, classes + 1)
    there, predicted = table[:classes].sum(1), table[:-1, :classes].sum(0)
    return torch.stack([table.diagonal()[:classes], predicted, there])


def sum_areas(results: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Return the sums of the four areas of each image, one per class; float64, as float32 is exact to 2^24 only."""
    return tuple(sum(area.double() for area in areas) for areas in zip(*results, strict=True))


def linearised(intersections: NDArray, unions: NDArray) -> NDArray:
    """Return a term per image `(S,)`, whose mean is mIoU and whose spread gives mIoU's noise (the delta method).

    A ratio of sums, IoU_c = I_c / U_c, is to first order in the images IoU_c + sum_j (I_jc - IoU_c U_jc) / U_c. Classes
    that are neither there nor predicted have no IoU, and no part in the mean over C classes.

    Args:
        intersections: I_jc, pixels `(S, C)`.
        unions: U_jc, the same.
    """
    counted = unions.sum(0) > 0
    intersections, unions = intersections[:, counted], unions[:, counted]
    total = unions.sum(0)
    iou = intersections.sum(0) / total
    return iou.mean() + len(unions) * ((intersections - iou * unions) / total).mean(1)


class CandidateMetric(IoUMetric):
    """mmseg's IoUMetric, one instance per candidate; it rounds nothing, and keeps of an image what `scores` needs.

    Areas are counted where the label maps are, in one pass over the pixels.

    Args:
        classes: names of the classes.
        ignore_index: label that is left out.
    """

    def __init__(self, classes: Sequence[str], ignore_index: int = 255):
        super().__init__(ignore_index=ignore_index, prefix="candidate")
        self.dataset_meta = {"classes": tuple(classes)}
        self.begin()
        self.wanted: list[int] | None = None

    def begin(self) -> None:
        """Forget all images."""
        self.areas = array("f")  # of image after image, intersection and union of each class
        self.sums = np.zeros((4, len(self.dataset_meta["classes"])))  # of float64: float32 is exact to 2^24 only
        self.results = []

    def another(self, labels: Sequence[int] | None = None) -> "CandidateMetric":
        """Return an empty accumulator; of the figures of some classes alone, by their labels.

        What is of other classes is as good as background: where it is predicted, no class that counts is, and that is
        all that these classes' figures ask.
        """
        metric = copy.copy(self)
        metric.begin()
        metric.wanted = None if labels is None else list(labels)
        return metric

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Add some images, as mmseg calls it."""
        classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            labels = sample["pred_sem_seg"]["data"]
            rows = rows_of(sample["gt_sem_seg"]["data"].to(labels.device), classes, self.ignore_index)
            self.add(areas_of(rows, labels, classes).cpu())

    def add(self, areas: Tensor) -> None:
        """Add the `areas_of` an image, on the CPU, to the sums; tensors per image and candidate would be gigabytes."""
        right, predicted, there = areas.numpy().astype(np.float32)
        both = right, predicted + there - right
        self.areas.frombytes(np.stack(both).tobytes())
        self.sums += np.stack([*both, predicted, there])
        self.results = [tuple(torch.from_numpy(self.sums))]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return mIoU, mAcc, aAcc and `IoU/<class>`; a class that is neither there nor predicted is left out.

        Of some classes alone there is no aAcc, which is that of all.

        Raises:
            PdiffError: no pixel is of a class that counts.
        """
        areas = sum_areas(results)
        figures = self.total_area_to_metrics(*areas, self.metrics)
        names = self.dataset_meta["classes"]
        if self.wanted is not None:
            names = [names[label] for label in self.wanted]
            if not areas[3][self.wanted].any():
                line = f"collect.conditions: no pixel is of {', '.join(names)}, whose mIoU is asked for."
                raise PdiffError(f"{line} Leave the condition out, or measure it on images with such pixels.")
            figures = {name: figures[name][self.wanted] for name in ("IoU", "Acc")}
        iou = dict(zip(names, map(float, figures["IoU"]), strict=True))
        means = {"mIoU": np.nanmean(figures["IoU"]), "mAcc": np.nanmean(figures["Acc"])}
        means |= {"aAcc": figures["aAcc"]} if self.wanted is None else {}
        each = {f"IoU/{name}": value for name, value in iou.items() if not np.isnan(value)}
        return {name: float(value) for name, value in means.items()} | each

    def shares(self) -> list[float | None]:
        """Return the share of each class's pixels that get that class `(C,)`; None of a class without pixels."""
        intersection, _, _, there = (area.tolist() for area in sum_areas(self.results))
        return [hits / total if total else None for hits, total in zip(intersection, there, strict=True)]

    def scores(self) -> Tensor:
        """Return mIoU to first order in the images `(S,)`, float32, whose mean is mIoU: `linearised` of their areas."""
        areas = np.frombuffer(self.areas, np.float32).reshape(-1, 2, len(self.dataset_meta["classes"]))
        areas = areas if self.wanted is None else areas[..., self.wanted]
        return torch.from_numpy(linearised(*areas.swapaxes(0, 1).astype(np.float64))).float()
