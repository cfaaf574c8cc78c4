"""The mean intersection over union of many candidates on one split, with mmseg's own metric."""

import copy
from collections.abc import Sequence

import numpy as np
from mmseg.evaluation.metrics import IoUMetric
from torch import Tensor


def sum_areas(results: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """Return the sums of the four areas of each image, one per class; float64, as float32 is exact to 2^24 only."""
    return tuple(sum(area.double() for area in areas) for areas in zip(*results, strict=True))


class CandidateMetric(IoUMetric):
    """mmseg's IoUMetric, one instance per candidate; it rounds nothing, and keeps sums in the place of every image.

    Args:
        classes: names of the classes.
        ignore_index: label that is left out.
    """

    def __init__(self, classes: Sequence[str], ignore_index: int = 255):
        super().__init__(ignore_index=ignore_index, prefix="candidate")
        self.dataset_meta = {"classes": tuple(classes)}

    def another(self) -> "CandidateMetric":
        """Return an empty accumulator."""
        metric = copy.copy(self)
        metric.results = []
        return metric

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Add the areas of some images to the sums; a table per image and candidate would be gigabytes."""
        super().process(data_batch, data_samples)
        self.results = [sum_areas(self.results)]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Return mIoU, mAcc, aAcc and `IoU/<class>`; a class that is neither there nor predicted is left out."""
        figures = self.total_area_to_metrics(*sum_areas(results), self.metrics)
        iou = dict(zip(self.dataset_meta["classes"], map(float, figures["IoU"]), strict=True))
        means = {"mIoU": np.nanmean(figures["IoU"]), "mAcc": np.nanmean(figures["Acc"]), "aAcc": figures["aAcc"]}
        each = {f"IoU/{name}": value for name, value in iou.items() if not np.isnan(value)}
        return {name: float(value) for name, value in means.items()} | each
