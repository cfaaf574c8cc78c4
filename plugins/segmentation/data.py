"""What label maps of a split are measured against."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from pdiff_plugins.openmmlab.data import Split, evaluator_settings
from pdiff_plugins.openmmlab.libraries import one_line
from pdiff_plugins.openmmlab.scopes import EVERYTHING, Scope
from pdiff_plugins.openmmlab.wrapped import inside
from pdiff_plugins.segmentation.metric import CandidateMetric
from torch import Tensor, nn
from torch.utils.data import Dataset

from pdiff import Evaluation, Metric, PdiffError, check_positive, generator


class Pixels:
    """The fixed pixels of a split that a signature looks at: as many of each image, drawn among its valid ones.

    Args:
        total: number of pixels on the whole split; images with fewer valid pixels than their share give all they have.
        images: S.
        seed: of the choice, together with the path of each image.
        ignored: label of invalid pixels.
    """

    def __init__(self, total: int, images: int, seed: int, ignored: int):
        self.share, self.images, self.seed, self.ignored = -(-total // images), images, seed, ignored
        self.places: dict[str, Tensor] = {}

    def wrong(self, truth: Any, labels: Tensor, others: Tensor | None = None, background: int | None = None) -> Tensor:
        """Return on which of an image's pixels the labels `(1, H, W)` are wrong, booleans on the CPU.

        Args:
            truth: mmseg's data sample.
            labels: the predicted ones.
            others: labels that are as good as `background`, predicted or true; None: none.
            background: the label.
        """
        expected = truth.gt_sem_seg.data.flatten()
        path = truth.img_path
        if path not in self.places:
            valid = (expected != self.ignored).nonzero().flatten().cpu()
            rng = generator(self.seed, "pixels", os.path.basename(path))
            self.places[path] = valid[torch.randperm(len(valid), generator=rng)[: self.share]].to(expected.device)
        places = self.places[path]
        expected, labels = expected[places], labels.flatten()[places]
        if others is not None:
            others = others.to(expected.device)
            expected, labels = (each.masked_fill(torch.isin(each, others), background) for each in (expected, labels))
        return (labels != expected).cpu()

    def spread(self, wrong: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        """Return the wrong pixels of some images `(S share,)`: those of an image in its place, elsewhere False."""
        signature = torch.zeros(self.images, self.share, dtype=torch.bool)
        for row, pixels in zip(rows, wrong, strict=True):
            signature[row, : len(pixels)] = pixels
        return signature.flatten()


@dataclass(frozen=True)
class MeasuredSplit:
    """A split with what predictions on it are measured against.

    Attributes:
        split: data set and loader.
        metric: to be asked for `another()` accumulator per candidate.
        pixels: of the signatures.
    """

    split: Split
    metric: CandidateMetric
    pixels: Pixels


class Record:
    """What one candidate, or one ensemble, predicts on a split, as it comes in.

    Args:
        data: the split.
        scope: what counts of it.
    """

    def __init__(self, data: MeasuredSplit, scope: Scope = EVERYTHING):
        self.metric, self.pixels, self.scope = data.metric.another(scope.labels), data.pixels, scope
        self.kind = data.split.kind
        self.others, self.background = None, None
        if scope.labels is not None:
            self.background = self.kind.background
            classes = range(len(data.metric.dataset_meta["classes"]))
            self.others = torch.tensor([label for label in classes if label not in scope.labels])
        self.wrong: list[Tensor] = []
        self.finite = True

    def add(self, truths: Sequence[Any], found: Sequence[Tensor], finite: bool) -> None:
        """Add the labels `(1, H, W)` of some images, and whether what they were chosen from is finite."""
        self.finite &= finite
        for truth, labels in zip(truths, found, strict=True):
            expected = {"data": truth.gt_sem_seg.data}
            self.metric.process({}, [{"pred_sem_seg": {"data": labels}, "gt_sem_seg": expected}])
            self.wrong.append(self.pixels.wrong(truth, labels, self.others, self.background))

    def evaluation(self, metric: Metric) -> Evaluation:
        """Return mIoU, or the worst of the task's metric where not all was finite, and which pixels are wrong."""
        wrong, scores, rows = torch.cat(self.wrong), self.metric.scores(), self.scope.rows
        if rows is not None:  # other conditions are about other images
            wrong, scores = self.pixels.spread(self.wrong, rows), None
        if not self.finite:
            return Evaluation(metric.worst, wrong, scores, condition=self.obeyed())
        figures = self.metric.compute_metrics(self.metric.results)
        return Evaluation(figures.pop("mIoU"), wrong, scores, figures, self.obeyed())

    def obeyed(self) -> dict[str, float] | None:
        """Return the share of each class's pixels that get that class, by the condition's names; None without such."""
        if self.scope.labels is None:
            return None
        shares = [share for label, share in enumerate(self.metric.shares()) if label != self.background]
        named = zip(self.kind.table.names, shares, strict=True)
        return {name: share for name, share in named if share is not None}


