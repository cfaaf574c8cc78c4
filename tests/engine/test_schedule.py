import re

import pytest
import torch

from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.process import Diffusion
from pdiff.engine.registries import SAMPLERS
from pdiff.engine.samplers import build_sampler
from pdiff.engine.schedule import noise_schedule
from pdiff.engine.settings import PRESETS
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.registry import call

MEAN, STD = 1.5, 0.5


def exact_prediction(schedule, z, t):
    """The best prediction for data N(MEAN, STD^2): what a perfect denoiser returns."""
    alpha_bar = schedule.alphas_cumprod[t]
    variance = alpha_bar * STD**2 + 1 - alpha_bar
    eps = (1 - alpha_bar).sqrt() * (z - alpha_bar.sqrt() * MEAN) / variance
    z0 = (z - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()
    kind = schedule.config.prediction_type
    if kind == "sample":
        return z0
    return eps if kind == "epsilon" else alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * z0


def draw(schedule, sampler, count=20_000):
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(count, 1, generator=rng) * sampler.init_noise_sigma
    for t in sampler.timesteps:
        prediction = exact_prediction(schedule, sampler.scale_model_input(z, t), t)
        z = sampler.step(prediction, t, z, generator=rng).prev_sample
    return z


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "cfg", [{"type": "DDPM"}, {"type": "DDIM", "steps": 50}, {"type": "DPM-Solver++", "steps": 20}]
)
def test_sampler_with_the_exact_denoiser_recovers_a_gaussian(prediction, cfg):
    schedule = noise_schedule(prediction=prediction)
    z = draw(schedule, build_sampler(cfg, Diffusion(schedule)))
    assert z.mean() == pytest.approx(MEAN, abs=0.02)
    assert z.std() == pytest.approx(STD, abs=0.03)


def test_schedule_has_the_published_betas():
    betas = noise_schedule().betas
    assert (len(betas), betas[0].item(), betas[-1].item()) == (1000, pytest.approx(1e-4), pytest.approx(2e-2))


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        ({"type": "DDIMM"}, "engine.sampler.type: got 'DDIMM'. Did you mean 'DDIM'? Known: DDIM, DDPM, DPM-Solver++, "),
        ({"type": "DDIM", "step": 5}, "unknown key 'step'. Did you mean 'steps'"),
        (
            {"type": "DDIM", "steps": 2000},
            "engine.sampler.steps: got 2000, expected 1 to 1000, the steps of engine.noise_schedule.timesteps. Set it "
            "to null: as many as usual, or all where these are fewer.",
        ),
        ({"type": "DDPM", "steps": 0}, "got 0, expected 1 to 1000"),
    ],
)
def test_unknown_sampler_settings_are_refused_by_name(cfg, words):
    with pytest.raises(PdiffError, match=re.escape(words)):
        build_sampler(cfg, Diffusion(noise_schedule()))


@pytest.mark.parametrize(
    ("kind", "timesteps", "taken"),
    [("DDIM", 1000, 50), ("DDIM", 10, 10), ("DPM-Solver++", 1000, 20), ("DPM-Solver++", 10, 10), ("DDPM", 100, 100)],
)
def test_a_sampler_takes_as_many_steps_as_usual_or_all_where_the_schedule_has_fewer(kind, timesteps, taken):
    sampler = build_sampler({"type": kind, "steps": None}, Diffusion(noise_schedule(timesteps=timesteps)))
    assert len(sampler.timesteps) == taken


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("timesteps", [1, 10, 100])
def test_every_preset_draws_with_fewer_timesteps_than_its_own_as_it_is(preset, timesteps):
    engine = ParameterDiffusion({"preset": preset, "noise_schedule": {"timesteps": timesteps}})
    assert len(build_sampler(engine.config["sampler"], engine.process).timesteps) == min(
        timesteps, 1000 if preset == "paper" else 50
    )


@pytest.mark.parametrize("key", ["prediction", "beta_schedule"])
def test_unknown_schedule_settings_are_refused_by_name(key):
    with pytest.raises(PdiffError, match=f"engine.noise_schedule.{key}: got 'other'"):
        call(noise_schedule, {key: "other"}, "engine.noise_schedule")


@pytest.mark.parametrize("returned", [None, 3])
def test_a_sampler_that_is_no_scheduler_is_refused(returned):
    SAMPLERS.register_module(name="nothing", module=lambda schedule: returned, force=True)
    try:
        with pytest.raises(PdiffError, match=r"^engine\.sampler: 'nothing' returned \w+, expected a scheduler of diff"):
            build_sampler({"type": "nothing"}, Diffusion(noise_schedule()))
    finally:
        del SAMPLERS.module_dict["nothing"]
