from pathlib import Path

import numpy as np
import pytest
import torch

from pdiff import ParameterDiffusion
from pdiff.engine.process import Diffusion, Flow
from pdiff.engine.schedule import noise_schedule
from pdiff.engine.whitening import Whitening
from pdiff.gates.diffusion import (
    check_denoiser,
    check_latents,
    check_spread,
    conditions_of,
    denoising_losses,
    gate_denoiser,
    linear_loss,
    nearest_rows,
    remedy,
    sampling_steps,
)
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.heldout import split_population
from pdiff.run.run import Run
from pdiff.run.targets import Targets
from pdiff.stages.pipeline import run_pipeline

VARIANCES = torch.tensor([0.01, 0.5, 1.0, 9.0], dtype=torch.float64)
SMALL = {"denoiser": {"width": 32, "depth": 1}, "generator_training": {"steps": 1}}


RECORD = "2 of 6 branches are held out, 20 of 60 checkpoints"


def checked(loss, linear, heldout=None, record=RECORD):
    return check_denoiser((loss, linear), heldout, record)


def latents(rows=400, seed=0, variances=VARIANCES):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(rows, len(variances), generator=rng) * variances.sqrt().float()


class Shares(Diffusion):
    """A diffusion whose times are shares of the signal."""

    def left(self, t):
        return t


def linear(alpha_bar, prediction, variances=VARIANCES, squares=None):
    return linear_loss(variances, Shares(noise_schedule(prediction=prediction)), alpha_bar, squares)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("alpha_bar", [0.02, 0.5, 0.99])
