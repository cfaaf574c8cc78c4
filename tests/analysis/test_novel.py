"""New and good at once: what counts, and in which units."""

import numpy as np
import pytest

from pdiff.analysis.novel import MULTIPLES, Bar, novel_figures, words_for_novel

DISTANCES = np.array([1.0, 2.0, 3.0, np.inf])


@pytest.mark.parametrize(("higher", "expected"), [(True, 0.8), (False, 1.0)])
def test_the_bar_is_the_median_nearest_distance_and_the_mean_less_the_margin(higher, expected):
    assert Bar.of(DISTANCES, 0.9, 0.1, higher) == Bar(2.0, pytest.approx(expected), higher)


def test_a_candidate_counts_where_it_is_both_new_and_good():
    bar = Bar(2.0, 0.8)
    distances, metrics = np.array([0.0, 1.0, 2.0, 4.0, 4.0]), np.array([0.9, 0.9, 0.8, 0.7, 0.95])
    assert bar.shares(distances, metrics, MULTIPLES) == [0.6, 0.4, 0.2]


@pytest.mark.parametrize("higher", [True, False])
def test_a_network_that_gives_nothing_finite_is_not_good(higher):
    lost = np.array([np.nan, -np.inf, np.inf])
    assert Bar(1.0, 0.5, higher).shares(np.full(3, 9.0), lost, [1]) == [0.0]


def test_of_a_metric_that_is_the_better_the_lower_those_below_the_bar_are_good():
    assert Bar(1.0, 0.5, False).shares(np.full(4, 9.0), np.array([0.1, 0.5, 0.6, 0.7]), [1]) == [0.5]


def test_disagreement_is_one_less_the_mean_similarity_to_the_most_similar():
    distances, metrics = {"a": np.ones(3), "b": np.ones(1)}, {"a": np.ones(3), "b": np.ones(1)}
    similarities = {"a": np.array([0.5, 0.7, np.nan]), "b": np.array([np.nan])}
    found = novel_figures(Bar(1.0, 0.5), distances, metrics, similarities)
    assert found == {
        "a": {"shares": [1.0, 1.0, 0.0], "disagreement": pytest.approx(0.4)},
        "b": {"shares": [1.0, 1.0, 0.0], "disagreement": None},
    }


def test_words_name_each_multiple():
    line = "new and good at once: of the generated 60% at 0.5, 40% at 1, 20% at 2 times the zoo's own nearest distance"
    assert words_for_novel([0.6, 0.4, 0.2]) == line
