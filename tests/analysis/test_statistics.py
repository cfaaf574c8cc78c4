"""Figures of a source by their mathematics."""

import itertools

import numpy as np
import pytest

from pdiff.analysis.statistics import (
    best_index,
    best_of,
    choice,
    differences,
    holm,
    mean_interval,
    ranked,
    superiority,
)


def difference(first, second, higher_is_better=True, resamples=500, seed=0):
    """Return the difference of two sources."""
    return differences(first, {"other": second}, higher_is_better, resamples, seed)["other"]


def table(rng, candidates, quality, hardness):
    """Return boolean scores `(candidates, S)` of candidates that share the hardness `(S,)` of the samples."""
    ability = quality + 0.1 * rng.standard_normal((candidates, 1))
    return ability - hardness + 0.3 * rng.standard_normal((candidates, len(hardness))) > 0


def test_the_best_is_by_the_direction_of_the_metric_and_the_first_among_equals():
    select = np.array([0.2, 0.9, 0.9, 0.1, 0.1])
    assert best_index(select, higher_is_better=True) == 1
    assert best_index(select, higher_is_better=False) == 3


def test_mean_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for repetition in range(200):
        low, high = mean_interval(rng.random(100) < 0.7, 200, repetition)
        hits += low <= 0.7 <= high
    assert 0.90 <= hits / 200 <= 0.985


def test_mean_interval_holds_the_mean_and_shrinks_with_the_samples():
    scores = np.random.default_rng(0).random(1600)
    widths = []
    for count in (100, 1600):
        low, high = mean_interval(scores[:count], 500, 0)
        assert low < scores[:count].mean() < high
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_mean_interval_is_that_of_scipy():
    from scipy.stats import bootstrap

    scores = np.random.default_rng(0).exponential(size=80)
    theirs = bootstrap((scores,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1))
    assert mean_interval(scores, 5000, 0) == pytest.approx(tuple(theirs.confidence_interval), rel=0.02)


def test_mean_interval_repeats_with_its_seed():
    scores = np.random.default_rng(0).random(50)
    assert mean_interval(scores, 100, 3) == mean_interval(scores, 100, 3)
    assert mean_interval(scores, 100, 3) != mean_interval(scores, 100, 4)


@pytest.mark.parametrize("scores", [np.ones(5, dtype=bool), np.zeros(5), np.full(3, 0.1), np.array([0.25])])
def test_mean_interval_of_scores_that_never_differ_is_a_point(scores):
    assert mean_interval(scores, 100, 0) == (scores[0], scores[0])


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_best_of_is_the_mean_over_every_draw(k, higher_is_better):
    rng = np.random.default_rng(k)
    select, test = rng.integers(0, 4, 6) / 4, rng.random(6)  # with equals on select
    draws = [np.array(draw) for draw in itertools.combinations(range(6), k)]
    expected = np.mean([test[draw[best_index(select[draw], higher_is_better)]] for draw in draws])
    assert best_of(select, test, k, higher_is_better) == pytest.approx(expected, rel=1e-12)


def test_best_of_all_is_the_chosen_candidate_and_best_of_one_the_mean():
    rng = np.random.default_rng(0)
    select, test = rng.integers(0, 9, 300) / 9, rng.random(300)
    assert best_of(select, test, 300, True) == test[best_index(select, True)]
    assert best_of(select, test, 1, True) == pytest.approx(test.mean())
    assert best_of(select, test, 500, True) == best_of(select, test, 300, True), "a source offers what it has"


def test_best_of_grows_with_the_budget_when_the_choice_is_by_the_metric_itself():
    test = np.random.default_rng(0).random(50)
    values = [best_of(test, test, k, True) for k in range(1, 51)]
    assert np.all(np.diff(values) > 0)


def test_best_of_is_over_the_living():
    select, test = np.array([-np.inf, 0.5, 0.7, -np.inf]), np.array([-np.inf, 0.4, 0.6, -np.inf])
    assert best_of(select, test, 1, True) == pytest.approx(0.5)
    assert best_of(select, test, 2, True) == pytest.approx((3 * 0.6 + 2 * 0.4) / 5), "five draws of six, one all dead"
    assert best_of(select, test, 4, True) == 0.6
    assert np.isnan(best_of(select[:1], test[:1], 1, True))


