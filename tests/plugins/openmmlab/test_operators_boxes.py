"""mmcv's operators on boxes, against loops over pairs of boxes in plain Python."""

import importlib
import math

import numpy as np
import pytest
import torch
from pdiff_plugins.openmmlab.extension import provide_operators

pytest.importorskip("mmcv")
pytestmark = pytest.mark.filterwarnings("ignore:.*MultiScaleDeformableAttention.*:ImportWarning")

N = 40


@pytest.fixture(scope="module")
def ops():
    """Return `mmcv.ops` with the stand-in."""
    if not provide_operators():
        pytest.skip("a compiled mmcv is installed")
    return importlib.import_module("mmcv.ops")


@pytest.fixture
def boxes():
    """Return crowded boxes (N, 4) with sides from 5 to 30 in an image of side 60."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(N, 2, generator=generator) * 30
    return torch.cat([corner, corner + 5 + torch.rand(N, 2, generator=generator) * 25], 1)


@pytest.fixture
def scores():
    """Return different scores (N,)."""
    return torch.rand(N, generator=torch.Generator().manual_seed(1))


def overlap(a, b, offset=0) -> float:
    """Return intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    both = max(width, 0) * max(height, 0)
    area_a, area_b = ((x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b))
    return both / (area_a + area_b - both)


def greedy(boxes, scores, threshold, offset=0) -> list[int]:
    """Return what non-maximum suppression keeps."""
    boxes, scores, kept = boxes.tolist(), scores.tolist(), []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def soft(boxes, scores, threshold, sigma, least, method, offset=0) -> list[tuple[int, float]]:
    """Return index and score of each box that soft non-maximum suppression takes."""
    boxes, left, taken = boxes.tolist(), dict(enumerate(scores.tolist())), []
    while left:
        best = max(left, key=left.get)
        taken.append((best, left.pop(best)))
        for i in list(left):
            iou = overlap(boxes[best], boxes[i], offset)
            lowered = {"naive": 0, "linear": 1 - iou}.get(method)
            left[i] *= math.exp(-(iou**2) / sigma) if lowered is None else lowered if iou >= threshold else 1
            if left[i] < least:
                del left[i]
    return taken


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7])
def test_nms_keeps_what_a_loop_keeps(ops, boxes, scores, threshold, offset):
    dets, kept = ops.nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == greedy(boxes, scores, threshold, offset)
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[kept])


def test_nms_offset_lengthens_the_sides(ops):
    boxes, scores = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9]]), torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, 0.32, offset=0)[1].tolist() == [0, 1]  # 36 / 126
    assert ops.nms(boxes, scores, 0.32, offset=1)[1].tolist() == [0]  # 50 / 150


def test_nms_takes_equal_scores_by_index(ops):
    boxes = torch.arange(30.0)[:, None] * 10 + torch.tensor([0.0, 0, 5, 5])
    scores = torch.tensor([0.5, 0.25, 0.5]).repeat(10)
    expected = [i for i in range(30) if i % 3 != 1] + list(range(1, 30, 3))
    assert ops.nms(boxes, scores, 0.5)[1].tolist() == expected


def test_nms_compares_in_single_precision(ops):
    boxes, scores = torch.tensor([[0.0, 0, 10, 1], [0, 0, 3, 1]]), torch.tensor([0.9, 0.8])
    assert torch.tensor(0.3).item() > 0.3
    assert ops.nms(boxes, scores, 0.3)[1].tolist() == [0, 1]


def test_nms_filters_by_score_and_number(ops, boxes, scores):
    kept = greedy(boxes, scores, 0.5)
    above = [i for i in kept if scores[i] > 0.5]
    assert ops.nms(boxes, scores, 0.5, score_threshold=0.5)[1].tolist() == above
    assert ops.nms(boxes, scores, 0.5, max_num=3)[1].tolist() == kept[:3]


def test_nms_takes_arrays_and_other_precisions(ops, boxes, scores):
    expected = ops.nms(boxes, scores, 0.5)[1].tolist()
    dets, kept = ops.nms(boxes.numpy(), scores.numpy(), 0.5)
    assert isinstance(dets, np.ndarray)
    assert kept.tolist() == expected
    assert ops.nms(boxes.double(), scores.double(), 0.5)[1].tolist() == expected
    rounded = boxes.half(), scores.half()
    assert ops.nms(*rounded, 0.5)[1].tolist() == greedy(*(x.float() for x in rounded), 0.5)
    assert ops.nms(boxes.half(), scores, 0.5)[1].tolist() == greedy(boxes.half().float(), scores, 0.5)


@pytest.mark.parametrize("split", [10000, 20])
def test_batched_nms_suppresses_within_a_class(ops, boxes, scores, split):
    classes = torch.arange(N) % 3
    dets, kept = ops.batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.4, "split_thr": split})
    of_class = [(classes == c).nonzero()[:, 0] for c in range(3)]
    expected = torch.cat([rows[greedy(boxes[rows], scores[rows], 0.4)] for rows in of_class])
    assert kept.tolist() == expected[scores[expected].argsort(descending=True)].tolist()
    assert torch.equal(dets[:, 4], scores[kept])
    agnostic = ops.batched_nms(boxes, scores, classes, {"type": "nms", "iou_threshold": 0.4}, class_agnostic=True)
    assert agnostic[1].tolist() == greedy(boxes, scores, 0.4)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_lowers_scores_as_a_loop_does(ops, boxes, scores, method, offset):
    dets, taken = ops.soft_nms(boxes, scores, 0.3, sigma=0.4, min_score=0.02, method=method, offset=offset)
    expected = soft(boxes, scores, 0.3, 0.4, 0.02, method, offset)
    assert 3 < len(expected) < N
    assert taken.tolist() == [index for index, _ in expected]
    torch.testing.assert_close(dets[:, 4], torch.tensor([score for _, score in expected]))
    assert torch.equal(dets[:, :4], boxes[taken])


def test_soft_nms_leaves_its_input_as_it_is(ops, boxes, scores):
    before = boxes.clone(), scores.clone()
    ops.soft_nms(boxes, scores, 0.3, min_score=0.02)
    assert torch.equal(boxes, before[0])
    assert torch.equal(scores, before[1])


def test_soft_nms_serves_as_the_method_of_batched_nms(ops, boxes, scores):
    dets, taken = ops.batched_nms(boxes, scores, torch.zeros(N), {"type": "soft_nms", "iou_threshold": 0.3})
    expected = soft(boxes, scores, 0.3, 0.5, 1e-3, "linear")
    assert taken.tolist() == [index for index, _ in expected]
    torch.testing.assert_close(dets[:, 4], torch.tensor([score for _, score in expected]))


def test_no_boxes_are_no_problem(ops):
    boxes, scores = torch.zeros(0, 4), torch.zeros(0)
    for dets, kept in (ops.nms(boxes, scores, 0.5), ops.nms(boxes, scores, 0.5, offset=1), ops.soft_nms(boxes, scores)):
        assert dets.shape == (0, 5)
        assert kept.shape == (0,)
        assert kept.dtype == torch.long
