"""What label maps of a split are measured against."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from pdiff_plugins.openmmlab.data import Split, evaluator_settings
from pdiff_plugins.openmmlab.delivery import Delivery
from pdiff_plugins.openmmlab.libraries import one_line
from pdiff_plugins.openmmlab.scopes import Scope
from pdiff_plugins.openmmlab.wrapped import inside
from pdiff_plugins.segmentation.metric import CandidateMetric, areas_of, rows_of
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

    def of(self, truth: Any) -> Tensor:
        """Return the places of an image's pixels in its flat label map, on the device of this; drawn once."""
        expected, path = truth.gt_sem_seg.data.flatten(), truth.img_path
        if path not in self.places:
            valid = (expected.cpu() != self.ignored).nonzero().flatten()
            rng = generator(self.seed, "pixels", os.path.basename(path))
            self.places[path] = valid[torch.randperm(len(valid), generator=rng)[: self.share]].to(expected.device)
        return self.places[path]

    def wrong(self, truth: Any, labels: Tensor, others: Tensor | None = None, background: int | None = None) -> Tensor:
        """Return on which of an image's pixels the labels `(1, H, W)` are wrong, booleans on the device of all.

        Args:
            truth: mmseg's data sample.
            labels: the predicted ones.
            others: which labels are as good as `background`, predicted or true, booleans `(C + 1,)`, the last one False
                for labels from C on; None: none are.
            background: the label.
        """
        places = self.of(truth)
        expected, labels = truth.gt_sem_seg.data.flatten()[places], labels.flatten()[places]
        if others is not None:
            most = len(others) - 1
            expected, labels = (
                each.masked_fill(others[each.long().clamp(max=most)], background) for each in (expected, labels)
            )
        return labels != expected

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
    """What one candidate, or one ensemble, gets right and wrong on a split, as it comes in.

    Args:
        data: the split.
        scope: what counts of it.
        device: where label maps are compared.
    """

    def __init__(self, data: MeasuredSplit, scope: Scope, device: torch.device):
        self.metric, self.pixels, self.scope = data.metric.another(scope.labels), data.pixels, scope
        self.kind = data.split.kind
        self.mapping: tuple[Tensor | None, int | None] = None, None
        if scope.labels is not None:
            classes = len(data.metric.dataset_meta["classes"])
            others = torch.tensor([label not in scope.labels for label in range(classes)] + [False], device=device)
            self.mapping = others, self.kind.background
        self.wrong: list[Tensor] = []
        self.finite = True

    def add(self, areas: Tensor, wrong: Tensor, finite: Tensor) -> None:
        """Add an image, all on the CPU: its areas, its wrong pixels, whether what they were chosen from is finite."""
        self.finite &= bool(finite)
        self.metric.add(areas)
        self.wrong.append(wrong)

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
        shares = [share for label, share in enumerate(self.metric.shares()) if label != self.kind.background]
        named = zip(self.kind.table.names, shares, strict=True)
        return {name: share for name, share in named if share is not None}


class Comparison:
    """Compares the label maps of candidates and of ensembles with the truth where they are, batch by batch.

    On a GPU nothing of it is waited for before the end, unless it fills a parcel of `Delivery`.

    Args:
        model: that predicts them.
        data: the split.
        wanted: what counts for each.
    """

    def __init__(self, model: nn.Module, data: MeasuredSplit, wanted: Sequence[Scope]):
        device = next(model.parameters()).device
        self.ignored, self.classes = data.metric.ignore_index, len(data.metric.dataset_meta["classes"])
        self.records = [Record(data, scope, device) for scope in wanted]
        self.delivery = Delivery(lambda number, *found: self.records[number].add(*found))
        self.truths: Sequence[Any] = ()
        self.rows: list[Tensor] = []

    def add(self, number: int, truths: Sequence[Any], found: Sequence[Tensor], finite: Tensor) -> None:
        """Add the labels `(1, H, W)` of some images, and whether what they were chosen from is finite `()`."""
        if truths is not self.truths:  # the same for all candidates
            self.truths = truths
            self.rows = [rows_of(truth.gt_sem_seg.data, self.classes, self.ignored) for truth in truths]
        record = self.records[number]
        for truth, rows, labels in zip(truths, self.rows, found, strict=True):
            wrong = record.pixels.wrong(truth, labels, *record.mapping)
            self.delivery.send(number, areas_of(rows, labels, self.classes), wrong, finite)

    def evaluations(self, metric: Metric) -> Iterator[Evaluation]:
        """Yield the evaluation of each."""
        self.delivery.flush()
        for record in self.records:
            yield record.evaluation(metric)


class Vote:
    """The members of an ensemble, one after another: their class probabilities are averaged.

    Args:
        model: of which the members are candidates.
        members: K.
    """

    def __init__(self, model: nn.Module, members: int):
        self.model, self.members = model, members
        self.seen, self.totals = 0, []
        self.finite = torch.tensor(True)

    def add(self, logits: Sequence[Tensor], finite: Tensor) -> tuple[list[Tensor], Tensor] | None:
        """Add the logits of a member on a batch; after those of the last, return what `read` does of labels.

        Args:
            logits: `(C, H, W)` of each image; C is 1 for two classes.
            finite: whether all are: one dead member is enough, its part of the average is NaN.
        """
        own = [each.sigmoid() if len(each) == 1 else each.softmax(0) for each in logits]
        self.totals = own if self.seen == 0 else [a + b for a, b in zip(self.totals, own, strict=True)]
        self.finite = finite if self.seen == 0 else self.finite & finite
        self.seen = (self.seen + 1) % self.members
        if self.seen:
            return None
        totals, self.totals = self.totals, []
        return [labels_of(self.model, total / self.members) for total in totals], self.finite


def read(samples: Sequence[Any]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return what a network says of each image of a batch.

    Returns:
        the class of every pixel `(1, H, W)`; the logits `(C, H, W)`, C being 1 for two classes; and whether these are
        finite in all images `()`, which labels do not tell: the largest of NaN is class 0.
    """
    logits = [sample.seg_logits.data for sample in samples]
    finite = torch.stack([each.isfinite().all() for each in logits]).all()
    return [sample.pred_sem_seg.data for sample in samples], logits, finite


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