def test_difference_is_that_of_the_means_and_positive_where_the_first_is_better():
    first, second = np.array([0.8, 0.9]), np.array([0.5, 0.7, 0.6])
    assert difference(first, second, True).difference == pytest.approx(0.25)
    assert difference(first, second, False).difference == pytest.approx(-0.25)
    assert difference(second, first, False).difference == pytest.approx(0.25)


def test_the_interval_of_a_minimised_metric_is_mirrored():
    rng = np.random.default_rng(0)
    first, second = rng.random(20), rng.random(30)
    up, down = difference(first, second, True), difference(first, second, False)
    assert down.interval == pytest.approx((-up.interval[1], -up.interval[0]))
    assert down.p == up.p


def test_difference_of_metrics_has_the_interval_of_two_independent_means():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.3, 1, 200), rng.normal(0, 2, 100)
    error = np.sqrt(first.var() / 200 + second.var() / 100)
    found = difference(first, second, resamples=5000)
    centre = first.mean() - second.mean()
    assert found.interval == pytest.approx((centre - 1.96 * error, centre + 1.96 * error), abs=0.1 * error)


@pytest.mark.parametrize("scored", [True, False])
def test_an_interval_covers_no_difference_and_p_is_even_when_there_is_none(scored):
    rng = np.random.default_rng(1)
    found = []
    for repetition in range(200):
        hardness = rng.standard_normal(60)
        pair = [table(rng, count, 0.5, hardness) if scored else rng.random(count) for count in (20, 30)]
        found.append(difference(*pair, resamples=200, seed=repetition))
    covered = np.mean([low <= 0 <= high for low, high in (f.interval for f in found)])
    below = np.mean([f.p < 0.5 for f in found])
    # Cells' own part of the variance is counted twice: with scores, intervals are wider than they need be.
    assert (0.93 if scored else 0.89) <= covered <= (1.0 if scored else 0.99)
    assert (0.2 if scored else 0.38) <= below <= 0.62


def test_pairing_lets_the_hardness_of_the_samples_cancel():
    rng = np.random.default_rng(0)
    hardness = rng.standard_normal(300)
    first, second = table(rng, 30, 0.6, hardness), table(rng, 30, 0.5, hardness)
    paired, shuffled = difference(first, second), difference(first, rng.permuted(second, axis=1))
    assert np.ptp(paired.interval) < 0.5 * np.ptp(shuffled.interval)
    assert paired.p < 0.05


def test_difference_over_candidates_and_samples_is_as_wide_as_resampling_the_table_itself():
    rng = np.random.default_rng(0)
    hardness = rng.standard_normal(80)
    first, second = table(rng, 12, 0.7, hardness), table(rng, 15, 0.5, hardness)
    drawn = []
    for _ in range(2000):
        columns = rng.integers(80, size=80)
        rows = [rng.integers(len(t), size=len(t)) for t in (first, second)]
        drawn.append(first[rows[0]][:, columns].mean() - second[rows[1]][:, columns].mean())
    by_table = np.percentile(drawn, (2.5, 97.5))
    found = difference(first, second, resamples=4000)
    assert 0.85 * np.ptp(by_table) < np.ptp(found.interval) < 1.02 * np.ptp(by_table)
    assert np.mean(found.interval) == pytest.approx(by_table.mean(), abs=0.05 * np.ptp(by_table))


def test_one_average_against_many_differs_by_candidates_and_samples():
    rng = np.random.default_rng(0)
    hardness = rng.standard_normal(100)
    many, one = table(rng, 40, 0.5, hardness), table(rng, 1, 0.5, hardness)
    found = difference(many, one)
    assert found.interval[0] < found.difference < found.interval[1]


@pytest.mark.parametrize("shape", [(5,), (5, 8)])
@pytest.mark.parametrize("value", [0.1, 0.7])
def test_sources_that_never_differ_are_not_told_apart(shape, value):
    first, second = np.full(shape, value), np.full((3, *shape[1:]), value)
    found = difference(first, second)
    assert abs(found.difference) < 1e-15
    assert found.p == 1


def test_where_nothing_can_be_drawn_the_interval_says_nothing():
    found = difference(np.array([0.9]), np.array([0.5]))
    assert found.difference == pytest.approx(0.4)
    assert (found.interval, found.p) == ((-np.inf, np.inf), 1.0)
    scored = difference(np.array([[1.0, 1, 0, 1]]), np.array([[1.0, 0, 0, 0]]))
    assert np.isfinite(scored.interval).all()


