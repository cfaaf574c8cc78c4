"""Similarity, averaging and novelty by their mathematics."""

import numpy as np
import pytest
import torch

from pdiff.analysis.novelty import averaging, largest, novelty, pareto_front, surely_below
from pdiff.analysis.statistics import Values
from pdiff.task.similarity import error_iou
from pdiff.weights.origin import FILES, UNKNOWN


@pytest.fixture
def rng():
    """Return a seeded generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def wrong(rng):
    """Return signatures `(6, 40)`, booleans."""
    return torch.rand(6, 40, generator=rng) < 0.3


def test_error_iou_is_intersection_over_union_of_the_errors():
    a = torch.tensor([[1, 1, 1, 0, 0]]).bool()
    b = torch.tensor([[0, 1, 1, 1, 0], [0, 0, 0, 0, 1]]).bool()
    assert torch.equal(error_iou(a, b), torch.tensor([[0.5, 0.0]]))


def test_error_iou_is_one_with_itself_and_symmetric(wrong):
    table = error_iou(wrong, wrong)
    assert torch.equal(table.diagonal(), torch.ones(6))
    assert torch.equal(table, table.T)
    assert ((table >= 0) & (table <= 1)).all()
    assert torch.equal(error_iou(wrong[:2], wrong[2:]), table[:2, 2:])


def test_error_iou_does_not_depend_on_the_order_of_the_samples(wrong, rng):
    order = torch.randperm(40, generator=rng)
    assert torch.equal(error_iou(wrong[:, order], wrong[:, order]), error_iou(wrong, wrong))


def test_candidates_that_are_never_wrong_are_alike_and_unlike_any_other():
    never, once = torch.zeros(1, 4).bool(), torch.tensor([[0, 1, 0, 0]]).bool()
    assert error_iou(never, never).item() == 1
    assert error_iou(never, once).item() == 0


def test_largest_similarity_is_over_the_columns_that_count():
    table = np.array([[1.0, 0.2, 0.5], [0.2, 1.0, 0.7]])
    assert largest(table, np.array([True, True, True])).tolist() == [1.0, 1.0]
    assert largest(table, np.array([False, True, True])).tolist() == [0.5, 1.0]


def test_largest_similarity_leaves_out_pairs_that_are_not_apart_and_is_nan_where_none_is_left():
    table, everyone = np.array([[1.0, 0.2], [0.2, 1.0]]), np.array([True, True])
    assert largest(table, everyone, np.eye(2, dtype=bool)).tolist() == [0.2, 0.2]
    found = largest(table, everyone, np.array([[True, True], [False, True]]))
    assert np.isnan(found[0])
    assert found[1] == 0.2


def named(name, metrics, **settings) -> Values:
    """Return values of a source."""
    return Values(name, np.asarray(metrics, dtype=float), **settings)


def averaged(generated, trained, averages):
    """Return what is found of similarities to the soup."""
    return averaging(named("generated", generated), named("trained", trained), named("soup16", averages))


def test_averages_are_told_from_the_trained_and_candidates_from_either():
    rng = np.random.default_rng(0)
    trained, averages = rng.normal(0.88, 0.03, 300), rng.normal(0.97, 0.01, 100)
    assert averaged(averages[::2], trained, averages).average_like
    assert averaged(np.ones(5), trained, averages).average_like
    found = averaged(trained, trained, averages)
    assert not found.average_like
    assert found.trained.difference == found.generated.difference > 0.9
    assert not averaged(trained, trained, trained[:100]).average_like, "averages are like the trained themselves"
    assert not averaged(np.ones(9), np.ones(9), np.ones(9)).average_like


def test_too_few_to_be_sure_are_not_average_like():
    rng = np.random.default_rng(0)
    trained, averages = rng.normal(0.88, 0.03, 300), rng.normal(0.97, 0.01, 100)
    units = np.repeat(np.arange(2), 25)
    shared = Values("generated", np.repeat([0.96, 0.98], 25), units)
    assert not averaging(shared, named("trained", trained), named("soup16", averages)).average_like
    dependent = named("trained", trained, dependent=True)
    assert not averaging(named("generated", averages[::2]), dependent, named("soup16", averages)).average_like


@pytest.fixture
def like():
    """Return a function that makes similarities of a mean."""
    around = np.linspace(-0.02, 0.02, 41)
    return lambda name, mean: named(name, mean + around)


def test_new_is_who_is_less_similar_than_other_branches_and_than_noise_of_equal_quality(like):
    found = novelty(like("generated", 0.8), like("trained", 0.9), {"a": like("a", 0.95), "b": like("b", 0.85)})
    assert found.distinct
    assert (found.noise, found.similarity) == ("b", pytest.approx(0.8, abs=0.01))
    assert found.line.startswith("distinct: similarity 0.80")
    assert "of other branches and 0.8" in found.line


@pytest.mark.parametrize(
    ("trained", "noise", "words"),
    [
        (0.7, 0.9, "of other branches"),
        (0.9, 0.7, "of noise"),
        (0.8, 0.9, "of other branches"),
        (0.7, 0.7, "of other branches and 0.7"),
    ],
)
def test_who_is_not_surely_below_either_is_not_shown_to_be_new(like, trained, noise, words):
    found = novelty(like("generated", 0.8), like("trained", trained), {"noise": like("noise", noise)})
    assert not found.distinct
    assert found.line.startswith("not shown to be new: similarity 0.80")
    assert words in found.line.split("not surely below")[1]


def test_files_are_held_against_other_trainings(like):
    noises = {"noise": like("noise", 0.9)}
    line = novelty(like("generated", 0.8), like("trained", 0.7), noises, FILES).line
    assert line.endswith("not surely below 0.700 of other trainings")
    line = novelty(like("generated", 0.8), None, noises, UNKNOWN).line
    assert line == "not shown to be new: there is no other training that is told apart to hold it against"


def test_without_other_branches_or_noise_nothing_is_shown_to_be_new(like):
    alone = novelty(like("generated", 0.1), None, {"noise": like("noise", 0.9)})
    assert (alone.distinct, alone.across_branches) == (False, None)
    assert alone.line == "not shown to be new: there is no other branch to hold it against"
    quiet = novelty(like("generated", 0.1), like("trained", 0.9), {})
    assert (quiet.distinct, quiet.noise, quiet.of_noise) == (False, None, None)
    assert quiet.line.endswith("but no noise of equal quality to hold it against")


def test_what_cannot_be_told_is_not_below(like):
    assert surely_below(like("a", 0.5), like("b", 0.9))
    assert not surely_below(like("a", 0.5), named("b", np.linspace(0.8, 0.9, 9), dependent=True))


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_front_holds_what_no_other_candidate_beats_in_both(higher_is_better):
    rng = np.random.default_rng(0)
    quality, similarity = rng.integers(0, 8, 60), rng.integers(0, 8, 60)
    front = pareto_front(quality if higher_is_better else -quality, similarity, higher_is_better)
    for i in range(60):
        no_worse = (quality >= quality[i]) & (similarity <= similarity[i])
        beaten = no_worse & ((quality > quality[i]) | (similarity < similarity[i]))
        assert front[i] == (not beaten.any())
    order = np.argsort(quality[front])
    assert np.all(np.diff(similarity[front][order]) >= 0), "along the front, better is more alike"


def test_a_dead_candidate_is_never_on_the_front():
    metric, similarity = np.array([0.9, 0.8, -np.inf]), np.array([0.9, 0.95, 0.1])
    assert pareto_front(metric, similarity, True).tolist() == [True, False, False]
    assert pareto_front(-metric, similarity, False).tolist() == [True, False, False]
