"""Similarity, distance and spread by their mathematics."""

import pytest
import torch

from pdiff.novelty import error_iou, nearest_distance, nearest_similarity, spread


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


def test_nearest_distance_is_the_smallest_euclidean_one(rng):
    vectors, trained = torch.randn(5, 7, generator=rng), torch.randn(4, 7, generator=rng)
    expected = torch.stack([torch.stack([(v - t).square().sum().sqrt() for t in trained]).min() for v in vectors])
    torch.testing.assert_close(nearest_distance(vectors, trained, leave_self_out=False), expected)


def test_nearest_distance_of_trained_vectors_leaves_each_itself_out():
    trained = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    assert torch.equal(nearest_distance(trained, trained, leave_self_out=False), torch.zeros(3))
    assert torch.equal(nearest_distance(trained, trained, leave_self_out=True), torch.tensor([5.0, 0.0, 0.0]))


def test_nearest_distance_keeps_small_distances_between_large_vectors():
    trained = torch.full((30, 2048), 100.0)
    vectors = trained.clone()
    vectors[:, 0] += 2**-10
    assert torch.equal(nearest_distance(vectors, trained, leave_self_out=False), torch.full((30,), 2**-10))


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_spread_is_the_factor_by_which_vectors_are_wider(rng, factor):
    trained = torch.randn(20, 5, generator=rng)
    assert spread(7 + factor * trained, trained) == pytest.approx(factor, rel=1e-5)


def test_spread_of_a_point_is_zero_and_of_points_that_never_differ_one():
    trained, point = torch.tensor([[0.0], [1.0]]), torch.zeros(3, 1)
    assert spread(point[:1], trained) == 0
    assert spread(point, trained) == 0
    assert spread(point, point) == 1
    assert spread(trained, point) == float("inf")
