import re

import pytest

from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.process import Diffusion, Flow
from pdiff.engine.registries import SAMPLERS
from pdiff.engine.samplers import build_sampler
from pdiff.engine.schedule import noise_schedule
from pdiff.engine.settings import PRESETS
from pdiff.runtime.errors import PdiffError


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


@pytest.mark.parametrize("returned", [None, 3])
def test_a_sampler_that_is_no_scheduler_is_refused(returned):
    SAMPLERS.register_module(name="nothing", module=lambda schedule: returned, force=True)
    try:
        with pytest.raises(PdiffError, match=r"^engine\.sampler: 'nothing' returned \w+, expected a scheduler of diff"):
            build_sampler({"type": "nothing"}, Diffusion(noise_schedule()))
    finally:
        del SAMPLERS.module_dict["nothing"]


@pytest.mark.parametrize(
    ("cfg", "asked"), [({"type": "Euler"}, 50), ({"type": "Heun"}, 49), ({"type": "Heun", "steps": 1}, 1)]
)
def test_a_sampler_of_a_flow_goes_from_noise_to_the_latent(cfg, asked):
    times = build_sampler(cfg, Flow()).timesteps
    assert len(times) == asked
    assert times[0] == 1000
    assert (times.diff() <= 0).all()


def test_eulers_steps_along_a_flow_are_even():
    assert build_sampler({"type": "Euler", "steps": 4}, Flow()).timesteps.tolist() == [1000, 750, 500, 250]


@pytest.mark.parametrize("kind", ["Euler", "Heun"])
def test_a_flow_goes_in_one_step_at_least(kind):
    with pytest.raises(PdiffError, match=r"^engine\.sampler\.steps: got 0, expected"):
        build_sampler({"type": kind, "steps": 0}, Flow())


@pytest.mark.parametrize(
    ("kind", "process", "words"),
    [
        ("DDIM", Flow(), "for another generator than flow, expected one of Euler, Heun"),
        (
            "Heun",
            Diffusion(noise_schedule()),
            "for another generator than diffusion, expected one of DDPM, DDIM, DPM-So",
        ),
    ],
)
def test_a_sampler_of_another_process_is_refused_with_those_that_fit(kind, process, words):
    with pytest.raises(
        PdiffError, match=rf"^engine\.sampler: got '{kind}', which is {words}.*Set engine\.sampler\.type"
    ):
        build_sampler({"type": kind}, process)


class Straight:
    """A sampler of a flow by someone else: one step, of which diffusers knows nothing."""

    def __init__(self, flow, width: float = 1.0):
        self.flow, self.width = flow, width

    def step(self, prediction, t, z):
        """Return the end of the way."""
        return z - prediction


def test_a_sampler_of_a_flow_by_someone_else_takes_the_flow():
    flow = Flow(0.7)
    sampler = build_sampler({"type": f"{__name__}:Straight", "width": 2.0}, flow)
    assert (sampler.flow, sampler.width) == (flow, 2.0)


class Bridge(Flow):
    """A process by someone else, whose samplers take it by a name of its own."""

    name, offers = "across", "bridge"


def across(bridge):
    """Return its sampler."""
    return Straight(bridge)


def test_a_process_by_someone_else_has_samplers_of_its_own():
    bridge = Bridge()
    assert build_sampler({"type": f"{__name__}:across"}, bridge).flow is bridge
    with pytest.raises(PdiffError, match=r"is for another generator than across, expected one that takes 'bridge'"):
        build_sampler({"type": f"{__name__}:Straight"}, bridge)


@pytest.mark.parametrize(("kind", "usual"), [("Euler", 50), ("Heun", 25)])
def test_a_flows_sampler_takes_as_many_steps_as_usual_too_where_none_are_said(kind, usual):
    sampler = build_sampler({"type": kind, "steps": None}, Flow())
    assert len(set(sampler.timesteps.tolist())) == usual


@pytest.mark.parametrize("sampler", [{"steps": 5}, {"type": None}])
def test_a_sampler_without_a_type_is_refused_where_it_stands(sampler):
    engine = ParameterDiffusion()
    with pytest.raises(PdiffError, match=r"^generate.sampler.type: got None. Known: DDIM, "):
        engine.check_drawing(sampler, where="generate.sampler")


def test_a_sampler_for_another_process_is_refused_where_it_stands():
    with pytest.raises(PdiffError, match=r"^generate.sampler: got 'Heun', .* Set generate.sampler.type.$"):
        build_sampler({"type": "Heun"}, Diffusion(noise_schedule()), "generate.sampler")
