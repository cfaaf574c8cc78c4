"""Generators that go from noise to latents step by step: with the exact denoiser of a known Gaussian, and trained."""

import pytest
import torch

from pdiff import ParameterDiffusion
from pdiff.engine.drawing import denoise
from pdiff.engine.process import Diffusion, Flow, column
from pdiff.engine.samplers import build_sampler
from pdiff.engine.schedule import noise_schedule
from pdiff.gates.collapse import spread_at_first
from pdiff.runtime.errors import PdiffError

MEAN, STD = 1.5, 0.5
KARRAS = {name: {"type": f"{__name__}:{name}"} for name in ("euler", "heun", "solver")}


def euler(schedule, steps: int = 60):
    """Return Euler's method in the scale and at the times of Karras et al. (2022), which are no whole numbers."""
    from diffusers import EulerDiscreteScheduler

    return prepared(EulerDiscreteScheduler, schedule, steps)


def heun(schedule, steps: int = 20):
    """Return Heun's method there, of which no step draws noise."""
    from diffusers import HeunDiscreteScheduler

    return prepared(HeunDiscreteScheduler, schedule, steps)


def solver(schedule, steps: int = 40):
    """Return DPM-Solver++ at those times."""
    from diffusers import DPMSolverMultistepScheduler

    return prepared(DPMSolverMultistepScheduler, schedule, steps)


def prepared(kind, schedule, steps):
    sampler = kind.from_config(schedule.config, use_karras_sigmas=True, timestep_spacing="trailing")
    sampler.set_timesteps(steps)
    return sampler


class Exact:
    """The best denoiser of latents N(MEAN, STD^2), which remembers the times that it is told."""

    def __init__(self, process):
        self.process, self.times = process, []

    def __call__(self, z_t, t):
        self.times.append(t[0].item())
        (a, s), (p, q) = (map(column, pair) for pair in (self.process.signal(t), self.process.target(t)))
        return p * MEAN + (p * a * STD**2 + q * s) / (a**2 * STD**2 + s**2) * (z_t - a * MEAN)


def drawn(process, cfg, count=20_000):
    """Return latents, the estimates of them after each step, and the times that the denoiser was told."""
    denoiser, sampler = Exact(process), build_sampler(cfg, process)
    way = list(denoise(denoiser, process, sampler, torch.Size([count, 1]), torch.Generator().manual_seed(0)))
    return way[-1][0], [estimate for _, estimate in way], denoiser.times


def near(z, mean=0.02, std=0.03):
    assert z.mean() == pytest.approx(MEAN, abs=mean)
    assert z.std() == pytest.approx(STD, abs=std)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("kind", ["DDPM", "DDIM", "DPM-Solver++"])
def test_a_diffusion_with_the_exact_denoiser_recovers_a_gaussian(prediction, kind):
    near(drawn(Diffusion(noise_schedule(prediction=prediction)), {"type": kind})[0])


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("cfg", [{"type": "Euler"}, {"type": "Heun"}, {"type": "Heun", "steps": 6}])
def test_a_flow_with_the_exact_denoiser_recovers_a_gaussian(scale, cfg):
    near(drawn(Flow(scale), cfg)[0])


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize(("timesteps", "std"), [(10, 0.15), (100, 0.04), (1000, 0.03)])
@pytest.mark.parametrize("kind", ["DDPM", "DDIM", "DPM-Solver++"])
def test_a_schedule_that_is_stretched_to_end_in_noise_recovers_it_too(prediction, timesteps, std, kind):
    process = Diffusion(noise_schedule(timesteps, prediction=prediction, zero_terminal_snr=True))
    assert (process.at_end(), process.words_for_end()) == (0, None)
    near(drawn(process, {"type": kind})[0], std=std)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", KARRAS)
