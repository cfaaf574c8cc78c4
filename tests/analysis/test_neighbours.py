"""Distances to the nearest trained vector: exact, of many too, and without what is akin."""

import numpy as np
import pytest
import torch

from pdiff.analysis import neighbours
from pdiff.analysis.neighbours import Neighbours
from pdiff.weights.vectors import Rows


@pytest.fixture
def rng():
    """Return a seeded generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=["few", "many"])
def among(request, monkeypatch):
    """Return neighbours of vectors each of which is a lineage; as few, or as if they were many."""
    monkeypatch.setattr(neighbours, "MOST", 4096 if request.param == "few" else 1)
    return lambda trained, kin=None: Neighbours(trained, np.arange(len(trained)) if kin is None else np.array(kin))


def test_the_distance_is_the_smallest_euclidean_one(among, rng):
    vectors, trained = torch.randn(5, 7, generator=rng), torch.randn(4, 7, generator=rng)
    expected = torch.stack([torch.stack([(v - t).square().sum().sqrt() for t in trained]).min() for v in vectors])
    torch.testing.assert_close(among(trained).distances(vectors), expected)
    torch.testing.assert_close(among(Rows(trained, [0, 1, 2, 3])).distances(Rows(vectors, range(5))), expected)


def test_trained_vectors_leave_out_what_they_are_akin_to(among):
    trained = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    assert torch.equal(among(trained).distances(trained), torch.zeros(3))
    assert torch.equal(among(trained).distances(trained, np.arange(3)), torch.tensor([5.0, 0.0, 0.0]))
    lineages = np.array([0, 1, 1])
    assert torch.equal(among(trained, lineages).distances(trained[1:], lineages[1:]), torch.tensor([5.0, 5.0]))


def test_small_distances_between_large_vectors_are_kept(among):
    trained = torch.full((30, 2048), 100.0)
    vectors = trained.clone()
    vectors[:, 0] += 2**-10
    assert torch.equal(among(trained).distances(vectors), torch.full((30,), 2**-10))


def test_a_vector_that_is_not_finite_has_no_distance(among):
    trained = torch.ones(3, 4)
    found = among(trained).distances(torch.tensor([[torch.nan] * 4, [torch.inf] * 4, [1.0] * 4]))
    assert not found[:2].isfinite().any()
    assert found[2] == 0


def test_a_few_at_a_time_give_the_same(among, rng, monkeypatch):
    vectors, trained = torch.randn(9, 7, generator=rng), torch.randn(6, 7, generator=rng)
    whole = among(trained).distances(vectors)
    monkeypatch.setattr(neighbours, "VALUES", 8 * 6 * 2)
    torch.testing.assert_close(among(trained).distances(vectors), whole)


def test_where_units_keep_their_order_vectors_stay_as_they_are(among, rng):
    vectors = torch.randn(3, 4, generator=rng)
    assert among(vectors).aligned(vectors) is vectors
