"""Distances, widths, projections and densities among trained vectors, by their mathematics."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from pdiff.analysis.neighbours import Neighbours
from pdiff.analysis.references import (
    COORDINATES,
    by_chance,
    changing,
    density_coordinates,
    in_order,
    locate,
    marginal_distance,
    principal_axes,
    project,
    spread,
    survey,
)
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Made, deviations


@pytest.fixture
def rng():
    """Return a seeded generator."""
    return torch.Generator().manual_seed(0)


def marginal(vectors, trained, seed=0):
    """Return the distance at the coordinates that a survey would look at."""
    sampled = changing(trained, seed)
    return marginal_distance(vectors[:, sampled], in_order(trained[:, sampled]))


def test_made_vectors_lie_where_they_do_in_memory_and_are_made_once(rng, monkeypatch):
    trained, vectors = torch.randn(12, 60, generator=rng), torch.randn(9, 60, generator=rng)
    layout, made = Layout.of({"a": torch.zeros(50), "b": torch.zeros(10)}), []

    def make(rows, rng):
        made.append(rows)
        return vectors[rows]

    neighbours = Neighbours(trained, np.arange(12))
    whole = asdict(locate(vectors, survey(neighbours, layout, 0)))
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 240)
    parts = Made(vectors.shape, make, torch.Generator())
    torch.testing.assert_close(asdict(locate(parts, survey(neighbours, layout, 0))), whole, rtol=1e-4, atol=1e-5)
    assert made == [slice(0, 4), slice(4, 8), slice(8, 9)]


def test_place_is_made_of_the_distances_the_width_and_the_values(rng):
    trained, vectors = torch.randn(12, 6, generator=rng), torch.randn(9, 6, generator=rng)
    layout = Layout.of({"a": torch.zeros(4), "b": torch.zeros(2)})
    neighbours = Neighbours(trained, np.arange(12))
    among = survey(neighbours, layout, 0)
    found = locate(vectors, among)
    assert np.array_equal(found.distances, neighbours.distances(vectors))
    assert found.spread == pytest.approx(spread(vectors, trained))
    assert found.marginal == marginal(vectors, trained) - by_chance(9, 12)
    assert np.array_equal(found.projected, project(vectors, principal_axes(trained)))
    assert {name: values.tolist() for name, values in found.shown.items()} == {
        name: vectors[:, place].tolist() for name, place in density_coordinates(deviations(trained), layout).items()
    }
    some = locate(trained[3:7], among, np.arange(3, 7))
    assert np.array_equal(some.distances, neighbours.distances(trained, np.arange(12))[3:7])
    own = locate(trained, among, np.arange(12))
    assert np.array_equal(own.distances, neighbours.distances(trained, np.arange(12)))
    assert (own.spread, own.marginal) == (1, 0)


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


def test_marginal_distance_is_the_mean_of_scipys_kolmogorov_smirnov(rng):
    from scipy.stats import ks_2samp

    vectors = torch.randn(30, 6, generator=rng) * torch.tensor([1, 1, 2, 2, 0.5, 0.5]) + 0.3
    trained = torch.randn(40, 6, generator=rng).round(decimals=1)  # with equals
    vectors[:, 0] = trained[:30, 0]
    expected = np.mean([ks_2samp(vectors[:, i].numpy(), trained[:, i].numpy()).statistic for i in range(6)])
    assert marginal(vectors, trained) == pytest.approx(expected)


def test_marginal_distance_is_zero_for_the_same_values_and_one_for_values_apart(rng):
    trained = torch.rand(20, 5, generator=rng)
    assert marginal(trained.flip(0), trained, 0) == 0
    assert marginal(trained + 2, trained, 0) == 1


def test_coordinates_that_never_change_do_not_count(rng):
    trained = torch.cat([torch.rand(20, 2, generator=rng), torch.ones(20, 3)], 1)
    vectors = trained.clone()
    vectors[:, 2:] = 1 + 2**-20
    assert marginal(vectors, trained, 0) == 0
    assert marginal(vectors[:, 2:], trained[:, 2:], 0) is None


def test_of_many_coordinates_a_seeded_part_is_looked_at(rng):
    trained = torch.randn(30, 3 * COORDINATES, generator=rng)
    vectors = torch.randn(30, 3 * COORDINATES, generator=rng)
    assert marginal(vectors, trained, 0) == marginal(vectors, trained, 0)
    assert marginal(vectors, trained, 0) != marginal(vectors, trained, 1)
    assert marginal(vectors, trained, 0) == pytest.approx(marginal(vectors, trained, 1), rel=0.05)


def test_density_coordinates_are_the_widest_of_each_of_the_largest_tensors():
    layout = Layout.of({"bias": torch.zeros(2), "weight": torch.zeros(2, 3), "fixed": torch.zeros(9)})
    trained = torch.zeros(4, 17)
    trained[:, 1] = torch.tensor([0.0, 1, 0, 1])
    trained[:, 5] = torch.tensor([0.0, 5, 0, 5])
    trained[:, 7] = torch.tensor([0.0, 2, 0, 2])
    assert density_coordinates(deviations(trained), layout) == {"weight[3]": 5, "bias[1]": 1}
    assert density_coordinates(deviations(trained), layout, count=1) == {"weight[3]": 5}


def test_principal_axes_are_those_of_the_singular_value_decomposition(rng):
    trained = torch.randn(30, 50, generator=rng) * torch.linspace(3, 0.1, 50) + 7
    centred = (trained - trained.mean(0)).double()
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    found = principal_axes(trained)
    torch.testing.assert_close((found.axes.double() @ axes[:2].T).abs(), torch.eye(2).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.explained.double(), values[:2] ** 2 / (values**2).sum(), atol=1e-5, rtol=1e-4)
    projected = project(trained, found)
    torch.testing.assert_close(projected.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(projected.var(0) / centred.var(0).sum(), found.explained, atol=1e-5, rtol=1e-4)


def test_the_direction_of_an_axis_does_not_depend_on_the_order_of_the_vectors(rng):
    trained = torch.randn(20, 8, generator=rng) * torch.linspace(4, 1, 8)
    torch.testing.assert_close(principal_axes(trained).axes, principal_axes(trained.flip(0)).axes, atol=1e-4, rtol=0)


def test_of_many_vectors_the_axes_are_the_same(rng, monkeypatch):
    trained = torch.randn(40, 12, generator=rng) * torch.linspace(3, 0.1, 12) + 7
    few = asdict(principal_axes(trained))
    monkeypatch.setattr("pdiff.analysis.references.MOST", 20)
    torch.testing.assert_close(asdict(principal_axes(trained)), few, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_vectors_on_a_point_or_a_line_lack_further_axes(rng, count):
    line = torch.arange(count).float()[:, None] * torch.randn(1, 9, generator=rng)
    found = principal_axes(line)
    assert found.explained.tolist() == pytest.approx([count - 1, 0])
    assert torch.equal(project(line, found)[:, 1], torch.zeros(count))
    assert project(line[:, :1], principal_axes(line[:, :1])).shape == (count, 2)


def test_what_chance_gives_is_the_mean_distance_of_two_samples_of_one_distribution(rng):
    pairs = [(torch.randn(60, 50, generator=rng), torch.randn(90, 50, generator=rng)) for _ in range(4)]
    found = [marginal_distance(own, in_order(reference)) for own, reference in pairs]
    assert sum(found) / 4 == pytest.approx(by_chance(60, 90), rel=0.1)
