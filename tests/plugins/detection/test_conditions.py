"""AP of each candidate under a condition of its own: of some classes alone, or on some images alone."""

import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pdiff import PdiffError

pytest.importorskip("mmdet")

NAMES = [f"classes.{digit}" for digit in range(10)]
SUBSETS = [(0, 1, 2, 3), (3, 7), (4, 5, 6, 8, 9), tuple(range(10))]
IMAGES = {0: [0, 2, 3], 1: [1, 4, 5, 6, 7]}


def bits(subsets) -> list[list[int]]:
    """Return sets of classes as rows of 0 and 1."""
    return [[int(label in labels) for label in range(10)] for labels in subsets]


@pytest.fixture
def candidates(detector):
    """Return four candidates, made before another is put into the network."""
    return detector.candidates()


@pytest.fixture
def evaluate(detector, candidates, under, wanting):
    """Return a function that evaluates candidates for classes, or for images."""

    def evaluations(subsets=None, images=None, order=slice(None), split="test"):
        names, values = (NAMES, bits(subsets)) if images is None else (["light"], [[number] for number in images])
        task = under(detector.task, names, rows=None if images is None else IMAGES)
        return detector.evaluate(wanting(candidates, names, values).take(order), split, task)

    return evaluations


@pytest.fixture
def plain(detector, candidates):
    """Return what candidates reach without conditions."""
    return detector.evaluate(candidates)


def precisions(detector, candidates, labels, rows) -> list[float]:
    """Return COCO's AP of candidates, its categories and images set by hand."""
    from faster_coco_eval import COCO, COCOeval_faster

    data, model, results = detector.task.splits["test"], detector.task.model, []
    dataset = data.split.dataset
    chosen = [dataset.cat_ids[label] for label in labels]
    ids = [dataset.get_data_info(row)["img_id"] for row in rows]
    for index in range(len(candidates)):
        candidates.load(model, index)
        found = []
        for batch in data.split.batches():
            with torch.no_grad():
                samples = model.eval().test_step(batch)
            for sample in samples:
                own = sample.pred_instances
                for box, score, label in zip(own.bboxes.double(), own.scores, own.labels, strict=True):
                    corner, size = box[:2].tolist(), (box[2:] - box[:2]).tolist()
                    row = {"image_id": sample.img_id, "category_id": dataset.cat_ids[label], "bbox": [*corner, *size]}
                    found.append({**row, "score": float(score)})
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(dataset.ann_file)
            evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox", print_function=lambda *_: None)
            evaluation.params.catIds, evaluation.params.imgIds = chosen, ids
            evaluation.evaluate()
            evaluation.accumulate()
        precision = evaluation.eval["precision"][..., 0, -1]
        results.append(float(precision[precision > -1].mean()))
    return results


def test_precision_of_a_subset_is_that_of_coco_for_its_categories(detector, candidates, evaluate):
    found = evaluate(SUBSETS)
    expected = [
        precisions(detector, candidates.take([number]), labels, range(8))[0] for number, labels in enumerate(SUBSETS)
    ]
    assert [evaluation.metric for evaluation in found] == pytest.approx(expected, abs=1e-9)
    assert max(expected) > 0
    for evaluation, labels in zip(found, SUBSETS, strict=True):
        classes = {name for name in evaluation.details if "/" in name}
        assert classes <= {f"AP/{label}" for label in labels}
        figures = [evaluation.details[name] for name in classes]
        assert np.mean(figures) == pytest.approx(evaluation.metric), "each threshold has all of these classes"


def test_precision_on_some_images_is_that_of_coco_for_these(detector, candidates, evaluate):
    found = evaluate(images=[0, 1, 1, 0])
    expected = [
        precisions(detector, candidates.take([number]), range(10), IMAGES[image])[0]
        for number, image in enumerate([0, 1, 1, 0])
    ]
    assert [evaluation.metric for evaluation in found] == pytest.approx(expected, abs=1e-9)
    assert {evaluation.scores for evaluation in found} == {None}
    assert {evaluation.condition for evaluation in found} == {None}


def test_all_classes_are_measured_as_without_conditions(evaluate, plain):
    for found, expected in zip(evaluate([range(10)] * 4), plain, strict=True):
        assert (found.metric, found.details) == (expected.metric, expected.details)
        assert torch.equal(found.signature, expected.signature)
        if found.scores is not None:
            assert torch.equal(found.scores, expected.scores)


def test_errors_on_other_classes_are_no_errors_of_the_subset(detector, evaluate, plain):
    truths = detector.task.splits["test"].truths
    labels = torch.cat([truth["labels"][~truth["ignored"]] for truth in truths])
    for found, expected, subset in zip(evaluate(SUBSETS), plain, SUBSETS, strict=True):
        counts = torch.isin(torch.cat([labels, torch.arange(10).repeat(8)]), torch.tensor(subset))
        assert torch.equal(found.signature, expected.signature * counts)


def test_errors_in_other_images_are_no_errors(detector, evaluate, plain):
    truths = detector.task.splits["test"].truths
    objects = [row for row, truth in enumerate(truths) for _ in range(int((~truth["ignored"]).sum()))]
    rows = torch.tensor(objects + [row for row in range(8) for _ in range(10)])
    for found, expected, image in zip(evaluate(images=[0, 1, 1, 0]), plain, [0, 1, 1, 0], strict=True):
        assert torch.equal(found.signature, expected.signature * torch.isin(rows, torch.tensor(IMAGES[image])))


def test_condition_that_is_obeyed_is_the_share_of_each_classes_objects_that_are_found(detector, evaluate, plain):
    truths = detector.task.splits["test"].truths
    labels = torch.cat([truth["labels"][~truth["ignored"]] for truth in truths])
    for found, expected in zip(evaluate(SUBSETS), plain, strict=True):
        hit = expected.signature[: len(labels)] == 0
        shares = {f"classes.{c}": hit[labels == c].float().mean().item() for c in labels.unique().tolist()}
        assert found.condition == pytest.approx(shares)


