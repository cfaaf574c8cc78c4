"""The noise schedule of a diffusion, of diffusers: how much of a latent is left at each of T steps."""

from typing import Any

from pdiff.runtime.errors import PdiffError, check_positive, known

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
MOST_SIGNAL = 0.01  # alpha_bar at the last timestep; 1000 linear steps leave 4e-5, 100 of them .36


def check_end(schedule: Any) -> str:
    """Return words for a schedule that leaves too much of the signal at its last timestep, and for what mends it."""
    steps, left = schedule.config.num_train_timesteps, schedule.alphas_cumprod[-1].item()
    return (
        f"engine.noise_schedule: got a share of the signal of {left:.2g} at the last of {steps} timesteps, expected at "
        f"most {MOST_SIGNAL}: sampling starts from noise alone, which the training would never see. Raise timesteps or "
        "beta_end, set beta_schedule to squaredcos_cap_v2, or zero_terminal_snr to true."
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
    zero_terminal_snr: bool = False,
) -> Any:
    """Return the schedule of the training: a diffusers `DDPMScheduler`.

    Args:
        timesteps: T, steps from clean to noise.
        beta_start: variance of the first step.
        beta_end: variance of the last step.
        beta_schedule: `linear`, `scaled_linear` or `squaredcos_cap_v2`.
        prediction: what the denoiser predicts: `epsilon`, `v_prediction` or `sample`.
        zero_terminal_snr: stretch the schedule so that nothing of the signal is left at its last step, however few
            there are (Lin et al., 2024, arXiv 2305.08891, algorithm 1); not with `epsilon`, of which nothing is to be
            learnt there.
    """
    from diffusers import DDPMScheduler

    check_positive("engine.noise_schedule", timesteps=timesteps)
    if not 0 < beta_start <= beta_end < 1:
        got = f"beta_start {beta_start} and beta_end {beta_end}"
        raise PdiffError(f"engine.noise_schedule: got {got}, expected 0 < beta_start <= beta_end < 1.")
    _check("beta_schedule", beta_schedule, BETA_SCHEDULES)
    _check("prediction", prediction, PREDICTIONS)
    if zero_terminal_snr and prediction == "epsilon":
        line = "got true with the prediction 'epsilon', from which no latent follows where there is noise alone"
        raise PdiffError(f"engine.noise_schedule.zero_terminal_snr: {line}. Set prediction to v_prediction or sample.")
    if zero_terminal_snr and timesteps == 1:
        line = "got true with one timestep, expected two at least, of which the first is left as it is"
        raise PdiffError(f"engine.noise_schedule.zero_terminal_snr: {line}. Raise timesteps.")
    # Latents are no images: clipping samples to [-1, 1] would distort them.
    return DDPMScheduler(
        num_train_timesteps=timesteps,
        beta_start=beta_start,
        beta_end=beta_end,
        beta_schedule=beta_schedule,
        prediction_type=prediction,
        clip_sample=False,
        rescale_betas_zero_snr=zero_terminal_snr,
    )
