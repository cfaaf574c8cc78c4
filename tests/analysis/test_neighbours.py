"""Distances to the nearest trained vector: exact, of many too, without what is akin, whatever the order of units."""

import numpy as np
import pytest
import torch

from pdiff.analysis import neighbours
from pdiff.analysis.neighbours import Neighbours, distances
from pdiff.analysis.references import principal_axes
from pdiff.canonical.form import Form
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.weights.gram import centred_products
from pdiff.weights.vectors import Rows
from tests.canonical.by_hand import mlp, reordered


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


@pytest.mark.parametrize("most", [4096, 1])
def test_a_gpu_computes_the_same_distances_of_vectors_on_the_host(monkeypatch, rng, most):
    monkeypatch.setattr(neighbours, "MOST", most)
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 40)
    vectors, trained = torch.randn(5, 7, generator=rng), torch.randn(4, 7, generator=rng)
    expected, products = distances(vectors, trained), centred_products(vectors, trained)
    axes = principal_axes(trained)
    with simulated_cuda() as gpu:
        own = torch.device("cuda", 0)
        found = distances(vectors, trained, own), centred_products(vectors, trained, own)
        assert gpu.copies_to_host == 2, "of the results alone"
        assert gpu.copies_to_device > 4, "block by block"
        assert [tensor.device.type for tensor in found] == ["cpu", "cpu"]
        assert torch.equal(found[0], expected)
        assert torch.equal(found[1], products)
        assert torch.equal(principal_axes(trained, device=own).axes, axes.axes)


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


@pytest.fixture(params=["permutation", "permutation+scale"])
def canonical(request, rng):
    """Return a form, networks `(8, P)` of eight lineages in it, and a function that gives a reordered copy of a row."""
    layout, symmetries = mlp(5, 6, 4)
    vectors = torch.randn(8, layout.size, generator=rng)
    form = Form.fit(request.param, layout, symmetries, vectors, range(8))
    scaled = request.param == "permutation+scale"
    return form, form.apply(vectors), lambda row: reordered(layout, symmetries, vectors[row], 10 + row, scaled)


def test_permuted_copies_have_no_distance_and_come_back_in_order(canonical, among):
    form, trained, copy = canonical
    copies = torch.stack([copy(row) for row in range(8)])
    found = Neighbours(trained, np.arange(8), form)
    assert found.distances(copies).max() < 1e-5
    assert among(trained).distances(copies).min() > 0.1
    torch.testing.assert_close(found.aligned(copies), trained, rtol=0, atol=1e-5)


def test_no_order_of_units_is_nearer(canonical, rng):
    form, trained, _ = canonical
    vectors = form.apply(torch.randn(5, trained.shape[1], generator=rng))
    found = Neighbours(trained, np.arange(8), form)
    assert (found.distances(vectors) <= Neighbours(trained, np.arange(8)).distances(vectors)).all()
    every = [form.onto(vectors, own.expand(5, -1)) - own for own in trained]
    least = torch.stack([own.norm(dim=1) for own in every]).min(0).values
    assert (found.distances(vectors) >= least - 1e-5).all()


def test_a_trained_one_leaves_its_lineage_out_in_any_order(canonical):
    form, trained, _ = canonical
    kin = np.arange(8).repeat(2)
    twice = trained.repeat_interleave(2, 0)
    found = Neighbours(twice, kin, form).distances(twice[:4], kin[:4])
    assert found.min() > 0.1


def test_what_has_no_order_stays_without_a_distance(canonical):
    form, trained, copy = canonical
    found = Neighbours(trained, np.arange(8), form)
    vectors = torch.stack([torch.full_like(trained[0], torch.nan), copy(1)])
    assert found.distances(vectors)[0].isnan()
    assert found.distances(vectors)[1] < 1e-5
    assert found.distances(vectors[:1]).isnan().all()


def test_large_networks_keep_the_order_that_they_have(canonical, monkeypatch):
    form, trained, copy = canonical
    found = Neighbours(trained, np.arange(8), form)
    monkeypatch.setattr(neighbours, "MATCHED", 2 * trained.shape[1])
    assert (found.tried, found.distances(copy(2)[None]).item()) == (2, pytest.approx(0, abs=1e-5))
    monkeypatch.setattr(neighbours, "MATCHED", trained.shape[1] - 1)
    assert found.tried == 0
    assert found.distances(copy(2)[None]) > 0.1
