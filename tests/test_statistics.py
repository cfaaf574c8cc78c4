"""Figures of a source by their mathematics."""

import numpy as np
import pytest

from pdiff.statistics import best_index, describe, mean_interval, ranked


def test_the_best_is_by_the_direction_of_the_metric_and_the_first_among_equals():
    select = np.array([0.2, 0.9, 0.9, 0.1, 0.1])
    assert best_index(select, higher_is_better=True) == 1
    assert best_index(select, higher_is_better=False) == 3


@pytest.mark.parametrize(("higher_is_better", "worst"), [(True, 1.0), (False, 6.0)])
def test_describe_gives_mean_sample_deviation_median_and_worst(higher_is_better, worst):
    figures = describe(np.array([1.0, 2.0, 3.0, 6.0]), higher_is_better)
    assert figures == {"mean": 3.0, "std": pytest.approx(np.sqrt(14 / 3)), "median": 2.5, "worst": worst}


def test_one_candidate_has_no_deviation():
    assert describe(np.array([0.5]), True) == {"mean": 0.5, "std": 0.0, "median": 0.5, "worst": 0.5}


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


def test_mean_interval_repeats_with_its_seed():
    scores = np.random.default_rng(0).random(50)
    assert mean_interval(scores, 100, 3) == mean_interval(scores, 100, 3)
    assert mean_interval(scores, 100, 3) != mean_interval(scores, 100, 4)


@pytest.mark.parametrize("scores", [np.ones(5, dtype=bool), np.zeros(5), np.array([0.25])])
def test_mean_interval_of_scores_that_never_differ_is_a_point(scores):
    assert mean_interval(scores, 100, 0) == (scores[0], scores[0])


@pytest.mark.parametrize(("higher", "expected"), [(True, [1, 2, 3]), (False, [3, 2, 1])])
def test_ranked_goes_evenly_from_the_best_to_the_worst(higher, expected):
    select = np.array([3.0, 9.0, 4.0, 1.0, 5.0])
    assert ranked(select, higher, 3).tolist() == expected


def test_ranked_takes_all_where_there_are_fewer_and_the_first_among_equals():
    assert ranked(np.array([2.0, 2.0, np.inf]), False, 8).tolist() == [0, 1, 2]
    assert ranked(np.array([1.0]), True, 8).tolist() == [0]
