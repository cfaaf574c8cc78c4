"""mIoU of each candidate under a condition of its own: of some classes alone, or on some images alone."""

from types import SimpleNamespace

import pytest
import torch

from pdiff import PdiffError

pytest.importorskip("mmseg")

NAMES = [f"classes.{digit}" for digit in range(10)]
SUBSETS = [(0, 1, 2), (0, 3, 7), tuple(range(10)), (4, 5, 6, 8, 9)]  # digits; the label of one is one more
IMAGES = {0: [0, 3], 1: [1]}


@pytest.fixture
def candidates(segmentor):
    """Return four candidates, made before another is put into the network."""
    return segmentor.candidates()


@pytest.fixture
def conditional(segmentor, candidates, under, wanting):
    """Return a function to a task and candidates for classes, or for images."""

    def given(subsets=None, images=None):
        if images is not None:
            task = under(segmentor.task, ["light"], rows=IMAGES)
            return task, wanting(candidates, ["light"], [[number] for number in images])
        bits = [[int(label in labels) for label in range(10)] for labels in subsets]
        return under(segmentor.task, NAMES, background=0), wanting(candidates, NAMES, bits)

    return given


@pytest.fixture
def predicted(segmentor, candidates):
    """Return the predicted and the true labels `(1, H, W)` of each image, for each candidate."""
    model, pairs = segmentor.task.model, []
    for index in range(len(candidates)):
        candidates.load(model, index)
        with torch.no_grad():
            samples = [s for b in segmentor.task.splits["test"].split.batches() for s in model.eval().test_step(b)]
        pairs.append([(sample.pred_sem_seg.data, sample.gt_sem_seg.data) for sample in samples])
    return pairs


def mapped(labels: torch.Tensor, kept: set[int], ignored: int = 255) -> torch.Tensor:
    """Return labels of which those that are neither kept nor ignored are 0, one by one."""
    return torch.tensor([each if each in kept | {ignored} else 0 for each in labels.flatten().tolist()])


def iou_of(pairs, labels) -> dict[int, float]:
    """Return the IoU of classes from maps `(N,)`, by counting; of those that are there or predicted."""
    found, truth = (torch.cat([part.flatten() for part in parts]) for parts in zip(*pairs, strict=True))
    found, truth = found[truth != 255], truth[truth != 255]
    both = {label: int(((found == label) & (truth == label)).sum()) for label in labels}
    either = {label: int(((found == label) | (truth == label)).sum()) for label in labels}
    return {label: both[label] / either[label] for label in labels if either[label]}


def test_miou_is_that_of_the_subset_after_other_classes_became_background(segmentor, conditional, predicted):
    task, candidates = conditional(SUBSETS)
    for found, pairs, digits in zip(segmentor.evaluate(candidates, task=task), predicted, SUBSETS, strict=True):
        kept = {digit + 1 for digit in digits}
        iou = iou_of([(mapped(labels, kept), mapped(truth, kept)) for labels, truth in pairs], kept)
        assert {name for name in found.details if "/" in name} == {f"IoU/{label - 1}" for label in iou}
        assert found.metric == pytest.approx(sum(iou.values()) / len(iou))
        assert {f"IoU/{label - 1}": value for label, value in iou.items()}.items() <= {
            name: pytest.approx(value) for name, value in found.details.items()
        }.items()
        assert found.scores.shape == (4,)
        assert found.scores.double().mean().item() == pytest.approx(found.metric, abs=1e-6)


def test_condition_that_is_obeyed_is_the_share_of_each_classes_pixels_that_get_it(segmentor, conditional, predicted):
    task, candidates = conditional(SUBSETS)
    for found, pairs in zip(segmentor.evaluate(candidates, task=task), predicted, strict=True):
        labels, truth = (torch.cat([part.flatten() for part in parts]) for parts in zip(*pairs, strict=True))
        there = [label for label in range(1, 11) if (truth == label).any()]
        shares = {f"classes.{c - 1}": (labels[truth == c] == c).double().mean().item() for c in there}
        assert found.condition == pytest.approx(shares)


def sample(truth: list[int], path: str = "a.png") -> SimpleNamespace:
    """Return a data sample with true labels."""
    return SimpleNamespace(img_path=path, gt_sem_seg=SimpleNamespace(data=torch.tensor([[truth]])))


def test_pixels_of_other_classes_are_right_where_both_are_others_or_background(segmentor):
    from pdiff_plugins.segmentation.data import Pixels

    pixels = Pixels(100, 1, 0, 255)
    truth = sample([0, 0, 1, 1, 2, 2, 3, 3, 255])
    labels = torch.tensor([[[0, 2, 1, 2, 3, 1, 0, 2, 1]]])
    pixels.wrong(truth, labels)
    order = pixels.places["a.png"].argsort()
    others = torch.tensor([False, False, True, True, False])
    wrong = pixels.wrong(truth, labels, others, 0)[order]
    assert wrong.tolist() == [False, False, False, True, False, True, False, False]
    assert pixels.wrong(truth, labels)[order].tolist() == [False, True, False, True, True, True, True, True]


