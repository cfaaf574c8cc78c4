"""Noise schedules and samplers, all from diffusers, by name."""

from typing import Any

from pdiff.engine.registries import SAMPLERS
from pdiff.runtime.errors import PdiffError, check_positive, known
from pdiff.runtime.registry import build

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "v_prediction", "sample")


MOST_SIGNAL = 0.01  # alpha_bar at the last timestep; 1000 linear steps leave 4e-5, 100 of them .36


def words_for_end(schedule: Any) -> str | None:
    """Return what is wrong where the signal is not gone at the last timestep, alpha_bar_T; None where it is."""
    steps, left = schedule.config.num_train_timesteps, schedule.alphas_cumprod[-1].item()
    if left <= MOST_SIGNAL:
        return None
    return (
        f"engine.noise_schedule: got a share of the signal of {left:.2g} at the last of {steps} timesteps, expected at "
        f"most {MOST_SIGNAL}: sampling starts from noise alone, which the training would never see. Raise timesteps or "
        "beta_end, or set beta_schedule to squaredcos_cap_v2."
    )


def _check(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise PdiffError(f"engine.noise_schedule.{key}: got {value!r}. {known(value, choices)}")


def noise_schedule(
    timesteps: int = 1000,
    beta_start: float = 1e-4,
    beta_end: float = 2e-2,
    beta_schedule: str = "linear",
    prediction: str = "epsilon",
) -> Any:
    """Return the schedule of the training: a diffusers `DDPMScheduler`.

    Args:
        timesteps: T, steps from clean to noise.
        beta_start: variance of the first step.
        beta_end: variance of the last step.
        beta_schedule: `linear`, `scaled_linear` or `squaredcos_cap_v2`.
        prediction: what the denoiser predicts: `epsilon`, `v_prediction` or `sample`.
    """
    from diffusers import DDPMScheduler

    check_positive("engine.noise_schedule", timesteps=timesteps)
    if not 0 < beta_start <= beta_end < 1:
        got = f"beta_start {beta_start} and beta_end {beta_end}"
        raise PdiffError(f"engine.noise_schedule: got {got}, expected 0 < beta_start <= beta_end < 1.")
    _check("beta_schedule", beta_schedule, BETA_SCHEDULES)
    _check("prediction", prediction, PREDICTIONS)
    # Latents are no images: clipping samples to [-1, 1] would distort them.
    return DDPMScheduler(
        num_train_timesteps=timesteps,
        beta_start=beta_start,
        beta_end=beta_end,
        beta_schedule=beta_schedule,
        prediction_type=prediction,
        clip_sample=False,
    )


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
def ddim(schedule: Any, steps: int = 50) -> Any:
    """Return deterministic DDIM sampling (Song et al., 2021) in `steps` steps.

    Args:
        schedule: that of the training.
        steps: of the denoiser.
    """
    from diffusers import DDIMScheduler

    return _prepared(DDIMScheduler.from_config(schedule.config, timestep_spacing="trailing"), steps)


@SAMPLERS.register_module(name="DPM-Solver++")
def dpm_solver(schedule: Any, steps: int = 20, order: int = 2) -> Any:
    """Return DPM-Solver++ multistep sampling (Lu et al., 2022) in `steps` steps.

    Args:
        schedule: that of the training.
        steps: of the denoiser.
        order: of the solver, 1 to 3.
    """
    from diffusers import DPMSolverMultistepScheduler

    if order not in (1, 2, 3):
        raise PdiffError(f"engine.sampler.order: got {order}, expected 1, 2 or 3.")
    solver = DPMSolverMultistepScheduler.from_config(
        schedule.config, algorithm_type="dpmsolver++", solver_order=order, timestep_spacing="trailing"
    )
    return _prepared(solver, steps)


def _prepared(scheduler: Any, steps: int | None) -> Any:
    timesteps = scheduler.config.num_train_timesteps
    steps = timesteps if steps is None else steps
    if not 1 <= steps <= timesteps:
        raise PdiffError(f"engine.sampler.steps: got {steps}, expected 1 to {timesteps}, the training's timesteps.")
    scheduler.set_timesteps(steps)
    return scheduler


def build_sampler(cfg: dict, schedule: Any) -> Any:
    """Return the sampler that a config section describes (`type`, `steps`, ...), for a training schedule.

    Raises:
        PdiffError: the section cannot be, or its type returned no sampler.
    """
    found = build(SAMPLERS, cfg, "engine.sampler", schedule=schedule)
    if not all(callable(getattr(found, name, None)) for name in ("step", "scale_model_input")):
        line = f"engine.sampler: {cfg['type']!r} returned {type(found).__name__}, expected a scheduler of diffusers"
        raise PdiffError(f"{line}, its timesteps set. Return it.")
    return found