def test_p_is_small_where_the_interval_is_far_from_zero_and_never_zero():
    rng = np.random.default_rng(0)
    assert difference(rng.random(50) + 1, rng.random(50), resamples=999).p == pytest.approx(2 / 1000)


def test_differences_repeat_with_their_seed():
    rng = np.random.default_rng(0)
    first, others = rng.random(20), {"a": rng.random(10), "b": rng.random(12)}
    assert differences(first, others, True, 100, 3) == differences(first, others, True, 100, 3)
    assert differences(first, others, True, 100, 3) != differences(first, others, True, 100, 4)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_superiority_counts_the_pairs_that_the_first_wins_and_half_of_the_equal_ones(higher_is_better):
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, 9) / 6, rng.integers(0, 6, 7) / 6
    sign = 1 if higher_is_better else -1
    won = np.mean([(np.sign(sign * (a - b)) + 1) / 2 for a in first for b in second])
    assert superiority(first, second, higher_is_better) == pytest.approx(won)
    assert superiority(second, first, higher_is_better) == pytest.approx(1 - won)


def test_neither_is_superior_where_all_are_equal():
    assert superiority(np.ones(3), np.ones(2), True) == 0.5


def test_the_dead_lose_against_the_living_and_equal_each_other():
    assert superiority(np.array([-np.inf, 0.5]), np.array([-np.inf, 0.4]), True) == 5 / 8
    assert superiority(np.array([np.inf, 0.5]), np.array([0.6]), False) == 0.5
    assert superiority(np.array([np.inf, np.inf]), np.array([0.6]), False) == 0


def test_holm_steps_down_from_the_smallest():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == pytest.approx([0.2])
    assert len(holm([])) == 0


def test_holm_rejects_what_the_procedure_rejects_one_by_one():
    rng = np.random.default_rng(0)
    for _ in range(100):
        p, level = rng.random(8) ** 4, 0.05
        rejected = np.zeros(8, dtype=bool)
        for step, index in enumerate(np.argsort(p)):
            if p[index] >= level / (8 - step):
                break
            rejected[index] = True
        assert np.array_equal(holm(p) < level, rejected)


def test_a_perfect_choice_has_no_regret_and_a_reversed_one_the_largest():
    test = np.array([0.1, 0.4, 0.9, 0.3])
    perfect, reversed_ = choice(2 * test, test, True), choice(-test, test, True)
    assert (perfect.spearman, perfect.regret, perfect.n) == (pytest.approx(1), 0, 4)
    assert (reversed_.spearman, reversed_.regret) == (pytest.approx(-1), pytest.approx(0.8))
    assert choice(-test, test, False).regret == pytest.approx(0.8)
    assert choice(test, test, False).regret == 0


def test_choosing_blindly_correlates_by_chance_only():
    rng = np.random.default_rng(0)
    p = [choice(rng.random(20), rng.random(20), True).p for _ in range(300)]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09


@pytest.mark.parametrize(
    ("train", "test"), [([0.5] * 4, [0.1, 0.2, 0.3, 0.4]), ([0.1, 0.2, 0.3, 0.4], [0.5] * 4), ([0.1, 0.2], [0.3, 0.4])]
)
def test_what_never_differs_or_is_too_few_has_no_correlation(train, test):
    found = choice(np.array(train), np.array(test), True)
    assert (found.spearman, found.p) == (None, None)
    assert found.regret == pytest.approx(test[-1] - test[0] if train[0] == train[1] else 0)


@pytest.mark.parametrize(("higher", "expected"), [(True, [1, 2, 3]), (False, [3, 2, 1])])
def test_ranked_goes_evenly_from_the_best_to_the_worst(higher, expected):
    select = np.array([3.0, 9.0, 4.0, 1.0, 5.0])
    assert ranked(select, higher, 3).tolist() == expected


def test_ranked_takes_all_where_there_are_fewer_and_the_first_among_equals():
    assert ranked(np.array([2.0, 2.0, np.inf]), False, 8).tolist() == [0, 1, 2]
    assert ranked(np.array([1.0]), True, 8).tolist() == [0]