def test_a_sampler_of_another_package_recovers_it_at_times_that_are_no_whole_numbers(prediction, name):
    z, estimates, times = drawn(Diffusion(noise_schedule(prediction=prediction)), KARRAS[name])
    near(z, std=0.04)
    near(estimates[-1], std=0.04)
    assert all(estimate.mean() == pytest.approx(MEAN, abs=0.05) for estimate in estimates)  # in no other scale
    assert all(isinstance(t, int) for t in times) == (name == "solver")
    assert name == "solver" or any(t != round(t) for t in times)


SMALL = {"autoencoder": {"latent": 6, "latent_noise": 0.0}, "denoiser": {"width": 32, "depth": 1}}
VECTORS = torch.randn(60, 20, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def diffusion():
    return ParameterDiffusion({**SMALL, "generator_training": {"steps": 300}}).fit(VECTORS)


@pytest.mark.parametrize("name", KARRAS)
def test_a_trained_denoiser_draws_with_them_as_widely_as_with_its_own(diffusion, name):
    latents = diffusion.encode(VECTORS)
    own, other = (diffusion.sample_latents(500, sampler=cfg).std(0) for cfg in (None, KARRAS[name]))
    torch.testing.assert_close(other, own, rtol=0.2, atol=0)
    path, _ = diffusion.sample_path(100, 4, sampler=KARRAS[name])
    assert (path.std(1) < 1.5 * latents.std(0)).all()


@pytest.mark.parametrize("name", KARRAS)
def test_the_gate_of_the_first_step_looks_in_the_scale_of_the_training(name):
    engine = ParameterDiffusion({**SMALL, "sampler": KARRAS[name], "generator_training": {"steps": 300}}).fit(VECTORS)
    assert spread_at_first(engine, engine.encode(VECTORS), None, 0) == pytest.approx(1, abs=0.05)


DENOISERS = {
    "mlp": SMALL["denoiser"],
    "conv": {"type": "conv", "channels": [4, 8, 4]},
    "transformer": {"type": "transformer", "tokens": 3, "width": 16, "depth": 1, "heads": 2},
}
CONDITIONS = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))


def flow(denoiser="mlp", conditions=None, folder=None, noise_scale=1.0, **training):
    settings = {"denoiser": DENOISERS[denoiser], "generator": {"type": "flow", "noise_scale": noise_scale}}
    config = {**SMALL, **settings, "generator_training": {"steps": 20, **training}}
    return ParameterDiffusion(config).fit(VECTORS, conditions=conditions, folder=folder)


@pytest.mark.parametrize("denoiser", DENOISERS)
def test_a_flow_is_drawn_from_by_every_denoiser_the_same_before_and_after_saving(denoiser, tmp_path):
    engine = flow(denoiser, CONDITIONS)
    engine.save(tmp_path / "engine")
    again = ParameterDiffusion.load(tmp_path / "engine")
    told = {"conditions": CONDITIONS[:5], "guidance": 1.5}
    assert torch.equal(again.sample(5, **told), engine.sample(5, **told))
    assert not torch.equal(engine.sample(5, conditions=CONDITIONS[:5]), engine.sample(5, **told))
    assert engine.sample(5).isfinite().all()


@pytest.mark.parametrize("training", [{"patience": 1}, {"amp": True}, {"compile": "eager"}, {"ema": 0.0}], ids=str)
def test_a_flow_trains_with_all_that_a_training_offers(training):
    engine = flow(steps=60, **training)
    assert torch.tensor(engine.history["denoiser"]).isfinite().all()
    assert ("watched" in engine.history) == ("patience" in training)
    assert engine.sample(5).isfinite().all()


def test_a_flow_learns_the_spread_of_the_latents_from_noise_of_any_width():
    for scale in (0.7, 1.0, 1.3):
        engine = flow(noise_scale=scale, steps=600)
        own = engine.encode(VECTORS)
        torch.testing.assert_close(engine.sample_latents(1000).std(0), own.std(0), rtol=0.15, atol=0)


def test_a_flow_takes_no_setting_that_it_does_not_know():
    with pytest.raises(PdiffError, match=r"^engine\.generator: got unknown key 'noise'\. Did you mean 'noise_scale'"):
        ParameterDiffusion({"generator": {"type": "flow", "noise": 1.0}})
