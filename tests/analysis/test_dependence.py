import numpy as np
import pytest

from pdiff.analysis.dependence import blocks, independent_units, integrated_time


def autoregressive(phi, steps, series=1, seed=0):
    """Return series `(B, T)` with x_t = phi x_{t-1} + eps from their stationary distribution; tau (1+phi) / (1-phi)."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal(series) / np.sqrt(1 - phi**2)]
    for _ in range(steps - 1):
        x.append(phi * x[-1] + rng.standard_normal(series))
    return np.stack(x, 1)


def time_of(values, branches=None, cautious=False):
    values = values.reshape(len(values), -1)
    centred = values - values.mean(0)
    return integrated_time(centred @ centred.T, np.zeros(len(values)) if branches is None else branches, cautious)


@pytest.mark.parametrize("cautious", [True, False])
@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8, 0.9])
def test_the_time_of_an_autoregressive_series_is_the_known_one(phi, cautious):
    found = np.mean([time_of(autoregressive(phi, 2000, seed=seed)[0], cautious=cautious) for seed in range(5)])
    assert found == pytest.approx((1 + phi) / (1 - phi), rel=0.2)


@pytest.mark.parametrize(("phi", "steps", "share"), [(0.99, 30, 0.05), (0.9, 30, 0.05), (0.95, 100, 0.05)])
def test_a_series_too_short_for_its_time_does_not_pass_for_independent(phi, steps, share):
    found = np.array([time_of(autoregressive(phi, steps, seed=seed)[0], cautious=True) for seed in range(100)])
    assert np.mean(found < 1.5) <= share
    assert np.median(found) > steps / 10


def test_independent_rows_rarely_look_dependent():
    found = np.array([time_of(autoregressive(0.0, 100, seed=seed)[0], cautious=True) for seed in range(100)])
    assert np.mean(found < 1.5) > 0.85


@pytest.mark.parametrize("phi", [0.0, 0.8])
def test_vectors_tell_the_time_with_fewer_rows(phi):
    assert time_of(autoregressive(phi, 600, series=50).T) == pytest.approx((1 + phi) / (1 - phi), rel=0.2)


def test_no_lag_reaches_from_one_branch_to_the_next():
    values = autoregressive(0.8, 200, series=20)
    branches = np.repeat(np.arange(20), 200)
    assert time_of(values.reshape(-1), branches) == pytest.approx(9, rel=0.2)
    interleaved = time_of(values.T.reshape(-1), np.tile(np.arange(20), 200))
    assert interleaved == pytest.approx(time_of(values.reshape(-1), branches))


def test_branches_apart_are_as_long_as_their_time():
    values = np.repeat([0.0, 5.0, 9.0], 40) + 0.1 * np.random.default_rng(0).standard_normal(120)
    assert time_of(values, np.repeat(np.arange(3), 40)) == 40


@pytest.mark.parametrize("values", [np.ones(10), np.ones((10, 3)), np.ones(1), (-1.0) ** np.arange(20)])
def test_constant_single_and_alternating_rows_have_the_least_time(values):
    assert time_of(values) == 1


def units(tau, branches, lineages=None, **given):
    lineages = np.zeros(len(branches)) if lineages is None else lineages
    return independent_units(tau, np.array(branches), np.array(lineages), **given)


def test_lineages_come_before_branches_and_branches_before_blocks():
    branches = np.repeat(np.arange(8), 10)
    assert units(1, branches, branches // 2).tolist() == (branches // 2).tolist()
    assert units(1, branches, branches // 4).tolist() == branches.tolist()
    assert units(1, branches // 4, fewest=2).tolist() == (branches // 4).tolist()


def test_blocks_inside_branches_are_at_least_two_times_long_and_nearly_equal():
    found = units(4.6, [0] * 45 + [1] * 25)
    assert np.bincount(found).tolist() == [12, 11, 11, 11, 13, 12]
    assert found.tolist() == sorted(found)


def test_a_branch_shorter_than_two_times_is_one_block():
    assert blocks(10, np.array([0] * 5 + [1] * 45)).tolist() == [0] * 5 + [1] * 23 + [2] * 22


def test_too_few_blocks_are_no_units():
    assert units(10, [0] * 79) is None
    assert len(np.unique(units(10, [0] * 80))) == 4


def test_rows_of_a_series_without_dependence_are_units():
    assert units(1.2, [0] * 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert units(1.2, [0] * 3) is None
