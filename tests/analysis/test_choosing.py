"""What choosing gives on `test`, on numbers that are made up."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from pdiff.analysis.choosing import Reached, choosing

RNG = np.random.default_rng(0)
SCORES = (RNG.random((6, 200)) < np.linspace(0.5, 0.9, 6)[:, None]).astype(float)
TEST = SCORES.mean(1)
EVERYONE = Reached(float(TEST.mean()), SCORES.mean(0))


def test_the_interval_is_that_of_the_paired_test_over_samples():
    train, select = np.arange(6.0)[::-1], np.arange(6.0)
    found = choosing(train, select, TEST, SCORES, EVERYONE, True)
    expected = ttest_rel(SCORES[0], SCORES[5]).confidence_interval(0.95)
    assert found["difference"] == pytest.approx(TEST[0] - TEST[5])
    assert found["difference_ci"] == pytest.approx([expected.low, expected.high])
    expected = ttest_rel(SCORES[5], SCORES.mean(0)).confidence_interval(0.95)
    assert found["select"]["gain_ci"] == pytest.approx([expected.low, expected.high])


def test_each_way_of_choosing_has_the_same_figures():
    train, select = RNG.random(6), RNG.random(6)
    one, other = (choosing(*pair, TEST, SCORES, EVERYONE, True) for pair in ((train, select), (select, train)))
    assert {**one["select"], "n": 6} == {key: other[key] for key in ("spearman", "p", "regret", "n", "gain", "gain_ci")}
    assert one["difference"] == -other["difference"]


def test_where_lower_is_better_a_gain_is_still_positive():
    errors = 1 - SCORES
    everyone = Reached(float(errors.mean()), errors.mean(0))
    train, select = RNG.random(6), RNG.random(6)
    found = choosing(-train, -select, errors.mean(1), errors, everyone, False)
    same = choosing(train, select, TEST, SCORES, EVERYONE, True)
    for key in ("gain", "difference", "regret", "gain_ci", "difference_ci"):
        assert found[key] == pytest.approx(same[key])


def test_equals_on_what_chooses_count_as_their_mean():
    train = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    found = choosing(train, np.zeros(6), TEST, SCORES, EVERYONE, True)
    assert found["gain"] == pytest.approx(TEST[:3].mean() - TEST.mean())
    assert found["select"]["gain"] == pytest.approx(0, abs=1e-12)
    assert found["select"]["spearman"] is None


def test_the_same_choice_differs_by_nothing():
    train = np.arange(6.0)
    found = choosing(train, 2 * train, TEST, SCORES, EVERYONE, True)
    assert (found["difference"], found["difference_ci"]) == (0.0, [0.0, 0.0])
