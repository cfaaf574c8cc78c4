"""Semantic segmentation: parts of any mmseg segmentor, on digit scenes or on the data of a user's own config."""

from functools import partial

from pdiff import Evaluation, Metric, Task, hookimpl
from pdiff.registry import call
from pdiff.seeding import resolve_device

REQUIRES = ("mmseg", "mmcv")
HEADS = ("decode_head",)


@hookimpl
def build(cfg):
    """Build segmentor and data from `cfg.task` (`model`, `data`, `signature_pixels`, `check_labels`)."""
    from pdiff_plugins.openmmlab.libraries import MMSEG

    MMSEG.load()
    return call(segmentation_task, cfg.task, "task", seed=cfg.seed, device=resolve_device(cfg.device))


def segmentation_task(
    seed, device, model: dict, data: dict, signature_pixels: int = 20_000, check_labels: bool = True
) -> Task:
    """Return the segmentation task; primary metric: mIoU, a fraction.

    Args:
        seed: of initial weights, of every choice of images, and of the signature's pixels.
        device: of the segmentor.
        model: settings of `open_config`.
        data: settings of `build_splits`.
        signature_pixels: how many pixels of a split the signature looks at (`Pixels`).
        check_labels: read every label map once before anything is computed.
    """
    from pdiff_plugins.openmmlab.libraries import MMSEG
    from pdiff_plugins.openmmlab.task import build_task
    from pdiff_plugins.segmentation.data import check_head, check_splits, measure

    from pdiff.novelty import error_iou

    measured = partial(measure, pixels=signature_pixels, seed=seed)
    check = check_splits if check_labels else None
    task = build_task(MMSEG, seed, device, model, data, Metric("mIoU"), HEADS, measured, error_iou, check)
    check_head(task.model, task.splits["train"].dataset)
    return task


@hookimpl
def collect(task, names, cfg, state, folder):
    """Train with mmengine's Runner, freeze everything but the selection, fine-tune it (`cfg.collect`)."""
    from pdiff_plugins.openmmlab.collection import snapshots
    from pdiff_plugins.openmmlab.libraries import MMSEG

    given = {"task": task, "names": names, "seed": cfg.seed, "device": resolve_device(cfg.device)}
    return call(snapshots, cfg.collect, "collect", library=MMSEG, state=state, folder=folder, **given)


@hookimpl
def plan(task, names, cfg):
    """Say how many steps the collection has, and do some of them."""
    from pdiff_plugins.openmmlab.libraries import MMSEG
    from pdiff_plugins.openmmlab.plan import collection_work

    given = {"task": task, "names": names, "seed": cfg.seed, "device": resolve_device(cfg.device)}
    return call(collection_work, cfg.collect, "collect", library=MMSEG, **given)


@hookimpl
def evaluate(task, candidates, split):
    """Measure the mIoU of each candidate; its signature is which of a fixed set of pixels it gets wrong."""
    import torch
    from pdiff_plugins.openmmlab.prediction import predictions

    data = task.splits[split]
    metrics = [data.metric.another() for _ in candidates]
    wrong = [[] for _ in candidates]
    title = f"evaluate on {split}"
    for index, truths, found in predictions(task.model, data.split, candidates, title, read_labels):
        for truth, labels in zip(truths, found, strict=True):
            expected = {"data": truth.gt_sem_seg.data}
            metrics[index].process({}, [{"pred_sem_seg": {"data": labels}, "gt_sem_seg": expected}])
            wrong[index].append(data.pixels.wrong(truth, labels))
    for metric, errors in zip(metrics, wrong, strict=True):
        figures = metric.compute_metrics(metric.results)
        yield Evaluation(figures.pop("mIoU"), torch.cat(errors), details=figures)


def read_labels(samples):
    """Return the predicted classes of every pixel of a batch, `(1, H, W)` for each image."""
    return [sample.pred_sem_seg.data for sample in samples]
