"""A detector's errors by their definition, and the share of errors that two detectors have in common."""

import itertools

import pytest
import torch
from pdiff_plugins.detection.errors import Errors, shared_errors

from pdiff.task.similarity import error_iou

CLASSES, THRESHOLD = 3, 0.3


def overlap(a: list[float], b: list[float]) -> float:
    """Return intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def errors_of_image(truth: dict, detections: dict) -> tuple[list[int], list[int]]:
    """Return, box by box as the definition says it, which ground truths are missed and the false ones per class."""
    truths = list(zip(truth["boxes"].tolist(), truth["labels"].tolist(), truth["ignored"].tolist(), strict=True))
    found = list(zip(*(detections[key].tolist() for key in ("bboxes", "scores", "labels")), strict=True))
    taken, false = set(), [0] * CLASSES
    for box, score, label in sorted(found, key=lambda detection: -detection[1]):
        if score < THRESHOLD:
            continue
        ious = {number: overlap(box, other) for number, (other, of, _) in enumerate(truths) if of == label}
        free = {n: iou for n, iou in ious.items() if not truths[n][2] and n not in taken}
        best = max(free, key=free.get, default=None)
        if best is not None and free[best] >= 0.5:
            taken.add(best)
        elif not any(iou >= 0.5 and truths[n][2] for n, iou in ious.items()):
            false[label] += 1
    return [int(number not in taken) for number, (_, _, ignored) in enumerate(truths) if not ignored], false


def boxes(count: int, rng: torch.Generator) -> torch.Tensor:
    """Return boxes `(count, 4)` with so few possible corners that many overlap by a half, exactly or more."""
    corner = torch.randint(0, 5, (count, 2), generator=rng)
    return torch.cat([corner, corner + torch.randint(1, 5, (count, 2), generator=rng)], 1).float()


def truth_of(count: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Return `count` random ground truths, a quarter of them to be ignored."""
    labels = torch.randint(0, CLASSES, (count,), generator=rng)
    return {"boxes": boxes(count, rng), "labels": labels, "ignored": torch.rand(count, generator=rng) < 0.25}


def detections_of(count: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
    """Return `count` random detections; their scores are tenths, so that many are equal and some the threshold."""
    scores = torch.randint(0, 11, (count,), generator=rng).float() / 10
    return {"bboxes": boxes(count, rng), "scores": scores, "labels": torch.randint(0, CLASSES, (count,), generator=rng)}


def signature_of(truths: list, detections: list) -> torch.Tensor:
    """Return the signature of a candidate with these detections, image by image."""
    errors = Errors(truths, CLASSES, THRESHOLD)
    for image, found in enumerate(detections):
        errors.add(image, **found)
    return errors.signature()


def image(*objects: tuple) -> dict[str, torch.Tensor]:
    """Return ground truths, each of them `(box, label, ignored)`."""
    given = [list(column) for column in zip(*objects, strict=True)] or [[], [], []]
    numbers = {"boxes": torch.tensor(given[0]).reshape(-1, 4).float(), "labels": torch.tensor(given[1]).long()}
    return {**numbers, "ignored": torch.tensor(given[2]).bool()}


def seen(*objects: tuple) -> dict[str, torch.Tensor]:
    """Return detections, each of them `(box, score, label)`."""
    given = [list(column) for column in zip(*objects, strict=True)] or [[], [], []]
    numbers = {"bboxes": torch.tensor(given[0]).reshape(-1, 4).float(), "scores": torch.tensor(given[1]).float()}
    return {**numbers, "labels": torch.tensor(given[2]).long()}


@pytest.mark.parametrize("seed", range(5))
def test_signature_is_what_the_definition_says_box_by_box(seed):
    rng = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 13, (40, 2), generator=rng).tolist()
    truths = [truth_of(count, rng) for count, _ in counts]
    detections = [detections_of(2 * count, rng) for _, count in counts]
    expected = [errors_of_image(truth, found) for truth, found in zip(truths, detections, strict=True)]
    missed, false = (list(itertools.chain(*part)) for part in zip(*expected, strict=True))
    signature = signature_of(truths, detections)
    assert signature.dtype == torch.int16
    assert signature.tolist() == missed + false
    assert 0 < sum(missed) < len(missed), "some are found, some are not"
    assert max(false) > 1


# The half and the part overlap with the square by 1/2 and 3/5, the lower one by 7/13, and part and lower one by 3/13.
SQUARE, HALF, AWAY = [0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]
PART, LOWER = [0, 0, 10, 6], [0, 3, 10, 13]


