"""Figures of a source by their mathematics."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from pdiff.analysis.statistics import (
    Component,
    Difference,
    Values,
    best_index,
    best_of,
    best_rows,
    choice,
    clustered,
    contrast,
    mean_interval,
    missing,
    ranked,
    sample_interval,
    superiority,
    tied_means,
)


def values(metrics, units=None, columns=None, **settings) -> Values:
    """Return values of a source."""
    return Values("source", np.asarray(metrics, dtype=float), units, columns, **settings)


def difference(first, second, higher_is_better=True) -> Difference:
    """Return the difference of two sources without units."""
    return contrast(values(first), values(second), higher_is_better)


def tabled(scores) -> Values:
    """Return a source with the mean score of each sample, from scores `(M, S)`."""
    return values(scores.mean(1), columns=scores.mean(0))


def table(rng, candidates, quality, hardness):
    """Return boolean scores `(candidates, S)` of candidates that share the hardness `(S,)` of the samples."""
    ability = quality + 0.1 * rng.standard_normal((candidates, 1))
    return ability - hardness + 0.3 * rng.standard_normal((candidates, len(hardness))) > 0


def known(difference, *components, family=1) -> Difference:
    """Return a difference with components of some variance, degrees of freedom and count."""
    named = (Component(f"draws {i}", *component) for i, component in enumerate(components))
    return Difference(difference, tuple(named), family)


def test_the_best_is_by_the_direction_of_the_metric_and_the_first_among_equals():
    select = np.array([0.2, 0.9, 0.9, 0.1, 0.1])
    assert best_index(select, higher_is_better=True) == 1
    assert best_index(select, higher_is_better=False) == 3


def test_all_that_are_equal_to_the_best_are_best():
    select = np.array([0.2, 0.9, 0.9, 0.1, 0.1])
    assert best_rows(select, True).tolist() == [1, 2]
    assert best_rows(select, False).tolist() == [3, 4]
    assert best_rows(np.full(3, -np.inf), True).tolist() == [0, 1, 2]


def test_equals_on_select_count_as_their_living_average():
    select, test = np.array([0.5, 0.7, 0.5, 0.5, 0.9]), np.array([0.1, 0.4, 0.3, -np.inf, -np.inf])
    assert tied_means(select, test) == pytest.approx([0.2, 0.4, 0.2, 0.2, -np.inf])


def test_variance_of_a_mean_of_independent_values_is_the_usual_one():
    drawn = np.random.default_rng(0).random(20)
    for units in (None, np.arange(20), np.arange(20)[::-1] * 3):
        found = clustered(drawn, units, "draws")
        assert found.variance == pytest.approx(drawn.var(ddof=1) / 20)
        assert (found.freedom, found.count) == (19, 20)


def test_variance_of_equal_units_is_that_of_their_means():
    drawn, units = np.random.default_rng(0).random(20), np.repeat(np.arange(5), 4)
    found = clustered(drawn, units, "branches")
    assert found.variance == pytest.approx(drawn.reshape(5, 4).mean(1).var(ddof=1) / 5)
    assert (found.freedom, found.count) == (4, 5)


def test_variance_of_one_unit_cannot_be_told():
    assert math.isnan(clustered(np.arange(4.0), np.zeros(4), "branches").variance)
    assert math.isnan(clustered(np.ones(1), None, "draws").variance)


def test_an_interval_over_few_units_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(4), 6)
    drawn = rng.normal(0, 1, (1500, 4))[:, units] + rng.normal(0, 0.3, (1500, 24))
    covered = [low <= 0 <= high for low, high in (mean_interval(values(row, units)) for row in drawn)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.017)
    as_if_independent = [low <= 0 <= high for low, high in (mean_interval(values(row)) for row in drawn[:300])]
    assert np.mean(as_if_independent) < 0.75, "units matter here"


def test_intervals_of_two_sources_of_different_units_cover_no_difference():
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(4), 5)
    first = rng.normal(0, 1, (1000, 4))[:, units] + rng.normal(0, 0.3, (1000, 20))
    second = rng.normal(0, 0.5, (1000, 30))
    found = [contrast(values(a, units), values(b), True) for a, b in zip(first, second, strict=True)]
    assert np.mean([low <= 0 <= high for low, high in (f.interval for f in found)]) == pytest.approx(0.95, abs=0.02)
    assert np.mean([f.p < 0.5 for f in found]) == pytest.approx(0.5, abs=0.05)


def test_the_interval_of_a_mean_is_that_of_scipy():
    from scipy.stats import t

    scores = np.random.default_rng(0).exponential(size=80)
    theirs = t.interval(0.95, 79, scores.mean(), scores.std(ddof=1) / 80**0.5)
    assert mean_interval(values(scores)) == pytest.approx(theirs)
    assert sample_interval(scores) == pytest.approx(theirs)


def test_the_difference_of_two_sources_is_welchs():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    first, second = rng.normal(0.3, 1, 12), rng.normal(0, 2, 7)
    theirs = ttest_ind(first, second, equal_var=False)
    found = difference(first, second)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))


@pytest.mark.parametrize("value", [0.1, 1.0])
def test_the_interval_of_values_that_never_differ_is_a_point(value):
    assert mean_interval(values(np.full(5, value))) == pytest.approx((value, value))
    assert sample_interval(np.full(5, value)) == pytest.approx((value, value))


def test_a_single_value_has_no_interval():
    assert mean_interval(values([0.5])) is None
    assert sample_interval(np.ones(1)) is None


def test_what_is_too_dependent_has_no_interval():
    assert mean_interval(values([0.5, 0.6, 0.7], dependent=True)) is None
    found = contrast(values([0.5, 0.6, 0.7], dependent=True), values([0.4, 0.5]), True)
    assert (found.interval, found.simultaneous, found.p, found.p_adjusted) == (None, None, None, None)


def test_effective_candidates_are_as_many_as_there_are_units_of_equal_ones():
    drawn = np.random.default_rng(0).random(5)
    assert values(np.repeat(drawn, 4), np.repeat(np.arange(5), 4)).effective == pytest.approx(5, rel=0.25)
    assert values(drawn).effective == pytest.approx(5)
    assert values([0.5]).effective == 1
    assert values(drawn, dependent=True).effective == 1
    assert values(np.ones(5), np.zeros(5)).effective == 1, "one unit"


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


def test_pairing_lets_the_hardness_of_the_samples_cancel():
    rng = np.random.default_rng(0)
    hardness = rng.standard_normal(300)
    first, second = (tabled(table(rng, 30, quality, hardness)) for quality in (0.6, 0.5))
    shuffled = replace(second, columns=rng.permutation(second.columns))
    paired, apart = contrast(first, second, True), contrast(first, shuffled, True)
    assert np.ptp(paired.interval) < 0.5 * np.ptp(apart.interval)
    assert paired.p < 0.05


def test_an_interval_over_candidates_and_samples_covers_no_difference_and_errs_on_the_wide_side():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(300):
        hardness = rng.standard_normal(60)
        first, second = (tabled(table(rng, count, 0.5, hardness)) for count in (20, 30))
        low, high = contrast(first, second, True).interval
        covered.append(low <= 0 <= high)
    assert np.mean(covered) >= 0.93


def test_samples_count_only_where_both_sources_have_them():
    rng = np.random.default_rng(0)
    scored, plain = tabled(rng.random((6, 40))), values(rng.random(6))
    assert [c.what for c in contrast(scored, scored, True).components][2:] == ["test samples"]
    assert len(contrast(scored, plain, True).components) == 2


def test_two_single_candidates_without_scores_have_no_interval():
    found = difference([0.9], [0.5])
    assert found.difference == pytest.approx(0.4)
    assert not found.known
    assert (found.interval, found.p) == (None, None)


def test_two_single_candidates_differ_by_their_samples():
    rng = np.random.default_rng(0)
    found = contrast(tabled(rng.random((1, 50))), tabled(rng.random((1, 50))), True)
    assert found.known
    assert found.freedom == pytest.approx(49)


@pytest.mark.parametrize("value", [0.1, 0.7])
def test_sources_that_never_differ_are_not_told_apart(value):
    found = difference(np.full(5, value), np.full(3, value))
    assert (found.difference, found.p) == (0, 1)
    many = contrast(
        values(np.full(200, value), columns=np.full(9, value)), values([value], columns=np.full(9, value)), True
    )
    assert many.p == 1, "the rounding of a mean is no difference"


def test_sources_that_never_vary_differ_surely():
    found = difference(np.full(4, 0.75), np.full(4, 0.5))
    assert (found.interval, found.p) == ((0.25, 0.25), 0.0)


def test_the_simultaneous_interval_holds_zero_where_the_adjusted_p_is_not_significant():
    for family, gain in itertools.product((1, 3, 40), np.linspace(-4, 4, 81)):
        found = known(gain, (0.5, 4, 5), (0.7, 30, 31), family=family)
        low, high = found.simultaneous
        assert (low <= 0 <= high) == (found.p_adjusted >= 0.05)
        assert found.p_adjusted == min(1.0, family * found.p)
        assert low <= found.interval[0]


def test_degrees_of_freedom_are_those_of_satterthwaite():
    assert known(0.0, (2.0, 7, 8)).freedom == pytest.approx(7)
    assert known(0.0, (1.0, 5, 6), (1.0, 5, 6)).freedom == pytest.approx(10)
    assert known(0.0, (1.0, 5, 6), (1e-9, 99, 100)).freedom == pytest.approx(5)


def test_what_decides_does_decide():
    rng = np.random.default_rng(0)
    for _ in range(50):
        parts = [(variance, count - 1, count) for variance, count in zip(rng.random(3), (5, 20, 900), strict=True)]
        found = known(0.0, *parts)
        distance = 0.9 * found.quantile() * math.sqrt(found.variance)
        line = missing(found, distance)
        number, what = int(line.split()[1]), line.split(" (now")[0].split(maxsplit=2)[2]
        more = [
            replace(c, variance=c.variance * c.count / number, count=number, freedom=c.freedom + number - c.count)
            if c.what == what
            else c
            for c in found.components
        ]
        assert sum(c != old for c, old in zip(more, found.components, strict=True)) == 1, line
        assert Difference(0.0, tuple(more)).interval[1] <= distance * 1.0001


def test_the_draws_that_need_the_smallest_factor_are_named():
    found = known(0.0, (1.0, 9, 10), (0.01, 999, 1000))
    assert missing(found, 1.0).startswith("about ")
    assert "draws 0 (now 10) would decide" in missing(found, 1.0)


def test_where_no_draws_suffice_alone_all_are_named():
    found = known(0.0, (1.0, 9, 10), (1.0, 9, 10))
    assert missing(found, 0.5).endswith("times as many of everything that was drawn would decide")


@pytest.mark.parametrize("higher_is_better", [True, False])
@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_best_of_is_the_mean_over_every_draw(k, higher_is_better):
    rng = np.random.default_rng(k)
    select, test = rng.integers(0, 4, 6) / 4, rng.random(6)  # with equals on select
    draws = [np.array(draw) for draw in itertools.combinations(range(6), k)]
    expected = np.mean([test[draw[best_rows(select[draw], higher_is_better)]].mean() for draw in draws])
    assert best_of(select, test, k, higher_is_better) == pytest.approx(expected, rel=1e-12)


def test_best_of_all_is_the_chosen_candidate_and_best_of_one_the_mean():
    rng = np.random.default_rng(0)
    select, test = rng.integers(0, 9, 300) / 9, rng.random(300)
    assert best_of(select, test, 300, True) == pytest.approx(test[best_rows(select, True)].mean())
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


def test_which_of_equals_comes_first_does_not_matter():
    rng = np.random.default_rng(0)
    select, test = rng.integers(0, 3, 12) / 3, rng.random(12)
    for k in (1, 3, 12):
        shuffled = rng.permutation(12)
        assert best_of(select[shuffled], test[shuffled], k, True) == pytest.approx(best_of(select, test, k, True))


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_superiority_counts_the_pairs_that_the_first_wins_and_half_of_the_equal_ones(higher_is_better):
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, 9) / 6, rng.integers(0, 6, 7) / 6
    sign = 1 if higher_is_better else -1
    won = np.mean([(np.sign(sign * (a - b)) + 1) / 2 for a in first for b in second])
    assert superiority(values(first), values(second), higher_is_better).difference == pytest.approx(won)
    assert superiority(values(second), values(first), higher_is_better).difference == pytest.approx(1 - won)


def test_neither_is_superior_where_all_are_equal():
    assert superiority(values(np.ones(3)), values(np.ones(2)), True).difference == 0.5


def test_the_dead_lose_against_the_living_and_equal_each_other():
    def share(first, second, higher):
        return superiority(values(first), values(second), higher).difference

    assert share([-np.inf, 0.5], [-np.inf, 0.4], True) == 5 / 8
    assert share([np.inf, 0.5], [0.6], False) == 0.5
    assert share([np.inf, np.inf], [0.6], False) == 0


def test_the_interval_of_superiority_covers_one_half_of_equal_sources():
    rng = np.random.default_rng(0)
    found = [superiority(values(rng.random(15)), values(rng.random(20)), True).interval for _ in range(600)]
    assert np.mean([low <= 0.5 <= high for low, high in found]) == pytest.approx(0.95, abs=0.03)


def test_the_interval_of_superiority_knows_what_candidates_share():
    rng = np.random.default_rng(0)
    first, second, units = rng.random(24), rng.random(24), np.repeat(np.arange(6), 4)
    shared = np.repeat(first[:6], 4)
    alone, grouped = (
        superiority(values(shared), values(second), True),
        superiority(values(shared, units), values(second), True),
    )
    assert grouped.difference == alone.difference
    assert np.ptp(grouped.interval) > 1.3 * np.ptp(alone.interval)
    assert not superiority(values(shared, dependent=True), values(second), True).known


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