@pytest.mark.parametrize("given", [{"subsets": SUBSETS}, {"images": [0, 1, 1, 0]}])
def test_neither_the_order_nor_the_company_of_candidates_matters(detector, evaluate, given):
    together = evaluate(**given)
    detector.assert_same(evaluate(**given, order=[3, 1, 0, 2]), [together[number] for number in (3, 1, 0, 2)])
    detector.assert_same(together, [evaluate(**given, order=[number])[0] for number in range(4)])


def test_candidates_for_the_same_images_share_their_batches(detector, evaluate, calls):
    computed = calls(detector.task.model.backbone.conv1)
    evaluate(images=[0, 1, 1, 0])
    assert len(computed) == 1 + 2, "three images are a batch of four, and five are two"


def test_training_images_are_measured_under_conditions_too(detector, evaluate):
    truths = detector.task.splits["seen"].truths
    shape = (sum(int((~truth["ignored"]).sum()) for truth in truths) + 10 * len(truths),)
    assert [evaluation.signature.shape for evaluation in evaluate(SUBSETS, split="train")] == [shape] * 4


def metric_of(classes: list[list[int]], tmp_path):
    """Return the metric on images with these classes of objects."""
    from pdiff_plugins.detection.coco import CandidateMetric

    rows = [(image, label) for image, labels in enumerate(classes) for label in labels]
    content = {
        "images": [{"id": image} for image in range(len(classes))],
        "categories": [{"id": label, "name": str(label)} for label in range(3)],
        "annotations": [
            {"id": n, "image_id": image, "category_id": label, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
            for n, (image, label) in enumerate(rows)
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    return CandidateMetric(str(tmp_path / "coco.json"), range(len(classes)), range(3))


def scores_of(metric):
    """Return the scores of an accumulator for a candidate that finds one object of the class 0."""
    for image in range(len(metric.img_ids)):
        box = {"bboxes": torch.tensor([[0.0, 0, 9, 9]]), "scores": torch.ones(1), "labels": torch.zeros(1).long()}
        metric.process({}, [{"img_id": image, "ori_shape": (9, 9), "pred_instances": box}])
    return metric.measure()[1]


@pytest.mark.parametrize(
    ("classes", "known"), [([[0, 1], [0, 1], [2], [2]], True), ([[0, 1], [0, 1], [2], []], False), ([[0], [0]], True)]
)
def test_scores_of_all_subsets_have_one_shape_or_are_none(classes, known, detector, tmp_path):
    metric = metric_of(classes, tmp_path)
    subsets = [[0], [0, 1], [0, 1, 2]]
    found = [scores_of(metric.another(labels)) for labels in subsets]
    assert [scores is not None for scores in found] == [known] * 3
    if known:
        assert {scores.shape for scores in found} == {(len(classes),)}


def test_subset_without_an_object_is_refused_with_its_names(detector, tmp_path):
    metric = metric_of([[0, 1], [0]], tmp_path)
    with pytest.raises(PdiffError, match=r"none of 2 images of a condition in .*coco.json has an object of 2. Leave"):
        metric.another([2])
    with pytest.raises(PdiffError, match="none of 1 images of a condition in .* has an object of 1"):
        metric.another([1], [1])


def test_candidates_without_conditions_are_refused(detector, under):
    task = under(detector.task, NAMES)
    with pytest.raises(PdiffError, match=r"collect.conditions: got candidates without them, expected classes.0, cl"):
        detector.evaluate(detector.candidates(), task=task)


def test_candidates_for_something_else_are_refused(detector, under, wanting):
    task = under(detector.task, NAMES)
    candidates = wanting(detector.candidates(), ["angle"], [[1.0]] * 4)
    with pytest.raises(PdiffError, match=r"got candidates for angle, expected classes.0, .*Name these"):
        detector.evaluate(candidates, task=task)


def test_condition_of_no_image_is_refused(detector, under, wanting):
    task = under(detector.task, ["light"], rows={2: []})
    with pytest.raises(PdiffError, match="no image of a split is for light=2. Give such images"):
        detector.evaluate(wanting(detector.candidates(), ["light"], [[2]] * 4), task=task)


def test_exported_detector_sees_the_classes_of_its_condition_alone_in_mmdet(detector, candidates, under, tmp_path):
    from mmdet.apis import inference_detector, init_detector
    from pdiff_plugins.openmmlab.narrowing import narrowing

    task = under(detector.task, NAMES)
    candidates.load(task.model, 1)
    narrowing(task)(task.model, {name: float(label in (3, 7)) for label, name in enumerate(NAMES)})
    task.export(task.model, tmp_path / "detector.pth")
    model = init_detector(str(tmp_path / "detector.py"), str(tmp_path / "detector.pth"), device="cpu")
    dataset = task.splits["test"].split.dataset
    for index in range(3):
        found = inference_detector(model, dataset.get_data_info(index)["img_path"]).pred_instances
        assert set(found.labels.tolist()) == {3, 7}


def test_condition_whose_images_have_no_object_is_refused_before_anything_is_trained(detector, under):
    from pdiff_plugins.detection.data import check_conditions

    task = under(detector.task, ["light"], rows={1: [0, 1]})
    check_conditions(task)
    metric = task.splits["select"].metric.another()
    metric.objects = np.zeros_like(metric.objects)
    bare = replace(task, splits={**task.splits, "select": replace(task.splits["select"], metric=metric)})
    with pytest.raises(PdiffError, match="none of 2 images of a condition in .* has an object"):
        check_conditions(bare)
