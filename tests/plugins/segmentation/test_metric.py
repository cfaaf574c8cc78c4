"""The metric of many candidates beside mmseg's own, and beside the formula."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("mmseg")

CLASSES = ("road", "tree", "sky", "absent", "invented")
IGNORED = 255


@pytest.fixture
def metric(segmentor):
    """Return a function from the ignored label to an empty metric of the classes."""
    from pdiff_plugins.segmentation.metric import CandidateMetric

    return lambda ignored=IGNORED: CandidateMetric(CLASSES, ignored)


def label_maps(seed: int = 0, count: int = 5, ignored: int = IGNORED) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of predicted and true labels `(1, H, W)`; `absent` is in none, `invented` among the predicted."""
    rng = torch.Generator().manual_seed(seed)
    pairs = []
    for number in range(count):
        size = (1, 7 + number, 11)
        truth = torch.randint(0, 3, size, generator=rng)
        drawn = torch.tensor([0, 1, 2, 4])[torch.randint(0, 4, size, generator=rng)]
        labels = torch.where(torch.rand(size, generator=rng) < 0.6, truth, drawn)
        truth[torch.rand(size, generator=rng) < 0.2] = ignored
        pairs.append((labels, truth))
    return pairs


def sample(labels: Tensor, truth: Tensor) -> dict:
    """Return what the metric is given of one image."""
    return {"pred_sem_seg": {"data": labels}, "gt_sem_seg": {"data": truth}}


def figures_of(metric, pairs) -> dict[str, float]:
    """Return the figures of an accumulator that has seen pairs of label maps."""
    for labels, truth in pairs:
        metric.process({}, [sample(labels, truth)])
    return metric.compute_metrics(metric.results)


def confusion_figures(pairs, ignored: int = IGNORED) -> dict[str, float]:
    """Return the figures by the formula, from the table of how often which class was taken for which."""
    count = len(CLASSES)
    table = torch.zeros(count, count, dtype=torch.float64)
    for labels, truth in pairs:
        for taken, expected in zip(labels[truth != ignored].tolist(), truth[truth != ignored].tolist(), strict=True):
            table[expected, taken] += 1
    hits, there, predicted = table.diag(), table.sum(1), table.sum(0)
    iou, accuracy = hits / (there + predicted - hits), hits / there
    means = {"mIoU": iou.nanmean(), "mAcc": accuracy.nanmean(), "aAcc": hits.sum() / table.sum()}
    each = {f"IoU/{name}": value for name, value in zip(CLASSES, iou, strict=True) if not value.isnan()}
    return {name: value.item() for name, value in (means | each).items()}


@pytest.mark.parametrize("ignored", [IGNORED, 11])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_are_those_of_mmseg_before_it_rounds_them_to_percent(metric, seed, ignored):
    from mmseg.evaluation.metrics import IoUMetric

    theirs = IoUMetric(ignore_index=ignored)
    theirs.dataset_meta = {"classes": CLASSES}
    pairs = label_maps(seed, ignored=ignored)
    own = figures_of(metric(ignored), pairs)
    expected = figures_of(theirs, pairs)
    assert {name: round(own[name] * 100, 2) for name in expected} == pytest.approx(expected, abs=1e-4)
    assert round(own["mIoU"], 4) != own["mIoU"], "not rounded"


@pytest.mark.parametrize("ignored", [IGNORED, 11])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_are_those_of_the_confusion_matrix(metric, seed, ignored):
    pairs = label_maps(seed, ignored=ignored)
    assert figures_of(metric(ignored), pairs) == pytest.approx(confusion_figures(pairs, ignored), rel=1e-6)


def test_figures_are_plain_numbers(metric):
    figures = figures_of(metric(), label_maps())
    assert all(type(value) is float and math.isfinite(value) for value in figures.values())


def test_class_that_is_neither_there_nor_predicted_is_left_out(metric):
    figures = figures_of(metric(), label_maps())
    assert [name for name in figures if "/" in name] == ["IoU/road", "IoU/tree", "IoU/sky", "IoU/invented"]
    classes = [value for name, value in figures.items() if "/" in name]
    assert figures["mIoU"] == pytest.approx(sum(classes) / 4)


def test_class_that_is_predicted_but_not_there_counts_as_never_right(metric):
    figures = figures_of(metric(), label_maps())
    assert figures["IoU/invented"] == 0
    assert figures["mIoU"] < min(figures["IoU/road"], figures["IoU/tree"], figures["IoU/sky"])


def test_what_is_predicted_where_the_label_is_ignored_does_not_matter(metric):
    pairs = label_maps()
    other = [(torch.where(truth == IGNORED, (labels + 1) % 5, labels), truth) for labels, truth in pairs]
    assert figures_of(metric(), other) == figures_of(metric(), pairs)


def test_label_255_is_no_ignored_label_when_another_is(metric):
    labels, truth = torch.zeros(1, 2, 2, dtype=torch.int64), torch.tensor([[[0, 0], [11, 0]]])
    assert figures_of(metric(11), [(labels, truth)])["aAcc"] == 1
    assert figures_of(metric(255), [(labels, truth)])["IoU/road"] < 1


def test_perfect_prediction_has_only_ones(metric):
    pairs = [(truth.where(truth != IGNORED, 0), truth) for _, truth in label_maps()]
    figures = figures_of(metric(), pairs)
    assert set(figures) == {"mIoU", "mAcc", "aAcc", "IoU/road", "IoU/tree", "IoU/sky"}
    assert set(figures.values()) == {1.0}


