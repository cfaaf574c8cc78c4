"""Object detection: parts of any mmdet detector, on digit scenes or on the data of a user's own config."""

from dataclasses import replace
from functools import partial

from pdiff_plugins.openmmlab.plugin import collection_hooks, looks_at_training_data

from pdiff import Metric, PdiffError, Task, call, hookimpl, resolve_device

REQUIRES = ("mmdet", "mmcv", "faster_coco_eval")
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
    from pdiff_plugins.detection.data import Record, read_detections
    from pdiff_plugins.openmmlab.delivery import Delivery
    from pdiff_plugins.openmmlab.prediction import watch_outputs
    from pdiff_plugins.openmmlab.scopes import predictions_within, scopes
    from pdiff_plugins.openmmlab.task import measured_split

    data = measured_split(task, split)
    wanted = scopes(data.split, candidates)
    records = [Record(data, scope) for scope in wanted]
    delivery = Delivery(lambda owner, *found: records[owner[0]].add(*owner[1:], *found))
    title, modules = f"evaluate on {split}", dict(task.model.named_modules())
    with watch_outputs([modules[name] for name in (*task.head, *PROPOSALS) if name in modules]) as finite:

        def read(samples):
            return *read_detections(samples), finite()

        predicted = predictions_within(task.model, data.split, candidates, wanted, title, read)
        for index, truths, (sizes, *found) in predicted:
            delivery.send((index, [truth.metainfo for truth in truths], sizes), *found)
    delivery.flush()
    for record in records:
        yield record.evaluation(task.metric)


@hookimpl
def inputs(task, split):
    """Yield the images of each batch as the network takes them, for a pass up to what its head gives."""
    from mmdet.models import SingleStageDetector
    from pdiff_plugins.openmmlab.prediction import raw_batches
    from pdiff_plugins.openmmlab.task import measured_split

    stages = not isinstance(task.model, SingleStageDetector)
    return raw_batches(task.model, measured_split(task, split).split, stages)
