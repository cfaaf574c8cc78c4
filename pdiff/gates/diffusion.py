"""The second gate of the fit, and that of the generation: did the diffusion learn the latents, and does it draw them?

On whitened latents the moments of samples tell little: a denoiser that was never trained leaves white noise white. So
its loss is held against that of the best linear denoiser, which knows mean and covariance and nothing else.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pdiff.engine.objectives import Denoising
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.whitening import Whitening
from pdiff.run.check import Check
from pdiff.run.heldout import split_population
from pdiff.runtime.seeding import generator, normal
from pdiff.runtime.storage import read_tensors

if TYPE_CHECKING:
    from pdiff.run.run import Run

HIGHEST_RATIO = 1.05  # a truly Gaussian population, of which there is no more to learn, ends at 1.00; one step at 1.28
DRAWS = 8000  # pairs of latent and timestep; the ratio then has a standard error of 0.003
BATCH = 1000
LEAST_SHARE = 0.01  # of the largest variance; whitened latents have it on all axes or not at all
LARGEST_OFFSET = 0.5  # standard deviations of the population
NORMS = (0.5, 1.5)  # of the samples, over the population's; the defaults lie at 0.8 to 1.0, a blow-up far above
MOST_OUTSIDE = 0.1


def linear_loss(variances: Tensor, alpha_bar: Tensor, prediction: str) -> Tensor:
    """Return the mean squared error of the best linear denoiser, `(T,)`, averaged over the axes.

    On an axis with variance l, z_t = sqrt(a) z + sqrt(1 - a) eps has the variance a l + 1 - a. The error of the best
    linear estimate of a target y is Var(y) - Cov(y, z_t)^2 / Var(z_t), which is
    a l / (a l + 1 - a) for y = eps, l / (a l + 1 - a) for y = v = sqrt(a) eps - sqrt(1 - a) z, and
    (1 - a) l / (a l + 1 - a) for y = z.

    Args:
        variances: of the latents on their principal axes `(L,)`, all l.
        alpha_bar: share of the signal at T timesteps `(T,)`, all a.
        prediction: `epsilon`, `v_prediction` or `sample`.
    """
    a = alpha_bar[:, None].double()
    factor = {"epsilon": a, "v_prediction": torch.ones_like(a), "sample": 1 - a}[prediction]
    return (factor * variances / (a * variances + 1 - a)).mean(1)


def gate_denoiser(run: "Run") -> list[Check]:
    """Return the check of the denoiser's training."""
    engine = run.engine
    latents = engine.encode(split_population(run)[0])
    losses = denoising_losses(engine, latents.to(engine.device), run.seed("gate", "denoiser"))
    return [check_denoiser(*losses)]


@torch.no_grad()
def denoising_losses(engine: ParameterDiffusion, latents: Tensor, seed: int) -> tuple[float, float]:
    """Return the loss of the engine's denoiser on latents `(N, L)`, and that of the best linear one.

    The timesteps are evenly spaced over the schedule, in random order. Only the principal axes count that carry some
    of the variance: what is drawn on the others changes nothing.
    """
    white, schedule = engine.whitening(latents), engine.schedule
    rng, count = generator(seed, device=white.device), schedule.config.num_train_timesteps
    t = torch.randperm(DRAWS, generator=rng, device=white.device) * count // DRAWS
    rows = white[torch.arange(DRAWS, device=white.device) % len(white)]
    eps = normal(rows.shape, rng)
    objective = Denoising(engine.denoiser, schedule, seed)
    target, z_t = objective.target(rows, eps, t), schedule.add_noise(rows, eps, t)
    predictions = [engine.denoiser(*pair) for pair in zip(z_t.split(BATCH), t.split(BATCH), strict=True)]
    centred = (white - white.mean(0)).double()
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(white))
    carry = variances >= LEAST_SHARE * variances.max()
    errors = (torch.cat(predictions) - target).double() @ axes[:, carry]
    alpha_bar = schedule.alphas_cumprod.to(white.device)[t]
    linear = linear_loss(variances[carry], alpha_bar, schedule.config.prediction_type)
    return errors.square().mean().item(), linear.mean().item()


def check_denoiser(loss: float, linear: float) -> Check:
    """Return whether the denoiser learnt at least what mean and covariance say."""
    ratio = loss / linear if linear else float("inf")
    figures = {"loss": loss, "linear_loss": linear, "ratio": ratio}
    found = f"a denoising loss of {loss:.3f}, {ratio:.2f} times that of the best linear denoiser ({linear:.3f})"
    if ratio <= HIGHEST_RATIO:
        return Check("denoiser", True, found, figures)
    line = (
        f"got {found}, expected at most {HIGHEST_RATIO}: the diffusion has not even learnt mean and covariance. "
        "Raise engine.denoiser_training.steps, or its lr; engine.whiten makes the task easier."
    )
    return Check("denoiser", False, line, figures)


def gate_latents(run: "Run") -> list[Check]:
    """Return the check of the sampled latents."""
    engine = run.engine
    sampled = read_tensors(run.directory.folder("generate") / "latents.safetensors")["latents"]
    return [check_latents(sampled, engine.encode(split_population(run)[0]))]


def check_latents(sampled: Tensor, latents: Tensor) -> Check:
    """Return whether samples `(M, L)` have the moments and norms of the population's latents `(N, L)`.

    Both are looked at in units of the population's standard deviations along its principal axes.
    """
    whitening = Whitening(latents.shape[1])
    whitening.fit(latents)
    alive = whitening.std > 0
    own, new = whitening(latents)[:, alive], whitening(sampled)[:, alive]
    figures = {
        "offset": new.mean(0).square().mean().sqrt().item(),
        "std": new.std(0, correction=0).mean().item(),
        "norm": (new.norm(dim=1).mean() / own.norm(dim=1).mean()).item(),
        "outside": (new.norm(dim=1) > own.norm(dim=1).max()).double().mean().item(),
    }
    found = (
        f"sampled latents with {figures['norm']:.2f} times the population's norm, {figures['std']:.2f} times its "
        f"spread, {figures['offset']:.2f} off its mean, {figures['outside']:.0%} outside its envelope"
    )
    low, high = NORMS
    if low <= figures["norm"] <= high and figures["offset"] <= LARGEST_OFFSET and figures["outside"] <= MOST_OUTSIDE:
        return Check("latents", True, found, figures)
    line = (
        f"got {found}, expected {low} to {high} times its norm, at most {LARGEST_OFFSET} off, at most "
        f"{MOST_OUTSIDE:.0%} outside. The diffusion does not match the latents: raise engine.denoiser_training.steps, "
        "take more sampling steps, or set engine.whiten."
    )
    return Check("latents", False, line, figures)
