"""Decoded images and label maps, kept in memory: a file is decoded once, and not again for every network.

A process keeps what it decodes itself: with data workers each worker its own, until it ends.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from pdiff_plugins.openmmlab.wrapped import inside
from torch.utils.data import Dataset

from pdiff import PdiffError

MIB = 2**20
USUAL = 2048  # MiB, where many networks see the same images


class Memory:
    """Arrays, until a budget is spent; what comes later is not kept.

    Args:
        budget: in bytes, for all data sets together.
    """

    def __init__(self, budget: int):
        self.left = budget
        self.arrays: dict[tuple, np.ndarray] = {}

    def take(self, key: tuple) -> np.ndarray | None:
        """Return a copy, which later steps may write into; None: it is not kept."""
        kept = self.arrays.get(key)
        return None if kept is None else kept.copy()

    def put(self, key: tuple, array: np.ndarray) -> None:
        """Keep a copy, if there is room."""
        if array.nbytes <= self.left:
            self.left -= array.nbytes
            self.arrays[key] = array.copy()


class KeptImage:
    """A step of a pipeline that loads an image, done once for each file.

    Args:
        step: mmcv's LoadImageFromFile.
        memory: shared by the data sets.
    """

    def __init__(self, step: Any, memory: Memory):
        self.step, self.memory = step, memory

    def __call__(self, results: dict) -> dict | None:
        """Add the image of a sample, and its shape."""
        key = (repr(self.step), results["img_path"])
        image = self.memory.take(key)
        if image is None:
            results = self.step(results)
            if results is not None:
                self.memory.put(key, results["img"])
            return results
        return results | {"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}


class KeptLabels:
    """A step of a pipeline that loads a label map, done once for each file.

    Args:
        step: mmseg's LoadAnnotations.
        memory: shared by the data sets.
    """

    def __init__(self, step: Any, memory: Memory):
        self.step, self.memory = step, memory

    def __call__(self, results: dict) -> dict:
        """Add the label map of a sample."""
        asked = (self.step.imdecode_backend, results["reduce_zero_label"], str(results.get("label_map")))
        key = (*asked, results["seg_map_path"])
        labels = self.memory.take(key)
        if labels is None:
            results = self.step(results)
            self.memory.put(key, results["gt_seg_map"])
            return results
        return results | {"gt_seg_map": labels, "seg_fields": [*results["seg_fields"], "gt_seg_map"]}


KEPT = {  # by class, and none that derives from one, as it may do anything
    "mmcv.transforms.loading.LoadImageFromFile": KeptImage,
    "mmseg.datasets.transforms.loading.LoadAnnotations": KeptLabels,
}


def keep_decoded(datasets: Iterable[Dataset], memory: int | None, conditional: bool) -> None:
    """Let the pipelines of data sets decode each file once, as long as there is room.

    Args:
        datasets: whose pipelines are changed; what they give is not.
        memory: MiB for all data sets together, 0 for none; None: `USUAL` in a run with conditions, else none.
        conditional: whether the run has conditions.
    """
    budget = (USUAL if conditional else 0) if memory is None else memory
    if budget < 0:
        raise PdiffError(f"task.data.memory: got {budget}, expected MiB, 0 to keep no image. Change it.")
    if budget == 0:
        return
    shared = Memory(budget * MIB)
    for plain in [plain for dataset in datasets for plain in inside(dataset) if isinstance(plain, BaseDataset)]:
        steps = plain.pipeline.transforms
        for place, step in enumerate(steps):
            kind = KEPT.get(f"{type(step).__module__}.{type(step).__qualname__}")
            if kind is not None:
                steps[place] = kind(step, shared)
