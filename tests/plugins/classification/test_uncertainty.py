"""Likelihood, calibration and images from outside: by hand, and of candidates and ensembles alike."""

import math

import pytest
import torch
from pdiff_plugins.classification.uncertainty import calibration_error, uncertainty_of

from pdiff.runtime.errors import PdiffError
from pdiff.testing.evaluating import difference

OUTSIDE = {"type": "digits", "size": 8, "classes": [8, 9], "train": 4, "select": 100}
KEYS = ["negative_log_likelihood", "calibration_error", "outside_auroc"]


@pytest.fixture
def watched(zoo) -> dict:
    """The values of a tiny config of networks of eight digits, the other two from outside."""
    zoo["task"]["data"]["classes"] = list(range(8))
    zoo["task"]["uncertainty"] = {"outside": dict(OUTSIDE)}
    return zoo


def probabilities(case, candidates, images) -> torch.Tensor:
    """Return the class probabilities `(M, S, classes)` of each candidate, one after another."""
    found = []
    for index in range(len(candidates)):
        candidates.load(case.task.model, index)
        with torch.no_grad():
            found.append(case.task.model.eval()(images).double().softmax(1))
    return torch.stack(found)


def by_hand(inside, outside, labels) -> dict[str, float]:
    """Return the figures of class probabilities `(S, classes)` and `(O, classes)`, the slow way."""
    confidence, answers = inside.max(1)
    right = (answers == labels).double()
    error = 0.0
    for number in range(15):
        own = (confidence * 15).floor().clamp(max=14) == number
        if own.any():
            error += (own.double().mean() * (right[own].mean() - confidence[own].mean()).abs()).item()
    strange = outside.amax(1)
    wins = (confidence[:, None] > strange).double() + (confidence[:, None] == strange).double() / 2
    likelihood = inside[torch.arange(len(labels)), labels].log().mean().item()
    return dict(zip(KEYS, [-likelihood, error, wins.mean().item()], strict=True))


def test_calibration_error_is_the_gap_in_each_bin_by_the_share_of_its_samples():
    confidences = torch.tensor([0.55, 0.65, 0.9, 0.8, 1.0], dtype=torch.float64)
    right = torch.tensor([True, False, True, True, False])
    # Of five bins two have samples: 0.55 alone, of which 1.0 are right; 0.65 (0.0); 0.9, 0.8 and 1.0 (2/3 of 0.9).
    expected = (0.45 + 0.65 + 3 * (0.9 - 2 / 3)) / 5
    assert calibration_error(confidences, right, 5) == pytest.approx(expected, abs=1e-9)
    assert calibration_error(confidences, right, 1) == pytest.approx(0.78 - 0.6, abs=1e-9)


def test_figures_are_those_computed_by_hand():
    likelihoods = torch.tensor([0.5, 0.25], dtype=torch.float64).log()
    confidences, right = torch.tensor([0.5, 0.75], dtype=torch.float64), torch.tensor([True, False])
    found = uncertainty_of(likelihoods, confidences, right, torch.tensor([0.5, 0.6], dtype=torch.float64), 1)
    assert found["negative_log_likelihood"] == pytest.approx(math.log(8) / 2)
    assert found["calibration_error"] == pytest.approx(0.125)
    assert found["outside_auroc"] == pytest.approx((0.5 + 0 + 1 + 1) / 4)


def test_figures_without_images_from_outside_are_two():
    likelihoods, sure = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    right = torch.tensor([True, True])
    assert uncertainty_of(likelihoods, sure, right, None, 15) == pytest.approx(dict.fromkeys(KEYS[:2], 0.0), abs=1e-9)
    assert list(uncertainty_of(likelihoods, sure, right, sure * math.nan, 15)) == KEYS[:2]