def test_prediction_that_is_never_right_has_only_zeros(metric):
    pairs = [(((truth + 1) % 3).where(truth != IGNORED, 0), truth) for _, truth in label_maps()]
    assert set(figures_of(metric(), pairs).values()) == {0.0}


def test_pixels_count_alike_however_they_are_spread_over_images(metric):
    pairs = label_maps()
    whole = [tuple(torch.cat([pair[place].flatten() for pair in pairs])[None, None] for place in (0, 1))]
    assert figures_of(metric(), whole) == figures_of(metric(), pairs)
    assert figures_of(metric(), pairs[::-1]) == figures_of(metric(), pairs)


def test_accumulators_do_not_know_of_each_other(metric):
    origin = metric()
    first, second = origin.another(), origin.another()
    ones, others = label_maps(0), label_maps(1)
    for one, other in zip(ones, others, strict=True):  # as candidates are evaluated, batch by batch
        first.process({}, [sample(*one)])
        second.process({}, [sample(*other)])
    assert first.compute_metrics(first.results) == figures_of(metric(), ones)
    assert second.compute_metrics(second.results) == figures_of(metric(), others)
    assert origin.results == []
    assert origin.another().results == []


def test_accumulator_made_of_a_used_one_is_empty(metric):
    used = metric()
    figures_of(used, label_maps(0))
    assert figures_of(used.another(), label_maps(1)) == figures_of(metric(), label_maps(1))


def test_several_images_at_once_are_as_one_after_another(metric):
    pairs, whole = label_maps(), metric()
    whole.process({}, [sample(*pair) for pair in pairs])
    assert whole.compute_metrics(whole.results) == figures_of(metric(), pairs)


def test_image_counts_beside_very_many_others(metric):
    many = torch.tensor([2.0**24, 0, 0, 0, 0])  # areas as mmseg counts them: right, united, predicted, true
    wrong = torch.tensor([1.0, 0, 0, 0, 0])
    results = [(many, many, many, many), *[(wrong * 0, wrong, wrong * 0, wrong)] * 1000]
    figures = metric().compute_metrics(results)
    assert figures["IoU/road"] == pytest.approx(2**24 / (2**24 + 1000), rel=1e-9)


def table(pairs) -> np.ndarray:
    """Return for each image the intersection and the union of each class `(S, 2, C)`."""
    rows = []
    for labels, truth in pairs:
        valid = truth != IGNORED
        taken, there = ([(map_[valid] == number) for number in range(len(CLASSES))] for map_ in (labels, truth))
        both = [(a & b).sum() for a, b in zip(taken, there, strict=True)]
        either = [(a | b).sum() for a, b in zip(taken, there, strict=True)]
        rows.append([both, either])
    return np.array(rows, np.float64)


def miou(areas: np.ndarray) -> float:
    """Return mIoU from areas `(S, 2, C)`."""
    intersection, union = areas.sum(0)
    return (intersection[union > 0] / union[union > 0]).mean()


def scored(metric, pairs) -> tuple[float, Tensor]:
    """Return mIoU and the scores of an accumulator that has seen pairs of label maps."""
    return figures_of(metric, pairs)["mIoU"], metric.scores()


@pytest.mark.parametrize("seed", range(4))
def test_mean_of_the_scores_is_the_metric(metric, seed):
    average, scores = scored(metric(), label_maps(seed, count=30))
    assert scores.shape == (30,)
    assert scores.dtype == torch.float32
    assert scores.double().mean().item() == pytest.approx(average, abs=1e-6)


def test_scores_are_the_derivative_in_the_weight_of_each_image(metric):
    pairs = label_maps(count=6)
    average, scores = scored(metric(), pairs)
    areas, step = table(pairs), 1e-6
    for image, score in enumerate(scores.tolist()):
        weights = np.ones(6)
        weights[image] += step
        slope = (miou(areas * weights[:, None, None]) - miou(areas)) / step
        assert score == pytest.approx(average + 6 * slope, abs=1e-4)


def test_spread_of_the_scores_is_the_noise_of_a_bootstrap_over_images(metric):
    rng, ratios = np.random.default_rng(0), []
    for seed in range(5):
        pairs = label_maps(seed, count=80)
        pairs = [pair for pair in pairs for _ in range(int(rng.integers(1, 4)))]
        _, scores = scored(metric(), pairs)
        areas = table(pairs)
        drawn = [miou(areas[rng.integers(len(areas), size=len(areas))]) for _ in range(1000)]
        ratios.append(scores.std().item() / math.sqrt(len(scores)) / np.std(drawn))
    assert ratios == [pytest.approx(1, abs=0.15)] * 5


def test_scores_come_in_the_order_of_the_images_however_they_are_batched(metric):
    pairs, whole = label_maps(), metric()
    whole.process({}, [sample(*pair) for pair in pairs])
    _, scores = scored(metric(), pairs)
    _, reverse = scored(metric(), pairs[::-1])
    assert torch.equal(whole.scores(), scores)
    torch.testing.assert_close(reverse.flip(0), scores)


def test_accumulators_do_not_share_scores(metric):
    used = metric()
    _, scores = scored(used, label_maps(0))
    assert torch.equal(scored(used.another(), label_maps(0))[1], scores)
    assert len(used.another().areas) == 0
