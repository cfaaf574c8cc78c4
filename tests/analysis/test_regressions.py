"""Regressions on conditions: weights that predict what the vectors would, chosen by folds of whole groups."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from pdiff.analysis.regressions import (
    ALPHAS,
    between_weights,
    by_network,
    combination,
    kernel,
    linear,
    nearest_weights,
    project_randomly,
)
from pdiff.weights.vectors import Rows

RNG = np.random.default_rng(0)
SEEN, WANTED = RNG.random((30, 3)), RNG.random((4, 3))
SMOOTH = np.stack([np.sin(3 * SEEN[:, 0]), SEEN[:, 1] * SEEN[:, 2], SEEN.sum(1)], 1)
VECTORS = SMOOTH @ RNG.standard_normal((3, 50)) + 0.05 * RNG.standard_normal((30, 50))


def test_projections_keep_the_squares_of_distances():
    vectors = torch.randn(40, 3000, generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 3, 3000)
    found = project_randomly(Rows(vectors, range(40)), torch.Generator().manual_seed(1), 4000)
    assert found.shape == (40, 4000)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    squares = [torch.cdist(own, own).square() for own in (torch.from_numpy(found), vectors.double())]
    apart = ~torch.eye(40, dtype=bool)
    shares = squares[0][apart] / squares[1][apart]
    assert (shares - 1).abs().max() < 0.15
    assert shares.mean().item() == pytest.approx(1, abs=0.01)


def test_projections_do_not_depend_on_how_many_columns_are_read_at_once(monkeypatch):
    vectors = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    whole = project_randomly(Rows(vectors, range(6)), torch.Generator().manual_seed(1), 8)
    assert (whole @ whole.T).trace() > 0
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 24)
    parts = project_randomly(Rows(vectors, range(6)), torch.Generator().manual_seed(1), 8)
    assert parts.shape == whole.shape


@pytest.mark.parametrize("model", [linear(1), linear(2), kernel(3)])
def test_weights_predict_what_the_model_predicts_of_the_vectors(model):
    centred = VECTORS - VECTORS.mean(0)
    weights, chosen = combination(model, SEEN, np.arange(30), centred, WANTED)
    estimator, settings = model
    expected = estimator.fit(SEEN, centred).predict(WANTED)
    assert weights.shape == (4, 30)
    np.testing.assert_allclose(weights @ centred, expected, atol=1e-8)
    for name, values in settings.items():
        assert chosen[name.rpartition("__")[2]] in values


def test_settings_are_those_of_the_smallest_error_on_what_a_fold_has_not_seen():
    groups, centred = np.arange(30) // 2, VECTORS - VECTORS.mean(0)
    _, chosen = combination(linear(1), SEEN, groups, centred, WANTED)
    errors = []
    for alpha in ALPHAS:
        features = PolynomialFeatures(1, include_bias=False)
        model = make_pipeline(StandardScaler(), features, StandardScaler(), Ridge(alpha))
        found = [
            ((model.fit(SEEN[own], centred[own]).predict(SEEN[rest]) - centred[rest]) ** 2).mean()
            for own, rest in GroupKFold(5).split(SEEN, groups=groups)
        ]
        errors.append(np.mean(found))
    assert chosen["alpha"] == pytest.approx(ALPHAS[int(np.argmin(errors))])


def test_a_fold_has_whole_groups():
    """Copies of each network make the noise worth learning, unless copies of what is predicted are left out."""
    conditions = np.repeat(RNG.standard_normal((12, 8)), 6, 0)
    noise = np.repeat(RNG.standard_normal((12, 20)), 6, 0)
    groups = np.repeat(np.arange(12), 6)
    _, honest = combination(linear(1), conditions, groups, noise - noise.mean(0), conditions[:1])
    _, leaking = combination(linear(1), conditions, np.arange(72), noise - noise.mean(0), conditions[:1])
    assert honest["alpha"] > 100 * leaking["alpha"]


def test_two_groups_are_enough():
    weights, _ = combination(linear(1), SEEN[:4], np.array([0, 0, 1, 1]), VECTORS[:4], WANTED)
    assert np.isfinite(weights).all()


def test_network_follows_a_curve():
    x = np.linspace(-1, 1, 200)[:, None]
    found = by_network(x, np.hstack([x**2, x]), x[::7], (64,), 0)
    np.testing.assert_allclose(found, np.hstack([x**2, x])[::7], atol=0.15)


@pytest.mark.parametrize("count", [5, 50, 70])
@pytest.mark.parametrize("axes", [1, 3])
def test_network_learns_from_any_number_of_conditions_without_a_word(count, axes):
    coordinates = RNG.standard_normal((count, axes))
    found = by_network(RNG.random((count, 2)), coordinates, WANTED[:, :2], (4,), 2**40 + 1)
    assert found.shape == (4, axes)


def test_network_predicts_nothing_where_nothing_differs():
    assert by_network(SEEN, np.zeros((30, 0)), WANTED, (4,), 0).shape == (4, 0)
    assert not by_network(SEEN, np.zeros((30, 2)), WANTED, (4,), 0).any()


def test_weights_of_the_nearest_in_the_order_of_the_noise_among_equals():
    distances = np.array([[2.0, 1.0, 1.0, 3.0]])
    assert nearest_weights(distances, 1, np.array([[0.0, 0.9, 0.1, 0.0]])).tolist() == [[0, 0, 1, 0]]
    assert nearest_weights(distances, 1, np.array([[0.0, 0.1, 0.9, 0.0]])).tolist() == [[0, 1, 0, 0]]
    assert nearest_weights(distances, 2, np.zeros((1, 4))).tolist() == [[0, 0.5, 0.5, 0]]
    assert nearest_weights(distances, 9, np.zeros((1, 4))).tolist() == [[0.25] * 4]


def test_place_on_the_line_between_two():
    first, second = np.array([[0.0, 0.0]] * 5), np.array([[2.0, 0.0]] * 4 + [[0.0, 0.0]])
    wanted = np.array([[0.5, 0.0], [0.5, 7.0], [-1.0, 0.0], [9.0, 0.0], [1.0, 1.0]])
    assert between_weights(wanted, first, second).tolist() == [0.25, 0.25, 0, 1, 0]
