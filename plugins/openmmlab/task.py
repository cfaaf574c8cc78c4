"""A task from a config of mmdet or mmseg."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from pdiff_plugins.openmmlab.checkpoint import export_checkpoint
from pdiff_plugins.openmmlab.conditions import build_kind
from pdiff_plugins.openmmlab.data import Split, build_splits
from pdiff_plugins.openmmlab.libraries import Library, build_network, open_config
from pdiff_plugins.openmmlab.prediction import check_prediction
from torch import Tensor
from torch.utils.data import Dataset

from pdiff import Metric, Task, call


def build_task(
    library: Library,
    seed: int,
    device: torch.device,
    model: dict,
    data: dict,
    metric: Callable[[Mapping[str, Split]], tuple[Metric, Mapping[str, Sequence[int]] | None]],
    heads: Sequence[str],
    measure: Callable[[Config, str, Split], Any],
    similarity: Callable[[Tensor, Tensor], Tensor],
    seen: bool = True,
    check: Callable[[Dataset, str], None] | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> Task:
    """Return a task whose network holds the library's config as `cfg` and the names of the classes as `dataset_meta`.

    Args:
        library: mmdet or mmseg.
        seed: of initial weights and of every choice of images.
        device: of the network.
        model: settings of `open_config`.
        data: settings of `build_splits`.
        metric: from the splits to the primary metric and, of label maps that were read, how many pixels of each class a
            split has; raises a `PdiffError` for splits with unsound annotations.
        heads: names that the head may have; the first that the network has is its head.
        measure: from the config, the name of a split and the split to what `evaluate` works with.
        similarity: of two stacks of signatures.
        seen: add the split `seen`, training images as the test sees them.
        check: looks at each data set before it is read.
        conditions: settings of the kind of condition that networks are made for, which each split then has; None: all
            are for the same.
    """
    config = call(open_config, model, "task.model", library=library)
    given = {"library": library, "config": config, "seed": seed, "seen": seen, "check": check}
    given["conditional"] = conditions is not None
    splits = call(build_splits, data, "task.data", **given)
    primary, counts = metric(splits)
    kind = build_kind(conditions, seed) if conditions is not None else None
    if kind is not None:
        kind.bind({name: split.dataset for name, split in splits.items()}, counts)
        splits = {name: dataclasses.replace(split, kind=kind) for name, split in splits.items()}
        if kind.background is not None:  # one that calls every pixel so finds no class of a set
            primary = dataclasses.replace(primary, chance=0.0)
    on_gpu = device.type == "cuda" and torch.accelerator.is_available()
    if on_gpu:
        splits = {name: split.pinned() for name, split in splits.items()}
    measured = {name: measure(config, name, split) for name, split in splits.items() if name != "train"}
    reading = {name: model[name] for name in ("key", "prefix", "rename", "cast") if name in model}
    network = build_network(library, config, seed, model.get("checkpoint"), model.get("channels_last", False), reading)
    if on_gpu and isinstance(network.data_preprocessor, BaseDataPreprocessor):
        network.data_preprocessor._non_blocking = True
    network.to(device).dataset_meta = dict(splits["train"].dataset.metainfo)
    check_prediction(network, splits["test"])
    head = [name for name in heads if name in dict(network.named_modules())][:1]
    seen_before = model.get("checkpoint") and (data.get("select") or {}).get("source") == "train"
    facts = {"select": "training images, which the checkpoint has seen"} if seen_before else {}
    facts |= kind.facts() if kind is not None else {}
    task = Task(network, {"train": splits["train"], **measured}, primary, head, similarity, export_checkpoint, facts)
    return task if kind is None else dataclasses.replace(task, conditions=kind.table)


def measured_split(task: Task, split: str) -> Any:
    """Return what predictions on a split are measured against; for `train`, on some of the training images."""
    return task.splits["seen" if split == "train" else split]
