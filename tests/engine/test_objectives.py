import pytest
import torch
from torch.nn.functional import mse_loss

from pdiff.engine.denoiser import MLPDenoiser
from pdiff.engine.objectives import Denoising
from pdiff.engine.process import Diffusion
from pdiff.engine.schedule import noise_schedule
from pdiff.runtime.seeding import generator

SCHEDULE = noise_schedule(prediction="v_prediction")


class Seen(torch.nn.Module):
    """Keeps what a denoiser is given, and predicts nothing."""

    def forward(self, *given):
        self.given = given
        return torch.zeros_like(given[0])


def draws(seed, step, shape):
    """Return timesteps, noise and the generator behind them, as they were drawn before there were conditions."""
    rng = generator(seed, "denoising", step)
    t = torch.randint(1000, shape[:1], generator=rng)
    return t, torch.randn(shape, generator=rng), rng


def test_without_conditions_the_loss_is_that_of_its_formula():
    torch.manual_seed(0)
    denoiser, rows = MLPDenoiser(6, width=16, depth=1), torch.randn(9, 6)
    t, eps, _ = draws(5, 3, rows.shape)
    z_t, target = SCHEDULE.add_noise(rows, eps, t), SCHEDULE.get_velocity(rows, eps, t)
    expected = mse_loss(denoiser(z_t, t), target)
    assert torch.equal(Denoising(denoiser, Diffusion(SCHEDULE), 5)(rows, 3)["loss"], expected)


def test_with_conditions_latents_timesteps_and_noise_are_drawn_as_without():
    plain, conditional, rows, c = Seen(), Seen(), torch.randn(9, 6), torch.randn(9, 2)
    Denoising(plain, Diffusion(SCHEDULE), 5)(rows, 3)
    Denoising(conditional, Diffusion(SCHEDULE), 5, condition=2, dropout=0.5)(torch.cat([rows, c], 1), 3)
    assert len(plain.given) == 2
    assert all(map(torch.equal, plain.given, conditional.given[:2]))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_conditions_are_dropped_by_what_the_generator_says_after_the_noise(dropout):
    denoiser, rows, c = Seen(), torch.randn(200, 6), torch.randn(200, 2)
    Denoising(denoiser, Diffusion(SCHEDULE), 5, condition=2, dropout=dropout)(torch.cat([rows, c], 1), 3)
    *_, rng = draws(5, 3, rows.shape)
    kept = torch.rand(200, 1, generator=rng)[:, 0] >= dropout
    given = denoiser.given[2]
    assert torch.equal(given[kept], c[kept])
    assert given[~kept].isnan().all()
    assert kept.float().mean() == pytest.approx(1 - dropout, abs=0.1)
