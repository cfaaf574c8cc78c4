import pytest
import torch

from pdiff.weights import vectors as module
from pdiff.weights.gram import axes_of_many, centred_gram, centred_products, leading_axes, scaled_axes
from pdiff.weights.vectors import Made, Rows

TRAINED = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)) + 5
OTHERS = torch.randn(4, 50, generator=torch.Generator().manual_seed(1)) + 5


@pytest.mark.parametrize("values", [12, 120, 10_000])
def test_products_in_blocks_are_those_of_the_whole(monkeypatch, values):
    monkeypatch.setattr(module, "VALUES", values)
    average = TRAINED.mean(0)
    centred, others = (TRAINED - average).double(), (OTHERS - average).double()
    torch.testing.assert_close(centred_gram(Rows(TRAINED, range(6))), centred @ centred.T, rtol=1e-5, atol=1e-5)
    made = Made(OTHERS.shape, lambda rows, rng: OTHERS[rows], torch.Generator())
    torch.testing.assert_close(centred_products(made, TRAINED), others @ centred.T, rtol=1e-5, atol=1e-5)


def test_axes_of_many_vectors_are_those_of_their_covariance():
    rng = torch.Generator().manual_seed(0)
    scale = 0.7 ** torch.arange(30)
    vectors = torch.randn(500, 30, generator=rng) * scale + 3
    axes, variances = leading_axes(vectors, 5)
    expected = torch.linalg.eigh(torch.cov(vectors.double().T))
    torch.testing.assert_close(variances, expected.eigenvalues.flip(0)[:5], rtol=1e-4, atol=0)
    along = (axes.double() @ expected.eigenvectors.flip(1)[:, :5]).abs()
    torch.testing.assert_close(along, torch.eye(5).double(), rtol=0, atol=1e-3)


def test_axes_of_many_vectors_of_few_coordinates_are_exact(monkeypatch):
    vectors = torch.randn(200, 12, generator=torch.Generator().manual_seed(0)) * torch.linspace(2, 1, 12) + 3
    axes, variances = axes_of_many(vectors, 4)
    expected = torch.linalg.eigh(torch.cov(vectors.double().T))
    torch.testing.assert_close(variances, expected.eigenvalues.flip(0)[:4], rtol=1e-5, atol=0)
    along = (axes.double() @ expected.eigenvectors.flip(1)[:, :4]).abs()
    torch.testing.assert_close(along, torch.eye(4).double(), rtol=0, atol=1e-4)
    monkeypatch.setattr("pdiff.weights.gram.MOST", 10)
    found = axes_of_many(vectors, 4)
    assert torch.equal(found[0], leading_axes(vectors, 4)[0])


def test_more_axes_than_coordinates_are_as_many_as_there_are():
    axes, variances = leading_axes(torch.eye(3).repeat(4, 1), 5)
    assert axes.shape == (3, 3)
    assert variances.shape == (3,)


def test_scaled_axes_have_the_variances_of_the_vectors_along_them(monkeypatch):
    vectors = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([5.0, 3, 1, 0.5, 0.2, 0.1])
    few = scaled_axes(vectors, 3)
    variances, axes = torch.linalg.eigh(torch.cov(vectors.T))
    torch.testing.assert_close(few.norm(dim=1), variances.flip(0)[:3].sqrt(), rtol=1e-4, atol=1e-5)
    along = (few / few.norm(dim=1, keepdim=True) @ axes.flip(1)[:, :3]).abs()
    torch.testing.assert_close(along, torch.eye(3), rtol=0, atol=1e-3)
    assert scaled_axes(vectors[:4], 9).shape == (3, 6)
    assert not scaled_axes(vectors[:1], 9).any()
    monkeypatch.setattr("pdiff.weights.gram.MOST", 20)
    torch.testing.assert_close(scaled_axes(vectors, 3).abs(), few.abs(), rtol=1e-3, atol=1e-3)
