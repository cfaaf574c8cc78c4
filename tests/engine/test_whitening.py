import torch

from pdiff.engine.whitening import Whitening


def correlated():
    rng = torch.Generator().manual_seed(0)
    return torch.randn(200, 5, generator=rng) @ torch.randn(5, 5, generator=rng) + torch.arange(5.0)


def fitted(latents, enabled=True):
    whitening = Whitening(latents.shape[1], enabled)
    whitening.fit(latents)
    return whitening


def test_white_latents_have_no_mean_unit_variance_and_no_correlation():
    white = fitted(correlated())(correlated())
    torch.testing.assert_close(white.T.cov(), torch.eye(5), atol=1e-4, rtol=0)
    torch.testing.assert_close(white.mean(0), torch.zeros(5), atol=1e-5, rtol=0)


def test_inverse_undoes_whitening():
    whitening = fitted(correlated())
    torch.testing.assert_close(whitening.inverse(whitening(correlated())), correlated(), atol=1e-4, rtol=1e-4)


def test_directions_without_variance_come_back_as_the_mean():
    latents = correlated()
    latents[:, 3] = 4.0
    whitening = fitted(latents)
    assert torch.isfinite(whitening(latents)).all()
    torch.testing.assert_close(whitening.inverse(torch.randn(10, 5))[:, 3], torch.full((10,), 4.0))


def test_disabled_whitening_changes_nothing():
    whitening = fitted(correlated(), enabled=False)
    assert torch.equal(whitening.inverse(whitening(correlated())), correlated())