def test_linear_loss_is_what_least_squares_reaches(prediction, alpha_bar):
    rng, a = torch.Generator().manual_seed(0), torch.tensor(alpha_bar, dtype=torch.float64)
    z, eps = (torch.randn(100_000, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    z = z * VARIANCES.sqrt()
    z_t = a.sqrt() * z + (1 - a).sqrt() * eps
    target = {"epsilon": eps, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * z, "sample": z}[prediction]
    slope = (target * z_t).mean(0) / z_t.square().mean(0)
    reached = (target - slope * z_t).square().mean()
    assert linear(a[None], prediction).item() == pytest.approx(reached.item(), rel=0.02)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("alpha_bar", [0.02, 0.5, 0.99])
def test_linear_loss_on_other_latents_is_that_of_the_same_slope(prediction, alpha_bar):
    rng, a = torch.Generator().manual_seed(0), torch.tensor(alpha_bar, dtype=torch.float64)
    z, eps = (torch.randn(100_000, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    squares = torch.tensor([4.0, 0.1, 1.0, 20.0], dtype=torch.float64)
    z = z * squares.sqrt()
    z_t = a.sqrt() * z + (1 - a).sqrt() * eps
    gain = a.sqrt() * VARIANCES / (a * VARIANCES + 1 - a)
    noise = (z_t - a.sqrt() * gain * z_t) / (1 - a).sqrt()
    estimate = {"epsilon": noise, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * gain * z_t, "sample": gain * z_t}
    target = {"epsilon": eps, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * z, "sample": z}
    reached = (target[prediction] - estimate[prediction]).square().mean()
    assert linear(a[None], prediction, squares=squares).item() == pytest.approx(reached.item(), rel=0.02)


@pytest.mark.parametrize("squares", [VARIANCES, torch.tensor([4.0, 0.1, 1.0, 20.0], dtype=torch.float64)])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("time", [20.0, 500.0, 990.0])
def test_linear_loss_of_a_flow_is_what_least_squares_reaches(time, scale, squares):
    rng, u = torch.Generator().manual_seed(0), time / 1000
    z, eps = (torch.randn(100_000, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    z_t, variance = (1 - u) * VARIANCES.sqrt() * z + u * scale * eps, (1 - u) ** 2 * VARIANCES + (u * scale) ** 2
    target = scale * eps - VARIANCES.sqrt() * z
    slope = (target * z_t).mean(0) / variance
    z = z * squares.sqrt()
    reached = (scale * eps - z - slope * ((1 - u) * z + u * scale * eps)).square().mean()
    found = linear_loss(VARIANCES, Flow(scale), torch.tensor([time]), squares)
    assert found.item() == pytest.approx(reached.item(), rel=0.03)


def test_on_white_latents_the_best_linear_velocity_is_none_at_all():
    alpha_bar = torch.linspace(0.01, 0.99, 7)
    torch.testing.assert_close(linear(alpha_bar, "v_prediction", torch.ones(5)), torch.ones(7).double())


class LinearDenoiser(torch.nn.Module):
    """The best one for white latents of mean 0."""

    def __init__(self, schedule):
        super().__init__()
        self.a, self.kind = schedule.alphas_cumprod, schedule.config.prediction_type

    def forward(self, z, t):
        a = self.a[t][:, None]
        return {"epsilon": (1 - a).sqrt() * z, "v_prediction": 0 * z, "sample": a.sqrt() * z}[self.kind]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_best_linear_denoiser_has_the_linear_loss(prediction):
    engine = ParameterDiffusion({**SMALL, "noise_schedule": {"prediction": prediction}}).fit(latents())
    engine.generator.denoiser = LinearDenoiser(engine.process.schedule)
    loss, linear = denoising_losses(engine, engine.encode(latents()), seed=0)
    assert loss == pytest.approx(linear, rel=0.05)
    assert checked(loss, linear).passed


class LinearDirection(torch.nn.Module):
    """The best linear denoiser of a flow for white latents of mean 0."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, z_t, t):
        (a, s), (p, q) = self.flow.signal(t), self.flow.target(t)
        return ((a * p + s * q) / (a**2 + s**2))[:, None] * z_t


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.3])
def test_the_best_linear_denoiser_of_a_flow_has_the_linear_loss(scale):
    engine = ParameterDiffusion({**SMALL, "generator": {"type": "flow", "noise_scale": scale}}).fit(latents())
    engine.generator.denoiser = LinearDirection(engine.process)
    loss, linear = denoising_losses(engine, engine.encode(latents()), seed=0)
    assert loss == pytest.approx(linear, rel=0.05)
    assert checked(loss, linear).passed


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_a_denoiser_of_one_step_fails(kind):
    engine = ParameterDiffusion({**SMALL, "generator": {"type": kind}}).fit(latents())
    check = checked(*denoising_losses(engine, engine.encode(latents()), seed=0))
    assert not check.passed
    assert "times that of the best linear denoiser" in check.line
    assert "expected at most 1.05: the diffusion has not even learnt mean and covariance. Raise" in check.line


def test_the_best_linear_denoiser_is_no_worse_than_itself_on_latents_it_was_not_fitted_to():
    engine = ParameterDiffusion(SMALL).fit(latents())
    engine.generator.denoiser = LinearDenoiser(engine.process.schedule)
    fitted, other = (engine.encode(latents(seed=seed, variances=2 * VARIANCES * (seed + 1))) for seed in (0, 1))
    engine.whitening.fit(fitted)
    loss, linear = denoising_losses(engine, other, 0, fitted)
    assert loss == pytest.approx(linear, rel=0.05)


def test_what_is_known_by_heart_is_said_and_fails_nothing():
    check = checked(0.3, 1.0, (2.4, 2.0))
    assert check.passed
    assert (check.figures["heldout_loss"], check.figures["heldout_ratio"]) == (2.4, 1.2)
    assert check.figures["memorisation"] == pytest.approx(4)
    found = "; on held-out checkpoints 1.20 times, a memorisation of 4.00 (1: as good on them as on the fitted); "
    assert f"{found}{RECORD}. Much of the gain is" in check.line
    assert "memory of single checkpoints: lower engine.generator_training.steps, take more checkpoints" in check.line


def test_a_healthy_denoiser_has_little_memory():
    check = checked(0.9, 1.0, (0.95, 1.0))
    assert check.figures["memorisation"] == pytest.approx(0.95 / 0.9)
    assert check.line.endswith(RECORD)


def test_without_held_out_checkpoints_memory_is_not_measured():
    check = checked(0.9, 1.0, record="none of 9 checkpoints is held out: why.")
    assert check.figures.keys() == {"loss", "linear_loss", "ratio"}
    assert check.line.endswith("; on held-out checkpoints it is not measured: none of 9 checkpoints is held out: why.")


class TwoModes(torch.nn.Module):
    """The best velocity for latents of -1 and 1: E[z | z_t] = tanh(sqrt(a) z_t / (1 - a))."""

    def __init__(self, schedule):
        super().__init__()
        self.a = schedule.alphas_cumprod

    def forward(self, z_t, t):
        a = self.a[t][:, None]
        return (a.sqrt() * z_t - torch.tanh(a.sqrt() * z_t / (1 - a))) / (1 - a).sqrt()


def test_a_denoiser_that_knows_more_than_mean_and_covariance_is_below_the_linear_one():
    modes = torch.tensor([-1.0, 1.0]).repeat(200)[:, None]
    engine = ParameterDiffusion({**SMALL, "autoencoder": {"latent": 1}}).fit(modes)
    engine.generator.denoiser = TwoModes(engine.process.schedule)
    check = checked(*denoising_losses(engine, engine.encode(modes), seed=0))
    assert check.passed
    assert check.figures["ratio"] < 0.9


def test_samples_of_the_same_distribution_pass():
    check = check_latents(latents(seed=1, rows=200), latents())
    assert check.passed
    assert check.figures["norm"] == pytest.approx(1, abs=0.1)


def test_an_axis_without_variance_counts_for_nothing():
    flat = torch.cat([latents(), torch.full((400, 1), 3.0)], 1)
    assert check_latents(flat[:100], flat).passed


@pytest.mark.parametrize(
    "change",
    [lambda z: z * 8, lambda z: z * 0.1, lambda z: z + VARIANCES.sqrt().float(), lambda z: z * float("nan")],
    ids=["blown up", "collapsed", "shifted", "not finite"],
)
def test_samples_that_do_not_match_fail(change):
    check = check_latents(change(latents(seed=1)), latents())
    assert not check.passed
    assert "expected 0.5 to 1.5 times its norm, at most 0.5 off, at most 10% outside. What is drawn does not" in (
        check.line
    )


def test_of_few_latents_half_of_a_gaussians_draws_lie_outside_and_pass():
    few = latents(rows=18, variances=torch.ones(32))
    whitening = Whitening(32)
    whitening.fit(few)
    drawn = whitening.inverse(torch.randn(200, 32, generator=torch.Generator().manual_seed(1)))
    check = check_latents(drawn, few)
    assert check.passed
    assert check.figures["outside"] == pytest.approx(check.figures["outside_by_chance"], abs=0.12)
    assert check.figures["outside_by_chance"] == pytest.approx(0.5, abs=0.05)
    blown_up = check_latents(few.mean(0) + 1.3 * (drawn - few.mean(0)), few)
    assert not blown_up.passed
    assert "at most 63% outside" in blown_up.line


@pytest.mark.parametrize(("kind", "steps"), [("Heun", 25), ("Heun", 1), ("Euler", 2000)])
def test_the_steps_of_a_flow_are_those_of_the_setting_and_may_be_more(kind, steps):
    assert sampling_steps(ParameterDiffusion({"generator": {"type": "flow"}}), {"type": kind, "steps": steps}) == steps


def test_of_many_latents_few_draws_lie_outside_by_chance():
    assert check_latents(latents(seed=1), latents()).figures["outside_by_chance"] < 0.01


@pytest.mark.parametrize(
    ("whiten", "steps", "words"),
    [
        (True, None, "Raise engine.generator_training.steps, or its lr."),
        (True, 1000, "Raise engine.generator_training.steps, or its lr."),
        (True, 50, "Raise engine.generator_training.steps, or its lr; take more sampling steps (now 50)."),
        (False, 1000, "Raise engine.generator_training.steps, or its lr; set engine.whiten."),
    ],
)
def test_no_setting_is_asked_for_that_is_set(whiten, steps, words):
    engine = ParameterDiffusion({"whiten": whiten})
    taken = steps and sampling_steps(engine, {"type": "DDIM", "steps": steps})
    assert remedy(engine.config, taken) == words


@pytest.mark.parametrize(
    ("kind", "words"),
    [("gaussian", "Set another engine.generator.type"), ("gan", "engine.generator.penalty"), ("vae", "Raise ")],
)
def test_what_mends_a_generator_is_what_it_says_itself(kind, words):
    engine = ParameterDiffusion({"generator": {"type": kind}})
    assert sampling_steps(engine, None) is None
    assert words in remedy(engine.config, None, engine.kind.remedy)


def test_latents_that_do_not_differ_are_not_measured():
    equal = torch.zeros(400, 4)
    for check in (check_latents(latents(seed=1), equal), checked(0.6, 0.0)):
        assert (check.passed, check.line) == (True, "not measured: the fitted checkpoints do not differ")


CONDITIONAL = {
    "plugin": str(Path(__file__).with_name("lines.py")),
    "select": "all",
    "engine": {
        "autoencoder": {"latent": 6, "latent_noise": 0.0},
        "denoiser": {"width": 64},
        "generator_training": {"lr": 5e-3},
    },
}


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """A run whose vectors follow their conditions, fitted."""
    directory = RunDirectory(tmp_path_factory.mktemp("lines") / "run")
    run_pipeline(resolve(CONDITIONAL), directory, ["collect", "fit"], gates=False)
    return Run(resolve(CONDITIONAL), directory)


def test_gate_gives_the_denoiser_the_condition_of_every_latent(lines):
    (check,) = gate_denoiser(lines)
    assert check.passed
    for rows, figure in zip(split_population(lines), ("loss", "heldout_loss"), strict=True):
        conditions = lines.population.conditions.values[rows.rows]
        assert torch.equal(conditions_of(lines, rows), conditions)
        engine, seed = lines.engine, lines.seed("gate", "denoiser")
        own, _ = denoising_losses(engine, engine.encode(rows), seed, conditions=conditions)
        without, _ = denoising_losses(engine, engine.encode(rows), seed)
        others, _ = denoising_losses(engine, engine.encode(rows), seed, conditions=conditions.roll(1, 0))
        assert check.figures[figure] == pytest.approx(own)
        assert own < 0.85 * without < others


def test_samples_for_conditions_may_have_another_mean_and_stray_on_axes_that_carry_nothing():
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(200, 4, generator=rng) * torch.tensor([10.0, 5.0, 2.0, 0.001])
    sampled = latents[:50] * 0.5 + torch.tensor([8.0, 0.0, 0.0, 1.0])
    assert not check_latents(sampled, latents).passed
    found = check_latents(sampled, latents, elsewhere=True)
    assert found.passed
    assert found.figures["offset"] > 0.4


def test_near_a_target_are_a_tenth_of_the_fitted_in_units_of_each_figure():
    values = torch.stack([torch.arange(200.0), 1000 * torch.arange(200.0).flip(0)], 1)
    near = nearest_rows(Targets(("a", "b"), values, torch.tensor([150.0, 49000.0]), np.arange(200)))
    assert sorted(near.tolist()) in ([*range(140, 160)], [*range(141, 161)])
    few = nearest_rows(Targets(("a",), values[:12, :1], torch.tensor([99.0]), np.arange(12)))
    assert few.tolist() == [*range(11, 1, -1)]


@pytest.mark.parametrize(
    ("generated", "codec", "noise", "words"),
    [
        (0.97, 0.98, 0.5, ""),
        (0.72, 0.75, 0.5, "for a wider spread lower engine.autoencoder.latent_noise (now 0.5)"),
        (0.5, 0.9, 0.5, "; the generator draws 0.56 times as widely as it should. Train longer"),
        (0.4, 0.4, 0.0, ""),
    ],
)
def test_the_spread_of_the_generated_is_said_with_what_makes_it_narrow(generated, codec, noise, words):
    config = ParameterDiffusion({"autoencoder": {"latent_noise": noise}}).config
    check = check_spread(generated, codec, config, "Train longer.")
    assert check.passed
    begin = f"generated vectors with {generated:.2f} times the spread of the fitted ones, decoded ones with {codec:.2f}"
    assert check.line.startswith(begin)
    assert check.line.endswith(words or begin)


def test_generated_vectors_that_are_all_alike_are_a_collapse():
    check = check_spread(0.2, 0.8, ParameterDiffusion().config, "Train longer.")
    assert not check.passed
    assert check.line == (
        "got generated vectors with 0.20 times the spread of the fitted ones, decoded ones with 0.80, expected at "
        "least 0.3 times these: the generator has collapsed. Train longer."
    )
