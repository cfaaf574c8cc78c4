"""Semantic segmentation: parts of any mmseg segmentor, on digit scenes or on the data of a user's own config."""

from dataclasses import replace
from functools import partial

from pdiff_plugins.openmmlab.plugin import collection_hooks, looks_at_training_data

from pdiff import Candidates, Metric, Task, call, hookimpl, resolve_device

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
def evaluate(task, candidates, split, ensembles):
    """Measure the mIoU of each candidate; its signature is which of a fixed set of pixels it gets wrong.

    Then that of each ensemble: of the average of its members' class probabilities; all are for one condition, or none.
    Candidates and members are run side by side on each batch.

    Under conditions other classes are as good as background, predicted or true, and mIoU is that of the condition's
    classes; or the images are those of the condition, pixels of others are no errors, and there are no scores, since
    the images differ.
    """
    from pdiff_plugins.openmmlab.scopes import predictions_within, scopes
    from pdiff_plugins.openmmlab.task import measured_split
    from pdiff_plugins.segmentation.data import Comparison, Vote, read

    data, title = measured_split(task, split), f"evaluate on {split}"
    own = scopes(data.split, candidates) + [scopes(data.split, members)[0] for members in ensembles]
    sizes = [1] * len(candidates) + [len(members) for members in ensembles]
    owners = [number for number, size in enumerate(sizes) for _ in range(size)]
    votes = {len(candidates) + number: Vote(task.model, len(members)) for number, members in enumerate(ensembles)}
    comparison = Comparison(task.model, data, own)
    every, wanted = Candidates.joined([candidates, *ensembles]), [own[number] for number in owners]
    predicted = predictions_within(task.model, data.split, every, wanted, title, read)
    for index, truths, (labels, logits, finite) in predicted:
        number = owners[index]
        if number not in votes:
            comparison.add(number, truths, labels, finite)
        elif (found := votes[number].add(logits, finite)) is not None:
            comparison.add(number, truths, *found)
    yield from comparison.evaluations(task.metric)


@hookimpl
def inputs(task, split):
    """Yield the images of each batch as the network takes them, for a pass up to what its head gives."""
    from pdiff_plugins.openmmlab.prediction import raw_batches
    from pdiff_plugins.openmmlab.task import measured_split

    return raw_batches(task.model, measured_split(task, split).split)