@pytest.mark.parametrize("split", ["select", "test"])
@pytest.mark.parametrize("together", [1, 4])
def test_every_candidate_and_their_ensemble_are_measured(watched, conditional, split, together):
    watched["task"]["eval_networks"], watched["task"]["eval_batch"] = together, 50
    case = conditional(watched)
    candidates, data = case.candidates(), case.task.splits[split]
    strange = case.task.splits["uncertainty"].beyond(split)
    inside = probabilities(case, candidates, data.pixels(slice(None)))
    outside = probabilities(case, candidates, strange.pixels(slice(None)))
    found = case.evaluate(candidates, split)
    for index, result in enumerate(found):
        expected = by_hand(inside[index], outside[index], data.labels)
        assert result.details == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert len({result.details["outside_auroc"] for result in found}) > 1
    whole = case.ensemble(candidates, split)
    assert whole.details == pytest.approx(by_hand(inside.mean(0), outside.mean(0), data.labels), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("together", [1, 4])
def test_an_ensemble_of_one_is_its_member(watched, conditional, together):
    watched["task"]["eval_networks"] = together
    case = conditional(watched)
    alone = case.candidates().take([2])
    assert case.ensemble(alone).details == pytest.approx(case.evaluate(alone)[0].details, rel=1e-5)


def test_networks_in_part_are_measured_alike_alone_and_with_others(watched, conditional):
    watched["collect"]["seeds"] = 1
    case = conditional({**watched, "select": "head"})
    candidates = case.candidates()
    whole = case.evaluate(candidates)
    assert all(list(result.details) == KEYS for result in whole)
    for index, result in enumerate(whole):
        assert difference(result, case.evaluate(candidates.take([index]))[0]) == ""


def test_images_from_outside_are_of_other_classes_and_normalised_as_the_task_s(watched, conditional):
    splits = conditional(watched).task.splits
    strange = splits["uncertainty"].beyond("test")
    assert len(splits["uncertainty"].beyond("select")) == 100
    assert torch.equal(strange.mean, splits["train"].mean)
    assert torch.equal(strange.std, splits["train"].std)
    assert splits["uncertainty"].beyond("train") is None
    known = {tuple(image.flatten().tolist()) for image in splits["test"].images}
    assert not known & {tuple(image.flatten().tolist()) for image in strange.images}


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_dead_candidate_has_no_figures_and_spoils_no_other(watched, conditional, value, together):
    watched["task"]["eval_networks"] = together
    case = conditional(watched)
    candidates = case.candidates()
    first = case.evaluate(candidates)
    candidates.vectors[1, -1] = value
    found = case.evaluate(candidates)
    assert found[1].details == {}
    assert [result.details for result in found[2:]] == [result.details for result in first[2:]]
    assert case.ensemble(candidates).details == {}


def test_the_accuracy_is_the_same_whether_more_is_measured_or_not(watched, conditional):
    candidates = conditional(watched).candidates()
    more = conditional(watched).evaluate(candidates)
    watched["task"]["uncertainty"] = None
    case = conditional(watched)
    plain = case.evaluate(candidates)
    assert "uncertainty" not in case.task.splits
    for one, other in zip(more, plain, strict=True):
        assert other.details == {}
        assert one.metric == other.metric
        assert torch.equal(one.signature, other.signature)
    assert case.ensemble(candidates).details == {}


def test_likelihoods_far_below_what_a_float_holds_stay_finite(watched, conditional):
    case = conditional(watched)
    candidates = case.candidates()
    candidates.vectors *= 30
    results = [*case.evaluate(candidates), case.ensemble(candidates)]
    assert all(math.isfinite(result.details["negative_log_likelihood"]) for result in results)
    assert max(result.details["negative_log_likelihood"] for result in results) > 100


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"bins": 0}, r"^task\.uncertainty\.bins: got 0, expected an integer from 1 on"),
        ({"bin": 3}, r"^task\.uncertainty: got unknown key 'bin'\. Did you mean 'bins'\? Known: bins, outside"),
        ({"outside": {"type": "digit"}}, r"^task\.uncertainty\.outside\.type: got 'digit'"),
        ({"outside": {**OUTSIDE, "sizes": 8}}, r"^task\.uncertainty\.outside: got unknown key 'sizes'"),
        ({"outside": {**OUTSIDE, "train": 900}}, r"^task\.uncertainty\.outside\.train: got 900, expected 1 to 353, as"),
        ({"outside": {**OUTSIDE, "classes": [8, 12]}}, r"^task\.uncertainty\.outside\.classes: got \[8, 12\], expe"),
        ({"outside": {**OUTSIDE, "classes": [7, 8]}}, r"^task\.uncertainty\.outside\.classes: got \[7\] in both, for"),
        ({"outside": {**OUTSIDE, "classes": None, "train": 40}}, r"^task\.uncertainty\.outside\.classes: got all clas"),
        ({"outside": {**OUTSIDE, "size": 16}}, r"^task\.uncertainty\.outside: got size 16, expected 8 as in task"),
    ],
)
def test_unsound_settings_are_refused_in_one_line(watched, conditional, section, line):
    watched["task"]["uncertainty"] = section
    with pytest.raises(PdiffError, match=line) as caught:
        conditional(watched)
    assert "\n" not in str(caught.value)


def test_images_of_other_channels_are_refused(watched, conditional, tmp_path):
    import numpy as np

    images, labels = np.zeros((30, 8, 8, 3), dtype=np.uint8), np.arange(30) % 3
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    path = str(tmp_path / "data.npz")
    watched["task"]["uncertainty"] = {"outside": {"type": "npz", "path": path, "size": 8, "select": 9}}
    with pytest.raises(PdiffError, match=r"^task\.uncertainty\.outside: got channels 3, expected 1 as in task\.data"):
        conditional(watched)


def test_networks_for_conditions_are_not_measured_so(subsets, conditional):
    subsets["task"]["uncertainty"] = {}
    with pytest.raises(PdiffError, match=r"^task\.uncertainty: got it beside task\.conditions, expected one of the tw"):
        conditional(subsets)
