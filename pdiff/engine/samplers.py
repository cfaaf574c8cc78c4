"""Samplers, all from diffusers, by name: of a diffusion from its `schedule`, of a flow from the `flow` itself."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pdiff.engine.registries import SAMPLERS
from pdiff.runtime.errors import PdiffError, check_positive, check_section
from pdiff.runtime.registry import build, find, signature_of

if TYPE_CHECKING:
    from pdiff.engine.process import Flow, Process

NEEDED = {"schedule": ("step", "scale_model_input"), "flow": ("step",)}  # methods of a sampler, by what it is made from


@SAMPLERS.register_module(name="DDPM")
def ddpm(schedule: Any, steps: int | None = None) -> Any:
    """Return ancestral sampling (Ho et al., 2020) in `steps` steps (default: all T).

    Args:
        schedule: that of the training.
        steps: of the denoiser; default: all T.
    """
    from diffusers import DDPMScheduler

    return _prepared(DDPMScheduler.from_config(schedule.config, timestep_spacing="trailing"), steps)


@SAMPLERS.register_module(name="DDIM")
def ddim(schedule: Any, steps: int | None = None) -> Any:
    """Return deterministic DDIM sampling (Song et al., 2021) in `steps` steps (default: 50, or all T if fewer).

    Args:
        schedule: that of the training.
        steps: of the denoiser; default: 50, or all T where these are fewer.
    """
    from diffusers import DDIMScheduler

    return _prepared(DDIMScheduler.from_config(schedule.config, timestep_spacing="trailing"), steps, usual=50)


@SAMPLERS.register_module(name="DPM-Solver++")
def dpm_solver(schedule: Any, steps: int | None = None, order: int = 2) -> Any:
    """Return DPM-Solver++ multistep sampling (Lu et al., 2022) in `steps` steps (default: 20, or all T if fewer).

    Args:
        schedule: that of the training.
        steps: of the denoiser; default: 20, or all T where these are fewer.
        order: of the solver, 1 to 3.
    """
    from diffusers import DPMSolverMultistepScheduler

    if order not in (1, 2, 3):
        raise PdiffError(f"engine.sampler.order: got {order}, expected 1, 2 or 3.")
    solver = DPMSolverMultistepScheduler.from_config(
        schedule.config, algorithm_type="dpmsolver++", solver_order=order, timestep_spacing="trailing"
    )
    return _prepared(solver, steps, usual=20)


def _prepared(scheduler: Any, steps: int | None, usual: int | None = None) -> Any:
    """Return a scheduler that takes `steps` of its T; None: as many as `usual`, or all T where these are fewer."""
    timesteps = scheduler.config.num_train_timesteps
    steps = min(usual or timesteps, timesteps) if steps is None else steps
    if not 1 <= steps <= timesteps:
        line = f"got {steps}, expected 1 to {timesteps}, the steps of engine.noise_schedule.timesteps"
        todo = "Set it to null: as many as usual, or all where these are fewer"
        raise PdiffError(f"engine.sampler.steps: {line}. {todo}.")
    scheduler.set_timesteps(steps)
    return scheduler


@SAMPLERS.register_module(name="Euler")
def euler(flow: "Flow", steps: int | None = None) -> Any:
    """Return Euler's method along a flow in `steps` even steps (default: 50).

    Args:
        flow: that of the training.
        steps: of the denoiser; default: 50.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    steps = 50 if steps is None else steps
    check_positive("engine.sampler", steps=steps)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    return scheduler


@SAMPLERS.register_module(name="Heun")
def heun(flow: "Flow", steps: int | None = None) -> Any:
    """Return Heun's method, of second order, along a flow in `steps` steps (default: 25), of which each but the last
    asks twice.

    Args:
        flow: that of the training.
        steps: of the method; the denoiser is asked 2 steps - 1 times; default: 25.
    """
    from diffusers import FlowMatchHeunDiscreteScheduler

    steps = 25 if steps is None else steps
    check_positive("engine.sampler", steps=steps)
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(steps)
    return scheduler


def build_sampler(cfg: dict, process: "Process", where: str = "engine.sampler") -> Any:
    """Return the sampler that a config section describes (`type`, `steps`, ...), for a process.

    Args:
        cfg: the section.
        process: that of the training.
        where: the section's place in the config, for the error line.

    Raises:
        PdiffError: the section cannot be, its type is for another process or returned no sampler.
    """
    check_fits(cfg, process, where)
    found = build(SAMPLERS, cfg, where, **{process.offers: process.offered()})
    if not all(callable(getattr(found, name, None)) for name in NEEDED.get(process.offers, ("step",))):
        line = f"{where}: {cfg['type']!r} returned {type(found).__name__}, expected a scheduler of diffusers"
        raise PdiffError(f"{line}, its timesteps set. Return it.")
    return found


def check_fits(cfg: dict, process: "Process", where: str) -> None:
    """Raise a `PdiffError` for a registered sampler that is made from something else than this process."""
    check_section(cfg, where)
    kind = cfg.get("type")
    taken = signature_of(find(SAMPLERS, kind, where), where).parameters
    others = {*NEEDED} - {process.offers}
    if process.offers in taken or not others & {*taken}:
        return
    own = [name for name, made in SAMPLERS.module_dict.items() if process.offers in signature_of(made, name).parameters]
    line = f"{where}: got {kind!r}, which is for another generator than {process.name}"
    fitting = f"one of {', '.join(own)}" if own else f"one that takes {process.offers!r}"
    raise PdiffError(f"{line}, expected {fitting}. Set {where}.type.")
