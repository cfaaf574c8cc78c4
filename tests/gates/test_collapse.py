"""Denoisers that collapse are planted; sound ones pass."""

from pathlib import Path

import pytest
import torch

from pdiff import ParameterDiffusion
from pdiff.gates.collapse import NOISIEST, check_collapse, gate_collapse, spread_at_first
from pdiff.gates.diffusion import check_spread, denoising_losses, remedy
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.stages.pipeline import run_pipeline

PREDICTIONS = ("epsilon", "v_prediction", "sample")
SMALL = {"autoencoder": {"latent": 8}, "denoiser": {"width": 64, "depth": 2}}
FLOW = {"type": "flow"}
VECTORS = torch.randn(60, 40, generator=torch.Generator().manual_seed(0))


def fitted(prediction="v_prediction", sampler=None, generator=None, **training):
    settings = {"noise_schedule": {"prediction": prediction}, "generator_training": training}
    settings |= {"generator": generator or {"type": "diffusion"}}
    return ParameterDiffusion({**SMALL, **settings, **({"sampler": sampler} if sampler else {})}).fit(VECTORS)


def checked(engine):
    latents = engine.encode(VECTORS)
    losses = denoising_losses(engine, latents, 0, noisiest=NOISIEST)
    return check_collapse(losses, [losses], spread_at_first(engine, latents, None, 0), engine)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_trained_denoiser_passes(prediction):
    check = checked(fitted(prediction, steps=300))
    assert check.passed, check.line
    assert check.figures["first"] == pytest.approx(1, abs=0.05)
    assert check.figures["heldout_missed"] == check.figures["missed"] < 0.1


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_denoiser_trained_at_rate_0_fails(prediction):
    check = checked(fitted(prediction, steps=2, lr=0.0))
    assert not check.passed
    assert "got at the noisiest tenth of the timesteps the denoiser misses" in check.line
    assert "expected at most 0.2, and at least 0.5 times" in check.line
    assert check.line.endswith("Raise engine.generator_training.steps, or its lr.")


class Mean(torch.nn.Module):
    """Predicts the mean of the white latents, whatever it sees."""

    def forward(self, z, t):
        return torch.zeros_like(z)


def test_a_denoiser_that_predicts_the_mean_draws_it_alone_and_its_spread_fails():
    engine = fitted("sample", steps=1)
    engine.generator.denoiser = Mean()
    spread, codec = engine.spread(engine.sample(50)), engine.spread(engine.decode(engine.encode(VECTORS)))
    check = check_spread(spread, codec, engine.config, remedy(engine.config))
    assert not check.passed
    assert check.figures["spread"] < 0.01


def test_a_sampler_of_one_step_fails():
    check = checked(fitted(sampler={"type": "DDIM", "steps": 1}, steps=300))
    assert not check.passed
    assert check.figures["first"] < 0.2
    assert "take more sampling steps (now 1)." in check.line


@pytest.mark.parametrize("steps", [2, 1000])
def test_any_other_number_of_steps_passes(steps):
    assert checked(fitted(sampler={"type": "DDIM", "steps": steps}, steps=300)).passed


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
def test_a_trained_flow_passes_with_every_sampler_of_more_than_one_step(scale):
    engine = fitted(generator={**FLOW, "noise_scale": scale}, steps=400)
    for kind, steps in (("Heun", 25), ("Heun", 3), ("Euler", 50), ("Euler", 2), ("Euler", 1000)):
        engine.config["sampler"] = {"type": kind, "steps": steps}
        check = checked(engine)
        assert check.passed, check.line
        assert check.figures["missed"] < 0.12
        assert check.figures["first"] == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
def test_a_flow_that_is_not_trained_fails(scale):
    check = checked(fitted(generator={**FLOW, "noise_scale": scale}, steps=2, lr=0.0))
    assert not check.passed
    assert check.figures["missed"] > 0.5
    assert check.line.endswith("Raise engine.generator_training.steps, or its lr.")


def test_a_flow_whose_direction_is_the_mean_everywhere_fails():
    engine = fitted(generator=FLOW, steps=1)
    engine.generator.denoiser = Mean()
    check = checked(engine)
    assert not check.passed
    assert check.figures["missed"] == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize("kind", ["Euler", "Heun"])
def test_one_step_along_a_flow_draws_the_mean_and_fails(kind):
    check = checked(fitted(sampler={"type": kind, "steps": 1}, generator=FLOW, steps=400))
    assert not check.passed
    assert check.figures["first"] < 0.5
    assert "take more sampling steps (now 1)." in check.line


def test_latents_that_do_not_differ_are_not_measured():
    check = check_collapse((0.6, 0.0), [], 1.0, ParameterDiffusion())
    assert (check.passed, check.line) == (True, "not measured: the fitted checkpoints do not differ")


def test_the_gate_gives_draws_their_conditions(tmp_path):
    config = resolve(
        {
            "plugin": str(Path(__file__).with_name("lines.py")),
            "select": "all",
            "engine": {"autoencoder": {"latent": 6, "latent_noise": 0.0}, "denoiser": {"width": 64}},
            "fit": {"repeats": 2},
        }
    )
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(config, directory, ["collect", "fit"], gates=False)
    (check,) = gate_collapse(Run(config, directory))
    assert check.passed, check.line
    assert {"missed", "heldout_missed", "first", "fit"} <= check.figures.keys()
