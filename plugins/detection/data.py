"""What detections on a split are measured against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from pdiff_plugins.detection.coco import CandidateMetric
from pdiff_plugins.detection.errors import Errors
from pdiff_plugins.openmmlab.data import Split, evaluator_settings
from pdiff_plugins.openmmlab.scopes import Scope, scope
from torch import Tensor, nn

from pdiff import Evaluation, Metric, PdiffError, Task

DETECTIONS = ("bboxes", "scores", "labels")
SETTINGS = ("proposal_nums", "iou_thrs", "backend_args")  # of the config's metric, heeded in a candidate's


@dataclass(frozen=True)
class MeasuredSplit:
    """A split with what predictions on it are measured against.

    Attributes:
        split: data set and loader.
        metric: to be asked for `another()` accumulator per candidate.
        images: position of each image id.
        truths: for each of the S images `boxes` `(g, 4)` in its original pixels, `labels` and `ignored` `(g,)`.
        classes: number of classes.
        threshold: of the score, from which on a detection counts in a signature.
    """

    split: Split
    metric: CandidateMetric
    images: Mapping[int, int]
    truths: Sequence[Mapping[str, Tensor]]
    classes: int
    threshold: float

    def errors(self) -> Errors:
        """Return an empty record of a candidate's errors."""
        return Errors(self.truths, self.classes, self.threshold)

    def obeyed(self, scope: Scope, errors: Errors) -> dict[str, float] | None:
        """Return the share of the objects of each class that is found, by the condition's names.

        All classes are looked at, those of the condition and others, but for those that have no object. None where
        conditions are not about classes.
        """
        if scope.labels is None:
            return None
        return {self.split.kind.table.names[label]: share for label, share in errors.found().items()}


class Record:
    """What one candidate sees on a split, as it comes in.

    Args:
        data: the split.
        scope: what counts of it.
    """

    def __init__(self, data: MeasuredSplit, scope: Scope):
        self.data, self.scope = data, scope
        self.metric, self.errors = data.metric.another(scope.labels, scope.rows), data.errors()
        self.alive = True

    def add(
        self,
        infos: Sequence[Mapping[str, Any]],
        sizes: Sequence[int],
        bboxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        finite: Tensor,
    ) -> None:
        """Add the detections on some images, all on the CPU.

        Args:
            infos: of each image, among them its id.
            sizes: numbers of detections on each of them; N in all.
            bboxes: `(N, 4)`.
            scores: `(N,)`.
            labels: `(N,)`.
            finite: whether what the network gave is a number.
        """
        self.alive &= bool(finite)
        found = [tensor.split(sizes) for tensor in (bboxes, scores, labels)]
        for info, *own in zip(infos, *found, strict=True):
            self.metric.process({}, [{**info, "pred_instances": dict(zip(DETECTIONS, own, strict=True))}])
            self.errors.add(self.data.images[info["img_id"]], *own)

    def evaluation(self, metric: Metric) -> Evaluation:
        """Return AP, or the worst of the task's metric where not all was finite, and what was missed and invented."""
        figures, scores = self.metric.measure()
        average, signature = figures.pop("AP"), self.errors.signature(self.scope.labels, self.scope.rows)
        if not self.alive:
            average, figures = metric.worst, {}
        return Evaluation(average, signature, scores, figures, self.data.obeyed(self.scope, self.errors))


def read_detections(samples: Sequence[Any]) -> tuple[list[int], Tensor, Tensor, Tensor]:
    """Return the numbers of detections on each image, and the boxes, the scores and the labels of a batch."""
    found = (torch.cat([sample.pred_instances[key] for sample in samples]) for key in DETECTIONS)
    return [len(sample.pred_instances) for sample in samples], *found


def measure(config: Config, name: str, split: Split, threshold: float) -> MeasuredSplit:
    """Return a split with its ground truths.

    Raises:
        PdiffError: the config's data are not in COCO's format, or no object is annotated.
    """
    from mmdet.datasets import CocoDataset

    settings = evaluator_settings(config, "CocoMetric", SETTINGS)
    dataset = split.dataset
    if not isinstance(dataset, CocoDataset):
        kind = type(dataset).__name__
        line = f"task.data: the data set of {name} is a {kind}, expected a CocoDataset."
        raise PdiffError(f"{line} Give data in COCO's format, without a wrapper around them.")
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    truths = [ground_truth(info["instances"]) for info in infos]
    if not any((~truth["ignored"]).any() for truth in truths):
        whose = "train, as the test sees them," if name == "seen" else name
        raise PdiffError(
            f"task.data: no image of {whose} has an annotated object ({dataset.ann_file}). "
            "Check the annotations, and that metainfo names the classes in them."
        )
    ids = [info["img_id"] for info in infos]
    metric = CandidateMetric(dataset.ann_file, ids, dataset.cat_ids, **settings)
    images = {image: position for position, image in enumerate(ids)}
    return MeasuredSplit(split, metric, images, truths, len(dataset.metainfo["classes"]), threshold)


def check_classes(task: Task) -> None:
    """Raise a `PdiffError` unless the head has the classes of the data."""
    classes = len(task.model.dataset_meta["classes"])
    for path in task.head:
        head = task.model.get_submodule(path)
        for part in head if isinstance(head, nn.ModuleList) else [head]:
            count = vars(part).get("num_classes", classes)
            if count != classes:
                raise PdiffError(
                    f"task.model.config: {path} has {count} classes, but the data have {classes}. Give "
                    f"task.model.options.model.{path}.num_classes={classes}, or data with the detector's classes."
                )


def check_conditions(task: Task) -> None:
    """Raise a `PdiffError` for a condition to train for that has no object in a split, where AP is not defined."""
    for name in ("select", "test"):
        data = task.splits[name]
        for values in data.split.kind.table.values if data.split.kind is not None else ():
            within = scope(data.split.kind, data.split.dataset, values)
            data.metric.another(within.labels, within.rows)


def ground_truth(instances: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return the objects of an image as tensors."""
    return {
        "boxes": torch.tensor([instance["bbox"] for instance in instances], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([instance["bbox_label"] for instance in instances], dtype=torch.int64),
        "ignored": torch.tensor([bool(instance["ignore_flag"]) for instance in instances], dtype=torch.bool),
    }
