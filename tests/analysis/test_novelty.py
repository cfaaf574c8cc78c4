"""Similarity, copying and averaging by their mathematics."""

import numpy as np
import pytest
import torch

from pdiff.analysis.novelty import averaging, closer, copying, nearest_similarity, pareto_front
from pdiff.analysis.references import nearest_distance
from pdiff.task.similarity import error_iou


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


def test_nearest_similarity_leaves_the_candidate_itself_out_only_when_asked():
    table = torch.tensor([[1.0, 0.2], [0.2, 1.0]])
    assert torch.equal(nearest_similarity(table, leave_self_out=False), torch.ones(2))
    assert torch.equal(nearest_similarity(table, leave_self_out=True), torch.full((2,), 0.2))
    assert torch.equal(table.diagonal(), torch.ones(2)), "the table itself is left alone"


def copying_rate(rng, make, size=10, repetitions=30):
    """Return how often vectors that `make(trained, fresh)` returns are taken for copies."""
    found = []
    for _ in range(repetitions):
        trained, heldout, fresh = (torch.randn(count, size, generator=rng) for count in (90, 10, 60))
        found.append(copying(make(trained, fresh), trained, heldout).copies)
    return np.mean(found)


def test_noise_around_trained_vectors_is_copying_and_fresh_draws_are_not(rng):
    trained, heldout, fresh = (torch.randn(count, 10, generator=rng) for count in (200, 20, 100))
    copies = trained[:100] + 0.01 * torch.randn(100, 10, generator=rng)
    found = copying(copies, trained, heldout)
    assert found.copies
    assert found.statistic < -5
    assert found.own < 0.1 * found.reference
    assert not copying(fresh, trained, heldout).copies
    assert copying(3 * fresh, trained, heldout).statistic > 5, "far off is no copy"
    assert copying(copies, trained).copies, "the trained stand for what was not held out"
    assert not copying(fresh, trained).copies


@pytest.mark.parametrize("size", [2, 10, 300])
@pytest.mark.parametrize("factor", [1.0, 0.8, 0.3])
def test_neither_fresh_draws_nor_what_is_pulled_to_the_average_are_copies(rng, size, factor):
    assert copying_rate(rng, lambda trained, fresh: factor * fresh, size) <= 0.07


@pytest.mark.parametrize("size", [10, 300])
def test_averages_are_no_copies(rng, size):
    assert copying_rate(rng, lambda trained, fresh: trained.reshape(-1, 15, size).mean(1), size) <= 0.07


@pytest.mark.parametrize("size", [2, 10, 300])
@pytest.mark.parametrize("factor", [1.0, 0.99])
def test_trained_vectors_and_what_is_hardly_moved_from_them_are_copies(rng, size, factor):
    assert copying_rate(rng, lambda trained, fresh: factor * trained[:60], size) >= 0.9


def test_unseen_steps_of_a_trajectory_are_no_copies_wherever_they_lie(rng):
    path = torch.randn(300, 40, generator=rng).cumsum(0)
    seen, heldout, unseen = path[0::2], path[5::30], path[1:160:2]
    assert not copying(unseen, seen, heldout).copies
    assert copying(seen[:80], seen, heldout).copies
    assert copying(seen[:80] / 2 + seen[1:81] / 2, seen, heldout).copies, "halfway to the next step is nearer than it"


def test_noise_on_many_coordinates_that_never_move_does_not_hide_a_copy(rng):
    trained, heldout, fresh = (
        torch.cat([torch.randn(n, 6, generator=rng), torch.zeros(n, 1000)], 1) for n in (100, 10, 60)
    )
    noise = 0.1 * torch.randn(60, 1006, generator=rng)
    far, near = (nearest_distance(vectors, trained, False) for vectors in (trained[:60] + noise, heldout))
    assert far.min() > near.max()
    assert copying(trained[:60] + noise, trained, heldout).copies
    assert not copying(fresh + noise, trained, heldout).copies


def test_vectors_that_never_differ_accuse_nobody():
    vectors = torch.ones(12, 5)
    assert not copying(vectors, vectors).copies
    assert not copying(vectors[:3], vectors[3:], vectors[:2]).copies


def test_the_statistic_counts_the_pairs_in_which_the_candidate_is_farther():
    own, reference = np.array([0.1, 0.4, 0.6]), np.array([0.2, 0.5, 0.7, 0.8])
    u, mean, deviation = 3, 6, np.sqrt(3 * 4 * 8 / 12)  # 0.4 > 0.2; 0.6 > 0.2, 0.5
    found = closer(own, reference)
    assert found.statistic == pytest.approx((u - mean) / deviation)
    assert (found.own, found.reference) == (0.4, 0.6)


def test_p_is_that_of_scipys_normal_approximation():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    own, reference = rng.random(40), rng.random(30) + 0.2
    theirs = mannwhitneyu(own, reference, alternative="less", method="asymptotic", use_continuity=False)
    assert closer(own, reference).p == pytest.approx(theirs.pvalue)


def test_a_single_held_out_vector_never_suffices_to_accuse():
    assert not closer(np.zeros(1000), np.ones(1)).copies


def test_distances_that_never_differ_accuse_nobody():
    assert closer(np.zeros(30), np.zeros(40)).statistic == 0


def test_averages_are_told_from_the_trained_and_candidates_from_either():
    rng = np.random.default_rng(0)
    trained, averages = rng.normal(0.88, 0.03, 300), rng.normal(0.97, 0.01, 100)
    assert averaging(averages, trained, averages).average_like
    assert averaging(np.ones(5), trained, averages).average_like
    found = averaging(trained, trained, averages)
    assert not found.average_like
    assert found.trained == found.generated > 0.9
    assert not averaging(trained, trained, trained[:100]).average_like, "averages are like the trained themselves"
    assert not averaging(np.ones(9), np.ones(9), np.ones(9)).average_like


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
