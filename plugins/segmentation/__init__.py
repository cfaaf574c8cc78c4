"""Semantic segmentation: parts of any mmseg segmentor, on digit scenes or on the data of a user's own config."""

from dataclasses import replace
from functools import partial

from pdiff_plugins.openmmlab.plugin import collection_hooks, looks_at_training_data

from pdiff import Metric, Task, call, hookimpl, resolve_device

REQUIRES = ("mmseg", "mmcv")
HEADS = ("decode_head",)


@hookimpl
def build(cfg):
    """Build segmentor and data from `cfg.task` (`model`, `data`, `signature_pixels`, `check_labels`)."""
    from pdiff_plugins.openmmlab.libraries import MMSEG

    MMSEG.load()
    given = {"seed": cfg.seed, "device": resolve_device(cfg.device), "seen": looks_at_training_data(cfg)}
    given["conditions"] = cfg.collect.get("conditions")
    return call(segmentation_task, cfg.task, "task", **given)


def segmentation_task(
    seed,
    device,
    model: dict,
    data: dict,
    signature_pixels: int = 20_000,
    check_labels: bool = True,
    seen: bool = True,
    conditions: dict | None = None,
) -> Task:
    """Return the segmentation task; primary metric: mIoU, a fraction.

    Args:
        seed: of initial weights, of every choice of images, and of the signature's pixels.
        device: of the segmentor.
        model: the library's config and what differs from it.
        data: the images of each split.
        signature_pixels: how many pixels of a split the signature looks at.
        check_labels: read the label maps, 5,000 of a larger split, once before anything is computed; without it,
            chance is not known.
        seen: measure candidates on training images, too.
        conditions: the kind of condition that networks are made for.
    """
    from pdiff_plugins.openmmlab.libraries import MMSEG
    from pdiff_plugins.openmmlab.narrowing import narrowing
    from pdiff_plugins.openmmlab.task import build_task
    from pdiff_plugins.segmentation.data import check_head, measure
    from pdiff_plugins.segmentation.labels import chance, check_splits

    from pdiff import error_iou

    measured = partial(measure, pixels=signature_pixels, seed=seed)

    def metric(splits):
        pixels = check_splits(splits) if check_labels else None
        return Metric("mIoU", chance=chance(pixels["test"]) if pixels else None, best=1.0), pixels

    given = {"seen": seen, "conditions": conditions}
    task = build_task(MMSEG, seed, device, model, data, metric, HEADS, measured, error_iou, **given)
    check_head(task.model, task.splits["train"].dataset)
    return replace(task, for_condition=narrowing(task))


collect, branches, finetune, losses = collection_hooks("mmseg")


@hookimpl
def evaluate(task, candidates, split):
    """Measure the mIoU of each candidate; its signature is which of a fixed set of pixels it gets wrong.

    Under conditions other classes are as good as background, predicted or true, and mIoU is that of the condition's
    classes; or the images are those of the condition, pixels of others are no errors, and there are no scores, since
    the images differ.
    """
    from pdiff_plugins.openmmlab.scopes import predictions_within, scopes
    from pdiff_plugins.openmmlab.task import measured_split
    from pdiff_plugins.segmentation.data import Record, read_labels

    data = measured_split(task, split)
    wanted, title = scopes(data.split, candidates), f"evaluate on {split}"
    records = [Record(data, scope) for scope in wanted]
    predicted = predictions_within(task.model, data.split, candidates, wanted, title, read_labels)
    for index, truths, (found, finite) in predicted:
        records[index].add(truths, found, finite)
    for record in records:
        yield record.evaluation(task.metric)


@hookimpl
def ensemble(task, candidates, split):
    """Measure the mIoU of the average of the candidates' class probabilities; all are for one condition, or none."""
    from pdiff_plugins.openmmlab.scopes import predictions_within, scopes
    from pdiff_plugins.openmmlab.task import measured_split
    from pdiff_plugins.segmentation.data import Record, labels_of, read_probabilities

    data = measured_split(task, split)
    wanted, title = scopes(data.split, candidates), f"ensemble on {split}"
    record, together, sound = Record(data, wanted[0]), [], True
    predicted = predictions_within(task.model, data.split, candidates, wanted, title, read_probabilities)
    for index, truths, (found, finite) in predicted:
        together = found if index == 0 else [a + b for a, b in zip(together, found, strict=True)]
        sound &= finite  # one dead member is enough: its part of the average is NaN
        if index + 1 == len(candidates):
            record.add(truths, [labels_of(task.model, total / len(candidates)) for total in together], sound)
    return record.evaluation(task.metric)


@hookimpl
def inputs(task, split):
    """Yield the images of each batch as the network takes them, for a pass up to what its head gives."""
    from pdiff_plugins.openmmlab.prediction import raw_batches
    from pdiff_plugins.openmmlab.task import measured_split

    return raw_batches(task.model, measured_split(task, split).split)
