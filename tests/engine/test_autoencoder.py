import pytest
import torch

from pdiff.engine import autoencoder
from pdiff.engine.autoencoder import ConvAutoencoder, PrincipalAutoencoder


def low_rank(rank=4, size=50, rows=30):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(rows, rank, generator=rng) @ torch.randn(rank, size, generator=rng) + 2


def principal(vectors, latent, noise):
    autoencoder = PrincipalAutoencoder(vectors.shape[1], latent, noise)
    autoencoder.fit(vectors)
    return autoencoder


def test_principal_without_noise_restores_what_lies_in_the_subspace():
    vectors = low_rank()
    autoencoder = principal(vectors, latent=8, noise=0.0)
    torch.testing.assert_close(autoencoder.decode(autoencoder.encode(vectors)), vectors, atol=1e-4, rtol=1e-4)


def test_principal_axes_are_orthonormal_and_latents_uncorrelated():
    vectors = low_rank()
    autoencoder = principal(vectors, latent=4, noise=0.1)
    torch.testing.assert_close(autoencoder.axes @ autoencoder.axes.T, torch.eye(4), atol=1e-5, rtol=0)
    covariance = autoencoder.encode(vectors).T.cov()
    torch.testing.assert_close(covariance, covariance.diag().diag(), atol=1e-4, rtol=0)
    torch.testing.assert_close(covariance.diag().mean(), torch.tensor(1.0))


def test_principal_decoder_is_the_best_linear_one_under_latent_noise():
    vectors = low_rank(rank=3)
    autoencoder = principal(vectors, latent=3, noise=0.7)
    centred, latents = vectors - autoencoder.mean, autoencoder.encode(vectors)
    n = len(vectors) - 1
    best = torch.linalg.solve(latents.T @ latents / n + 0.7**2 * torch.eye(3), latents.T @ centred / n)
    torch.testing.assert_close(autoencoder.decode(torch.eye(3)) - autoencoder.mean, best, atol=1e-4, rtol=1e-4)


def test_principal_fitted_in_blocks_is_the_one_fitted_to_the_whole(monkeypatch):
    vectors = low_rank()
    whole = principal(vectors, latent=4, noise=0.1)
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 2 * 30 * 8)
    blocks = principal(vectors, latent=4, noise=0.1)
    torch.testing.assert_close(blocks.axes.abs(), whole.axes.abs(), atol=1e-5, rtol=0)
    torch.testing.assert_close(blocks.decode(blocks.encode(vectors)), whole.decode(whole.encode(vectors)))


def test_principal_takes_fewer_vectors_than_latents():
    vectors = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 4.0]])
    autoencoder = principal(vectors, latent=16, noise=0.0)
    torch.testing.assert_close(autoencoder.decode(autoencoder.encode(vectors)), vectors)


def test_principal_of_a_constant_population_decodes_to_it():
    vectors = torch.full((3, 5), 0.3)
    autoencoder = principal(vectors, latent=2, noise=0.5)
    assert torch.equal(autoencoder.decode(torch.randn(4, 2)), torch.full((4, 5), 0.3))


def test_conv_has_the_published_size():
    assert sum(p.numel() for p in ConvAutoencoder(2048).parameters()) == pytest.approx(2.2e6, rel=0.02)


@pytest.mark.parametrize("size", [1, 63, 64, 100, 2048])
def test_conv_keeps_the_length_of_any_vector(size):
    autoencoder = ConvAutoencoder(size, latent=6, encoder=(2, 2, 2, 2, 2), decoder=(2, 2, 2, 2, 2)).eval()
    latents = autoencoder.encode(torch.randn(3, size))
    assert latents.shape == (3, 6)
    assert autoencoder.decode(latents).shape == (3, size)


def test_axes_of_too_many_vectors_for_their_products_are_the_same(monkeypatch):
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(200, 20, generator=rng) * 0.6 ** torch.arange(20)
    exact, many = PrincipalAutoencoder(20, latent=4), PrincipalAutoencoder(20, latent=4)
    exact.fit(vectors)
    monkeypatch.setattr(autoencoder, "MOST", 100)
    many.fit(vectors)
    torch.testing.assert_close(
        many.decode(many.encode(vectors)), exact.decode(exact.encode(vectors)), rtol=0, atol=1e-3
    )
    torch.testing.assert_close(many.shrinkage, exact.shrinkage)
