"""The gate of the noise schedule: silent where it ends in noise, as those of all presets do."""

from types import SimpleNamespace

import pytest

from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.settings import PRESETS
from pdiff.gates.schedule import gate_schedule


def checks(config: dict) -> list:
    """Return the checks of a run whose engine has these settings."""
    return gate_schedule(SimpleNamespace(engine=ParameterDiffusion(config)))


@pytest.mark.parametrize("preset", PRESETS)
def test_schedule_of_every_preset_ends_in_noise(preset):
    assert checks({"preset": preset}) == []


def test_a_flow_has_no_schedule_that_could_fail():
    assert checks({"generator": {"type": "flow"}, "noise_schedule": {"timesteps": 10}}) == []


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_published_number_of_steps_is_enough_for_every_kind(kind):
    assert checks({"noise_schedule": {"beta_schedule": kind}}) == []


def test_schedule_that_leaves_some_of_the_signal_fails_and_names_what_to_set():
    (check,) = checks({"noise_schedule": {"timesteps": 10}})
    assert (check.name, check.passed) == ("schedule", False)
    assert check.figures["signal"] == pytest.approx(0.9037, abs=1e-3)
    assert check.line == (
        "engine.noise_schedule: got a share of the signal of 0.9 at the last of 10 timesteps, expected at most 0.01: "
        "sampling starts from noise alone, which the training would never see. Raise timesteps or beta_end, set "
        "beta_schedule to squaredcos_cap_v2, or zero_terminal_snr to true."
    )


@pytest.mark.parametrize(
    "change", [{"beta_end": 0.7}, {"beta_schedule": "squaredcos_cap_v2"}, {"zero_terminal_snr": True}]
)
def test_what_the_line_says_mends_it(change):
    assert checks({"noise_schedule": {"timesteps": 10, **change}}) == []
