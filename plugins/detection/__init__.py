"""Object detection: parts of any mmdet detector, on digit scenes or on the data of a user's own config."""

from dataclasses import replace
from functools import partial

from pdiff_plugins.openmmlab.plugin import collection_hooks, looks_at_training_data

from pdiff import Evaluation, Metric, PdiffError, Task, call, hookimpl, resolve_device

REQUIRES = ("mmdet", "mmcv", "faster_coco_eval")
DETECTIONS = ("bboxes", "scores", "labels")
# Of two-stage detectors, of one-stage detectors, of those that find objects by their masks.
HEADS = ("roi_head.bbox_head", "bbox_head", "panoptic_head", "mask_head")
PROPOSALS = ("rpn_head",)  # without a proposal, the head of a second stage is not asked


@hookimpl
def build(cfg):
    """Build detector and data from `cfg.task` (`model`, `data`, `score_threshold`)."""
    from pdiff_plugins.openmmlab.libraries import MMDET

    MMDET.load()
    given = {"seed": cfg.seed, "device": resolve_device(cfg.device), "seen": looks_at_training_data(cfg)}
    given["validated"] = bool((cfg.collect.get("train") or {}).get("validate"))
    given["conditions"] = cfg.collect.get("conditions")
    return call(detection_task, cfg.task, "task", **given)


def detection_task(
    seed,
    device,
    model: dict,
    data: dict,
    score_threshold: float = 0.3,
    seen: bool = True,
    validated: bool = False,
    conditions: dict | None = None,
) -> Task:
    """Return the detection task; primary metric: COCO's AP, a fraction.

    Args:
        seed: of initial weights and of every choice of images.
        device: of the detector.
        model: the library's config and what differs from it.
        data: the images of each split.
        score_threshold: from which on a detection counts in the signature, 0 to 1.
        seen: measure candidates on training images, too.
        validated: whether mmdet's own validation runs during the training.
        conditions: the kind of condition that networks are made for.
    """
    if not 0 <= score_threshold <= 1:
        raise PdiffError(f"task.score_threshold: got {score_threshold}, expected a number from 0 to 1.")
    from pdiff_plugins.detection.check import AnnotationCheck
    from pdiff_plugins.detection.data import check_classes, check_conditions, measure
    from pdiff_plugins.detection.errors import shared_errors
    from pdiff_plugins.detection.regions import keep_regions_exact
    from pdiff_plugins.openmmlab.libraries import MMDET
    from pdiff_plugins.openmmlab.narrowing import narrowing
    from pdiff_plugins.openmmlab.task import build_task

    measured = partial(measure, threshold=score_threshold)
    metric = Metric("AP", chance=0.0, best=1.0), None
    given = {"seen": seen, "check": AnnotationCheck(validated), "conditions": conditions}
    task = build_task(MMDET, seed, device, model, data, lambda _: metric, HEADS, measured, shared_errors, **given)
    keep_regions_exact(task.model)
    check_classes(task)
    check_conditions(task)
    return replace(task, for_condition=narrowing(task))


collect, branches, finetune, losses = collection_hooks("mmdet")


@hookimpl
def evaluate(task, candidates, split):
    """Measure COCO's AP of each candidate; its signature is which objects it misses and what it sees that is not.

    Under conditions AP is that of the condition's classes, or on its images, and errors elsewhere are zeros. The test
    units of the scores are groups of images, the same for all classes; where a class has all its objects in one group,
    and where conditions are about images, there are no scores.
    """
    from pdiff_plugins.openmmlab.prediction import watch_outputs
    from pdiff_plugins.openmmlab.scopes import predictions_within, scopes
    from pdiff_plugins.openmmlab.task import measured_split

    data = measured_split(task, split)
    wanted = scopes(data.split, candidates)
    metrics = [data.metric.another(scope.labels, scope.rows) for scope in wanted]
    errors = [data.errors() for _ in wanted]
    alive = [True for _ in wanted]
    title, modules = f"evaluate on {split}", dict(task.model.named_modules())
    with watch_outputs([modules[name] for name in (*task.head, *PROPOSALS) if name in modules]) as finite:

        def read(samples):
            return read_detections(samples), finite()

        found = predictions_within(task.model, data.split, candidates, wanted, title, read)
        for index, truths, (detections, sound) in found:
            alive[index] &= sound
            for truth, *own in zip(truths, *detections, strict=True):
                named = dict(zip(DETECTIONS, own, strict=True))
                metrics[index].process({}, [{**truth.metainfo, "pred_instances": named}])
                errors[index].add(data.images[truth.img_id], *own)
    for scope, metric, wrong, lives in zip(wanted, metrics, errors, alive, strict=True):
        figures, scores = metric.measure()
        average, signature = figures.pop("AP"), wrong.signature(scope.labels, scope.rows)
        if not lives:
            average, figures = task.metric.worst, {}
        yield Evaluation(average, signature, scores, figures, data.obeyed(scope, wrong))


def read_detections(samples):
    """Return the boxes, the scores and the labels of a batch on the CPU, for each a tuple with a tensor per image."""
    import torch

    sizes = [len(sample.pred_instances) for sample in samples]
    found = [torch.cat([sample.pred_instances[key] for sample in samples]).cpu() for key in DETECTIONS]
    return [tensor.split(sizes) for tensor in found]


@hookimpl
def inputs(task, split):
    """Yield the images of each batch as the network takes them, for a pass up to what its head gives."""
    from mmdet.models import SingleStageDetector
    from pdiff_plugins.openmmlab.prediction import raw_batches
    from pdiff_plugins.openmmlab.task import measured_split

    stages = not isinstance(task.model, SingleStageDetector)
    return raw_batches(task.model, measured_split(task, split).split, stages)
