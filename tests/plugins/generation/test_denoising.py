"""What a network is trained for, and its loss on held-out images."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from pdiff_plugins.generation.denoising import held_out, objective
from pdiff_plugins.images.data import Split
from torch import nn

KINDS = ("epsilon", "sample", "v_prediction")


def schedule(kind: str) -> DDPMScheduler:
    """Return a noise schedule of 100 steps."""
    return DDPMScheduler(num_train_timesteps=100, prediction_type=kind)


class Knows(nn.Module):
    """Knows the image, so that it can tell the noise: predicts what is asked for."""

    def __init__(self, noise_schedule, image: float):
        super().__init__()
        self.alphas, self.kind, self.image = noise_schedule.alphas_cumprod, noise_schedule.config.prediction_type, image

    def forward(self, noisy, t):
        """Return the prediction."""
        alpha, sigma = (self.alphas[t].sqrt()[:, None, None, None], (1 - self.alphas[t]).sqrt()[:, None, None, None])
        noise = (noisy - alpha * self.image) / sigma
        found = {"epsilon": noise, "sample": torch.full_like(noisy, self.image)}
        return SimpleNamespace(sample=found.get(self.kind, alpha * noise - sigma * self.image))


def split(count: int = 50) -> Split:
    """Return images of one grey."""
    return Split(torch.full((count, 1, 4, 4), 0.5), torch.zeros(count, dtype=torch.int64), 1, 4, 8, torch.device("cpu"))


@pytest.mark.parametrize("kind", KINDS)
def test_objective_is_nothing_for_a_network_that_predicts_rightly_and_something_for_another(kind):
    right, images = schedule(kind), torch.full((16, 1, 4, 4), 0.5)
    loss, figures = objective(right, Knows(right, 0.5), images, None)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert figures == {}
    assert objective(right, Knows(right, 0.9), images, None)[0].item() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_images_carry_their_target(kind):
    held = held_out(schedule(kind), split(), 30, seed=0)
    predicted = Knows(schedule(kind), 0.5)(held.noisy, held.t).sample
    torch.testing.assert_close(predicted, held.target, atol=1e-5, rtol=1e-4)


def test_held_out_time_steps_cover_the_schedule_evenly_and_stay():
    one, again = (held_out(schedule("epsilon"), split(), 25, seed=3) for _ in range(2))
    assert one.t.sort().values.tolist() == list(range(2, 100, 4))
    assert torch.equal(one.t, again.t)
    assert torch.equal(one.noisy, again.noisy)
    assert not torch.equal(one.t, held_out(schedule("epsilon"), split(), 25, seed=4).t)


def test_held_out_takes_all_where_there_are_fewer():
    assert len(held_out(schedule("epsilon"), split(5), 25, seed=0).t) == 5
