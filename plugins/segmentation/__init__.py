"""Semantic segmentation: parts of any mmseg segmentor, on digit scenes or on the data of a user's own config."""

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
    return task


collect, branches, finetune = collection_hooks("mmseg")


@hookimpl
def evaluate(task, candidates, split):
    """Measure the mIoU of each candidate; its signature is which of a fixed set of pixels it gets wrong."""
    from pdiff_plugins.openmmlab.prediction import predictions
    from pdiff_plugins.openmmlab.task import measured_split
    from pdiff_plugins.segmentation.data import Record, read_labels

    data = measured_split(task, split)
    records = [Record(data) for _ in candidates]
    title = f"evaluate on {split}"
    for index, truths, (found, finite) in predictions(task.model, data.split, candidates, title, read_labels):
        records[index].add(truths, found, finite)
    for record in records:
        yield record.evaluation(task.metric)


@hookimpl
def ensemble(task, candidates, split):
    """Measure the mIoU of the average of the candidates' class probabilities."""
    from pdiff_plugins.openmmlab.prediction import predictions
    from pdiff_plugins.openmmlab.task import measured_split
    from pdiff_plugins.segmentation.data import Record, labels_of, read_probabilities

    data = measured_split(task, split)
    record = Record(data)
    title, together, sound = f"ensemble on {split}", [], True
    for index, truths, (found, finite) in predictions(task.model, data.split, candidates, title, read_probabilities):
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