def is_finite(samples: Sequence[Any]) -> bool:
    """Say whether all logits of a batch are finite: the largest of NaN is class 0, so that labels do not tell."""
    return all(bool(sample.seg_logits.data.isfinite().all()) for sample in samples)


def read_labels(samples: Sequence[Any]) -> tuple[list[Tensor], bool]:
    """Return the classes of every pixel of a batch, `(1, H, W)` for each image, and whether the logits are finite."""
    return [sample.pred_sem_seg.data for sample in samples], is_finite(samples)


def read_probabilities(samples: Sequence[Any]) -> tuple[list[Tensor], bool]:
    """Return the class probabilities of every pixel of a batch, and whether the logits are finite.

    The probabilities are `(C, H, W)` for each image; C is 1 for two classes.
    """
    logits = [sample.seg_logits.data for sample in samples]
    return [each.sigmoid() if len(each) == 1 else each.softmax(0) for each in logits], is_finite(samples)


def labels_of(model: nn.Module, probabilities: Tensor) -> Tensor:
    """Return the class of every pixel `(1, H, W)` from class probabilities `(C, H, W)`, as mmseg chooses it."""
    if len(probabilities) == 1:
        return (probabilities > model.decode_head.threshold).long()
    return probabilities.argmax(0, keepdim=True)


def measure(config: Config, name: str, split: Split, pixels: int, seed: int) -> MeasuredSplit:
    """Return a split with the metric of the config and the pixels of its signatures."""
    check_positive("task", signature_pixels=pixels)
    settings = {"ignore_index": 255, **evaluator_settings(config, "IoUMetric", ("ignore_index",))}
    ignored = inside(split.dataset)[0].ignore_index
    if ignored != settings["ignore_index"]:
        raise PdiffError(
            f"task.model.config: the data set of {name} ignores the label {ignored!r}, but its "
            f"IoUMetric the label {settings['ignore_index']!r}. Give both the same ignore_index."
        )
    check_pipeline(split.dataset, name)
    metric = CandidateMetric(split.dataset.metainfo["classes"], **settings)
    return MeasuredSplit(split, metric, Pixels(pixels, len(split.dataset), seed, settings["ignore_index"]))


def check_pipeline(dataset: Dataset, name: str) -> None:
    """Raise a `PdiffError` when the pipeline of a split has no label for each pixel that mmseg predicts one for."""
    try:
        sample = dataset[0]["data_samples"]
    except Exception as error:  # whatever a step finds wrong with its settings, or with the image
        line = f"task.model.config: the pipeline of {name} fails on the first image ({one_line(error)})."
        raise PdiffError(f"{line} Mend it; YAML has no tuples, so what must be one stands in the config.") from None
    if "gt_sem_seg" not in sample:
        line = f"task.model.config: the pipeline of {name} loads no label map."
        raise PdiffError(f"{line} Add LoadAnnotations before PackSegInputs.")
    if tuple(sample.gt_sem_seg.shape) != tuple(sample.ori_shape):
        raise PdiffError(
            f"task.model.config: the pipeline of {name} changes the size of the label maps: got "
            f"{tuple(sample.gt_sem_seg.shape)}, expected {tuple(sample.ori_shape)}, that of the image. "
            "Put LoadAnnotations behind the steps that change the size."
        )


def check_head(model: nn.Module, dataset: Dataset) -> None:
    """Raise a `PdiffError` when the decode head has other classes than the data, or ignores another label."""
    count, ignored = len(dataset.metainfo["classes"]), inside(dataset)[0].ignore_index
    for name, head in model.named_modules():
        if not isinstance(head, BaseDecodeHead) or not name.startswith("decode_head"):
            continue
        if head.num_classes != count:
            raise PdiffError(
                f"task.model.config: the {name} has {head.num_classes} classes, the data set {count}. "
                "Set num_classes of the head, or metainfo.classes of the data."
            )
        if head.ignore_index not in (None, ignored):
            raise PdiffError(
                f"task.model.config: the {name} ignores the label {head.ignore_index}, but the data set the label "
                f"{ignored}. Give both the same ignore_index."
            )
