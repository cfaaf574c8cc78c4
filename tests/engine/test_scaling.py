import pytest
import torch

from pdiff.engine.scaling import PerCoordinate, PerTensor, Scaled, dominated
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Rows, deviations

LAYOUT = Layout.of({"a": torch.empty(3, 4), "b": torch.empty(5)})


def fitted(kind, vectors):
    scaling = kind(LAYOUT.size)
    scaling.fit(vectors, LAYOUT)
    return scaling


@pytest.fixture
def vectors():
    return torch.randn(20, LAYOUT.size, generator=torch.Generator().manual_seed(0)) * 3 + 7


@pytest.mark.parametrize("kind", [PerTensor, PerCoordinate])
def test_inverse_undoes_scaling(kind, vectors):
    scaling = fitted(kind, vectors)
    torch.testing.assert_close(scaling.inverse(scaling(vectors)), vectors)


@pytest.mark.parametrize("kind", [PerTensor, PerCoordinate])
def test_constant_coordinates_come_back_exactly_whatever_is_decoded(kind, vectors):
    vectors[:, 2] = 0.1
    scaling = fitted(kind, vectors)
    assert (scaling(vectors)[:, 2] == 0).all()
    assert (scaling.inverse(torch.randn(4, LAYOUT.size))[:, 2] == torch.tensor(0.1)).all()


@pytest.mark.parametrize("kind", [PerTensor, PerCoordinate])
def test_scaling_fitted_a_few_vectors_at_a_time_is_that_of_the_whole(kind, vectors, monkeypatch):
    vectors[:, 2] = 0.1
    whole = fitted(kind, vectors)
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 3 * LAYOUT.size)
    parts = fitted(kind, Rows(vectors, range(20)))
    assert torch.equal(parts.constant, whole.constant)
    torch.testing.assert_close(parts(vectors), whole(vectors))
    torch.testing.assert_close(parts.inverse(whole(vectors)), vectors)


def test_scaled_vectors_are_indexed_like_the_matrix_they_are(vectors):
    scaling = fitted(PerTensor, vectors)
    whole, scaled = scaling(vectors), Scaled(vectors, scaling)
    for place in (slice(3, 5), torch.tensor([7, 0]), (slice(None), slice(2, 9)), (torch.tensor([4]), slice(None))):
        assert torch.equal(scaled[place], whole[place])


def test_per_tensor_gives_each_tensor_mean_zero_and_std_one_per_checkpoint(vectors):
    scaled = fitted(PerTensor, vectors)(vectors)
    for entry in LAYOUT:
        block = scaled[:, entry.slice]
        assert block.mean().abs() < 1e-5
        torch.testing.assert_close(block.std(1, correction=0).mean(), torch.tensor(1.0))


def test_per_coordinate_gives_each_coordinate_mean_zero_and_std_one(vectors):
    scaled = fitted(PerCoordinate, vectors)(vectors)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(LAYOUT.size), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0), torch.ones(LAYOUT.size))


def test_per_tensor_scales_a_single_value_by_its_deviation_over_the_checkpoints():
    layout = Layout.of({"counter": torch.empty(())})
    scaling = PerTensor(1)
    scaling.fit(torch.arange(300.0)[:, None], layout)
    torch.testing.assert_close(scaling(torch.arange(300.0)[:, None]).std(correction=0), torch.tensor(1.0))


def said_of(kind, columns, factor):
    """Return what `dominated` says of 40 vectors of two tensors, some columns of which are multiplied."""
    layout = Layout.of({"a": torch.empty(300), "b": torch.empty(5)})
    vectors = torch.randn(40, 305, generator=torch.Generator().manual_seed(0))
    vectors[:, columns] *= factor
    scaling = kind(305)
    scaling.fit(vectors, layout)
    return dominated(scaling, deviations(vectors), layout)


@pytest.mark.parametrize("kind", [PerTensor, PerCoordinate])
def test_coordinates_alike_are_not_dominated(kind):
    assert said_of(kind, [0, 1, 2], 3.0) is None


def test_coordinates_that_are_much_larger_are_named_and_scaled_away_by_coordinate():
    found = said_of(PerTensor, [17], 1e6)
    assert found == "a[17] alone carries more than 90% of the scaled variance of 305 that change"
    assert said_of(PerTensor, [3, 17], 1e6).startswith("2 coordinates (a[")
    assert said_of(PerCoordinate, [17], 1e6) is None