@pytest.mark.parametrize(
    ("truth", "detections", "missed", "false"),
    [
        (image(), seen(), [], [0, 0, 0]),
        (image((SQUARE, 1, False)), seen(), [1], [0, 0, 0]),
        (image(), seen((SQUARE, 0.9, 2)), [], [0, 0, 1]),
        (image((SQUARE, 1, False)), seen((SQUARE, 0.9, 1)), [0], [0, 0, 0]),
        (image((SQUARE, 1, False)), seen((SQUARE, 0.9, 0)), [1], [1, 0, 0]),
        (image((SQUARE, 1, False)), seen((HALF, 0.9, 1)), [0], [0, 0, 0]),
        (image((SQUARE, 1, False)), seen((AWAY, 0.9, 1)), [1], [0, 1, 0]),
        (image((SQUARE, 1, False)), seen((SQUARE, THRESHOLD, 1)), [0], [0, 0, 0]),
        (image((SQUARE, 1, False)), seen((SQUARE, 0.29, 1)), [1], [0, 0, 0]),
        (image((SQUARE, 1, False)), seen((SQUARE, 0.9, 1), (SQUARE, 0.9, 1)), [0], [0, 1, 0]),
        (image((SQUARE, 1, True)), seen((SQUARE, 0.9, 1), (SQUARE, 0.8, 1)), [], [0, 0, 0]),
        (image((SQUARE, 1, True)), seen((SQUARE, 0.9, 2)), [], [0, 0, 1]),
        (image((SQUARE, 1, True), (SQUARE, 1, False)), seen((HALF, 0.9, 1), (HALF, 0.8, 1)), [0], [0, 0, 0]),
        (image((SQUARE, 1, False), (PART, 1, False)), seen((SQUARE, 0.8, 1), (LOWER, 0.9, 1)), [0, 0], [0, 0, 0]),
        (image((SQUARE, 1, False), (PART, 1, False)), seen((SQUARE, 0.9, 1), (LOWER, 0.8, 1)), [0, 1], [0, 1, 0]),
    ],
    ids=[
        "nothing there and nothing seen", "no detection", "no ground truth", "hit", "hit of another class",
        "overlap of exactly a half", "elsewhere", "score is the threshold", "score is below", "second hit",
        "ignored objects excuse any number", "ignored object of another class", "ignored objects are not taken",
        "the higher score takes first and the other what is left", "the higher score takes what the other needs",
    ],
)  # fmt: skip
def test_single_cases(truth, detections, missed, false):
    assert signature_of([truth], [detections]).tolist() == missed + false


def test_candidate_that_sees_nothing_misses_every_object_and_no_ignored_one():
    rng = torch.Generator().manual_seed(0)
    truths = [truth_of(count, rng) for count in (5, 0, 7)]
    objects = sum(int((~truth["ignored"]).sum()) for truth in truths)
    assert Errors(truths, CLASSES, THRESHOLD).signature().tolist() == [1] * objects + [0] * 3 * CLASSES


def test_images_may_come_in_any_order():
    rng = torch.Generator().manual_seed(0)
    truths, detections = [truth_of(6, rng) for _ in range(8)], [detections_of(9, rng) for _ in range(8)]
    errors = Errors(truths, CLASSES, THRESHOLD)
    for number in reversed(range(8)):
        errors.add(number, **detections[number])
    assert torch.equal(errors.signature(), signature_of(truths, detections))


def test_candidates_on_the_same_ground_truths_do_not_share_their_errors():
    truths = [image((SQUARE, 1, False))]
    one, other = (Errors(truths, CLASSES, THRESHOLD) for _ in range(2))
    one.add(0, **seen((SQUARE, 0.9, 1), (AWAY, 0.9, 0)))
    assert other.signature().tolist() == [1, 0, 0, 0]


def signatures(count: int, most: int = 4) -> torch.Tensor:
    """Return random signatures `(count, 50)`, int16, most of the numbers 0; the last two are faultless."""
    rng = torch.Generator().manual_seed(count)
    numbers = torch.randint(-most, most + 1, (count, 50), generator=rng).clamp(min=0).short()
    numbers[-2:] = 0
    return numbers


def test_shared_errors_are_those_of_both_over_those_of_either():
    a, b = signatures(7), signatures(6)
    for x, row in zip(a.tolist(), shared_errors(a, b).tolist(), strict=True):
        for y, share in zip(b.tolist(), row, strict=True):
            either = sum(map(max, x, y))
            assert share == pytest.approx(sum(map(min, x, y)) / either if either else 1, rel=1e-6)


def test_shared_errors_are_one_with_itself_symmetric_and_a_fraction():
    table = shared_errors(signatures(7), signatures(7))
    assert torch.equal(table.diagonal(), torch.ones(7))
    assert torch.equal(table, table.T)
    assert ((table >= 0) & (table <= 1)).all()
    assert 0 < table[0, 1] < 1


def test_two_faultless_candidates_are_alike_and_unlike_any_other():
    table = shared_errors(signatures(7), signatures(7))
    assert torch.equal(table[-2:, -2:], torch.ones(2, 2))
    assert not table[-2:, :-2].any()


def test_shared_errors_of_missed_objects_alone_are_the_error_iou():
    a, b = signatures(9, most=1), signatures(8, most=1)
    assert torch.equal(shared_errors(a, b), error_iou(a.bool(), b.bool()))


@pytest.mark.parametrize("length", [0, 3])
def test_nobody_who_makes_no_error_differs(length):
    never = torch.zeros(2, length, dtype=torch.int16)
    assert torch.equal(shared_errors(never, never), torch.ones(2, 2))


def test_hundreds_of_false_positives_are_counted():
    many = seen(*[(AWAY, 0.9, 2)] * 700)
    signature = signature_of([image((SQUARE, 1, False))], [many])
    assert signature.tolist() == [1, 0, 0, 700]
    assert shared_errors(signature[None], torch.tensor([[1, 0, 0, 350]])).item() == pytest.approx(351 / 701)
