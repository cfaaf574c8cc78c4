"""What label maps of a split are measured against, and whether its own label maps are sound."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from pdiff_plugins.openmmlab.data import Split, evaluator_settings
from pdiff_plugins.segmentation.metric import CandidateMetric
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pdiff import PdiffError
from pdiff.errors import check_positive
from pdiff.progress import progress
from pdiff.seeding import generator


class Pixels:
    """The fixed pixels of a split that a signature looks at: as many of each image, drawn among its valid ones.

    Args:
        total: number of pixels on the whole split; images with fewer valid pixels than their share give all they have.
        images: S.
        seed: of the choice, together with the path of each image.
        ignored: label of invalid pixels.
    """

    def __init__(self, total: int, images: int, seed: int, ignored: int):
        self.share, self.seed, self.ignored = -(-total // images), seed, ignored
        self.places: dict[str, Tensor] = {}

    def wrong(self, truth: Any, labels: Tensor) -> Tensor:
        """Return on which of an image's pixels the labels `(1, H, W)` are wrong, booleans on the CPU."""
        expected = truth.gt_sem_seg.data.flatten()
        path = truth.img_path
        if path not in self.places:
            valid = (expected != self.ignored).nonzero().flatten().cpu()
            rng = generator(self.seed, "pixels", os.path.basename(path))
            self.places[path] = valid[torch.randperm(len(valid), generator=rng)[: self.share]].to(expected.device)
        places = self.places[path]
        return (labels.flatten()[places] != expected[places]).cpu()


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


def measure(config: Config, name: str, split: Split, pixels: int, seed: int) -> MeasuredSplit:
    """Return a split with the metric of the config and the pixels of its signatures."""
    check_positive("task", signature_pixels=pixels)
    settings = {"ignore_index": 255, **evaluator_settings(config, "IoUMetric", ("ignore_index",))}
    if split.dataset.ignore_index != settings["ignore_index"]:
        raise PdiffError(
            f"task.model.config: the data set of {name} ignores the label {split.dataset.ignore_index}, but its "
            f"IoUMetric the label {settings['ignore_index']}. Give both the same ignore_index."
        )
    metric = CandidateMetric(split.dataset.metainfo["classes"], **settings)
    return MeasuredSplit(split, metric, Pixels(pixels, len(split.dataset), seed, settings["ignore_index"]))


def check_splits(splits: Mapping[str, Split]) -> None:
    """Raise a `PdiffError` for the first label map that is missing, of another size than its image, or has a label
    that is none of the classes."""
    datasets = [split.dataset for split in splits.values()]
    with progress("check labels", sum(map(len, datasets))) as advance:
        for dataset in datasets:
            for index in range(len(dataset)):
                check_label_map(dataset, dataset.get_data_info(index))
                advance()


def check_label_map(dataset: Dataset, info: Mapping[str, Any]) -> None:
    """Check the label map of one image."""
    path = info["seg_map_path"]
    if not os.path.exists(path):
        line = f"task.data: the image {info['img_path']} has no label map, expected {path}."
        raise PdiffError(f"{line} Check data_prefix and seg_map_suffix.")
    labels = mmcv.imread(path, flag="unchanged", backend="pillow").astype(np.int64)
    with Image.open(info["img_path"]) as image:
        size = image.size[::-1]
    if labels.shape != size:
        raise PdiffError(f"task.data: {path} has the size {labels.shape}, expected {size}, that of its image. Mend it.")
    present = np.unique(labels)
    found = present.copy()
    for old, new in (info["label_map"] or {}).items():
        found[present == old] = new
    if info["reduce_zero_label"]:
        found = np.where((found == 0) | (found == 255), 255, found - 1)
    count = len(dataset.metainfo["classes"])
    alien = found[(found >= count) & (found != dataset.ignore_index) & (found != 255)]
    if len(alien):
        raise PdiffError(
            f"task.data: {path} has the label {alien[0]}, expected 0 to {count - 1} or {dataset.ignore_index}, "
            "which is ignored. Mend it, or set classes, ignore_index and reduce_zero_label in task.model.config."
        )
