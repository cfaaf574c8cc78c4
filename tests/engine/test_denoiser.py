import pytest
import torch

from pdiff.engine.denoiser import ConvDenoiser, MLPDenoiser, sinusoidal_embedding


def test_conv_has_the_published_size():
    assert sum(p.numel() for p in ConvDenoiser(128).parameters()) == pytest.approx(2.5e6, rel=0.02)


@pytest.mark.parametrize("denoiser", [ConvDenoiser(12, channels=(2, 4, 8, 16, 8, 4, 2)), MLPDenoiser(12, 16, 2)])
def test_prediction_depends_on_latent_and_timestep_and_has_the_latent_shape(denoiser):
    denoiser.eval()
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(3))
    z, t = torch.randn(3, 12), torch.tensor([0, 500, 999])
    prediction = denoiser(z, t)
    assert prediction.shape == (3, 12)
    assert not torch.equal(prediction, denoiser(z, t.flip(0)))
    assert not torch.equal(prediction, denoiser(z.flip(0), t))


def test_embedding_of_timestep_zero_is_ones_and_zeros():
    assert sinusoidal_embedding(torch.tensor([0]), 6).tolist() == [[1, 1, 1, 0, 0, 0]]