def test_signature_is_which_pixels_are_wrong_after_the_mapping(segmentor, conditional, predicted):
    task, candidates = conditional(SUBSETS)
    pixels = task.splits["test"].pixels
    paths = [task.splits["test"].split.dataset.get_data_info(image)["img_path"] for image in range(4)]
    for found, pairs, digits in zip(segmentor.evaluate(candidates, task=task), predicted, SUBSETS, strict=True):
        kept = {digit + 1 for digit in digits}
        wrong = [(mapped(labels, kept) != mapped(truth, kept)) for labels, truth in pairs]
        expected = torch.cat([row[pixels.places[path]] for row, path in zip(wrong, paths, strict=True)])
        assert torch.equal(found.signature, expected)
        assert expected.any()


def test_miou_on_some_images_is_that_of_these_and_other_images_have_no_error(segmentor, conditional, predicted):
    asked = [0, 1, 1, 0]
    task, candidates = conditional(images=asked)
    found = segmentor.evaluate(candidates, task=task)
    plain = segmentor.evaluate(candidates)
    for evaluation, whole, pairs, image in zip(found, plain, predicted, asked, strict=True):
        iou = iou_of([pairs[row] for row in IMAGES[image]], range(11))
        assert evaluation.metric == pytest.approx(sum(iou.values()) / len(iou))
        inside = torch.zeros(4, 250, dtype=torch.bool)
        inside[IMAGES[image]] = True
        assert torch.equal(evaluation.signature, whole.signature & inside.flatten())
        assert (evaluation.scores, evaluation.condition) == (None, None)


@pytest.mark.parametrize("given", [{"subsets": SUBSETS}, {"images": [0, 1, 1, 0]}])
def test_neither_the_order_nor_the_company_of_candidates_matters(segmentor, conditional, given):
    task, candidates = conditional(**given)
    together = segmentor.evaluate(candidates, task=task)
    shuffled = segmentor.evaluate(candidates.take([3, 1, 0, 2]), task=task)
    segmentor.assert_same(shuffled, [together[number] for number in (3, 1, 0, 2)])
    alone = [segmentor.evaluate(candidates.take([number]), task=task)[0] for number in range(4)]
    segmentor.assert_same(together, alone)


@pytest.mark.parametrize("given", [{"subsets": SUBSETS[:1] * 4}, {"images": [0] * 4}])
def test_an_ensemble_is_measured_under_its_condition(segmentor, conditional, given):
    task, candidates = conditional(**given)
    one, all_four = segmentor.together(candidates.take([2]), candidates, task=task)
    segmentor.assert_same([one], [segmentor.evaluate(candidates, task=task)[2]])
    assert all_four.signature.shape == (1000,)


def test_dead_candidate_is_the_worst_under_a_condition(segmentor, conditional):
    task, candidates = conditional(SUBSETS)
    candidates.vectors[1] = torch.nan
    metrics = [evaluation.metric for evaluation in segmentor.evaluate(candidates, task=task)]
    assert [metric == task.metric.worst for metric in metrics] == [False, True, False, False]


def test_subset_without_a_pixel_is_refused_with_its_names(segmentor):
    from pdiff_plugins.segmentation.metric import CandidateMetric

    metric = CandidateMetric(["ground", "tree", "sky"]).another([2])
    labels = {"data": torch.tensor([[[0, 1]]])}
    metric.process({}, [{"pred_sem_seg": labels, "gt_sem_seg": labels}])
    with pytest.raises(PdiffError, match="no pixel is of sky, whose mIoU is asked for. Leave the condition out"):
        metric.compute_metrics(metric.results)


def test_candidates_without_conditions_are_refused(segmentor, candidates, conditional):
    with pytest.raises(PdiffError, match=r"collect.conditions: got candidates without them, expected classes.0, cl"):
        segmentor.evaluate(candidates, task=conditional(SUBSETS)[0])


def test_exported_segmentor_gives_the_classes_of_its_condition_alone_in_mmseg(segmentor, candidates, under, tmp_path):
    from mmseg.apis import inference_model, init_model
    from pdiff_plugins.openmmlab.narrowing import narrowing

    task, kept = under(segmentor.task, NAMES, background=0), [0, 4, 8]  # the digits 3 and 7 have the labels 4 and 8
    candidates.load(task.model, 1)
    paths = [task.splits["test"].split.dataset.get_data_info(index)["img_path"] for index in range(4)]
    task.export(task.model, tmp_path / "whole.pth")
    whole = init_model(str(tmp_path / "whole.py"), str(tmp_path / "whole.pth"), device="cpu")
    logits = [inference_model(whole, path).seg_logits.data for path in paths]
    narrowing(task)(task.model, {name: float(label in (3, 7)) for label, name in enumerate(NAMES)})
    task.export(task.model, tmp_path / "segmentor.pth")
    model = init_model(str(tmp_path / "segmentor.py"), str(tmp_path / "segmentor.pth"), device="cpu")
    for path, scores in zip(paths, logits, strict=True):
        labels = inference_model(model, path).pred_sem_seg.data
        assert torch.equal(labels[0], torch.tensor(kept)[scores[kept].argmax(0)])
    assert any(set(each.argmax(0).unique().tolist()) - set(kept) for each in logits)
