"""From noise to images by diffusers' schedulers."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler
from pdiff_plugins.generation.sampling import Sampler, check_sampler
from torch import nn

from pdiff.runtime.errors import PdiffError
from pdiff.testing.simulated_cuda import simulated_cuda

MEAN, STD = 0.3, 0.2


class Exact(nn.Module):
    """The exact denoiser of images whose pixels are independent Gaussians: predicts the noise."""

    def __init__(self, schedule):
        super().__init__()
        self.alphas = schedule.alphas_cumprod

    def forward(self, x, t):
        """Return the expected noise in `x`."""
        alpha, sigma = self.alphas[int(t)].sqrt(), (1 - self.alphas[int(t)]).sqrt()
        return SimpleNamespace(sample=sigma * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2))


@pytest.fixture
def schedule():
    """A noise schedule of 1,000 steps."""
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)


def noise(count: int = 64) -> torch.Tensor:
    """Return noise for images of eight pixels."""
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("kind", "steps", "options"),
    [
        ("DDIMScheduler", 50, {"timestep_spacing": "trailing"}),
        ("DDPMScheduler", 200, {}),
        ("DPMSolverMultistepScheduler", 20, {"timestep_spacing": "trailing"}),
        ("EulerAncestralDiscreteScheduler", 100, {}),
    ],
)
def test_sampler_with_the_exact_denoiser_of_a_gaussian_gives_its_mean_and_deviation(schedule, kind, steps, options):
    images = Sampler(schedule, 0, kind, steps, options)(Exact(schedule), noise())
    assert images.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert images.std().item() == pytest.approx(STD, rel=0.1)


@pytest.mark.parametrize("kind", ["DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler"])
def test_equal_noise_makes_equal_images_whatever_ran_before(schedule, kind):
    sampler = Sampler(schedule, 0, kind, 4)
    first = sampler(Exact(schedule), noise(4))
    sampler(Exact(schedule), noise(3))
    torch.manual_seed(1)
    assert torch.equal(sampler(Exact(schedule), noise(4)), first)


def test_stochastic_scheduler_draws_anew_for_each_batch_and_leaves_the_random_state(schedule):
    sampler = Sampler(schedule, 0, "DDPMScheduler", 4)
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    batches = [sampler(Exact(schedule), noise(4), batch) for batch in (0, 4)]
    assert torch.equal(torch.rand(2), expected)
    assert not torch.equal(*batches)


@pytest.mark.parametrize("kind", ["DDIM", "FlowMatchEulerDiscreteScheduler"])
def test_scheduler_that_diffusers_does_not_have_for_such_networks_is_refused_with_those_it_has(schedule, kind):
    line = rf"^task\.sampler\.type: got '{kind}'\. .*Known: .*DDIMScheduler, .*DPMSolverMultistepScheduler, .*\.$"
    with pytest.raises(PdiffError, match=line):
        Sampler(schedule, 0, kind, 4)


def test_option_that_the_scheduler_does_not_take_is_refused(schedule):
    with pytest.raises(PdiffError, match=r"^task\.sampler\.options: got unknown key 'eta'\. .*Known: .*beta_start"):
        Sampler(schedule, 0, "DDIMScheduler", 4, {"eta": 0.0})


@pytest.mark.parametrize("steps", [0, 2.5])
def test_steps_must_be_a_number_from_one_on(schedule, steps):
    with pytest.raises(PdiffError, match=rf"^task\.sampler\.steps: got {steps}, expected an integer from 1 on"):
        Sampler(schedule, 0, "DDIMScheduler", steps)


def test_sampler_that_fails_at_its_last_step_is_refused_before_any_training(schedule):
    sampler = Sampler(schedule, 0, "DPMSolverMultistepScheduler", 4, {"use_karras_sigmas": True})
    with pytest.raises(PdiffError, match=r"^task\.sampler: DPMSolverMultistepScheduler, 4 steps fail \(IndexError: "):
        check_sampler(sampler)


KINDS = sorted(kind.__name__ for kind in DDPMScheduler().compatibles)


# DPMSolverSDEScheduler needs torchsde besides. Some schedulers call numpy with tensors, as numpy 2 does not like it.
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "DPMSolverSDEScheduler"])
def test_every_scheduler_of_diffusers_takes_its_steps(schedule, kind):
    check_sampler(Sampler(schedule, 0, kind, 6))


@pytest.mark.parametrize(
    "kind",
    [
        "DDIMScheduler",
        "DDPMScheduler",
        "DPMSolverMultistepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "PNDMScheduler",
    ],
)
def test_no_step_waits_for_a_gpu(kind):
    sampler = Sampler(DDPMScheduler(), 0, kind, 4)
    expected = sampler(lambda x, t: SimpleNamespace(sample=x * t / 1000), noise(4))
    with simulated_cuda() as gpu:
        x = noise(4).to("cuda")
        with gpu.no_sync("sampler"):
            images = sampler(lambda x, t: SimpleNamespace(sample=x * t / 1000), x)
        assert images.device.type == "cuda"
        assert torch.equal(images.cpu(), expected)
