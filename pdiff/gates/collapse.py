"""A gate of the fit: does the denoiser see what there is to see at the noisiest timesteps, where every draw begins?

What goes wrong there no later step mends: the draws end as one, or far away. Averaged over all timesteps, as in the
check of the whole denoiser, it is a tenth of the loss.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pdiff.engine.denoising import DenoisingGenerator
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.samplers import build_sampler
from pdiff.gates.diffusion import EQUAL, conditions_of, denoising_losses, principal, remedy, sampling_steps
from pdiff.run.check import Check, not_measured
from pdiff.run.heldout import split_population
from pdiff.runtime.seeding import generator

if TYPE_CHECKING:
    from pdiff.run.run import Run

NOISIEST = 0.1  # of the timesteps
MOST_MISSED = 0.2  # trained ones miss 0.02 of what is to be predicted, flows 0.14; untrained ones 0.3 (epsilon: 1.3)
LEAST_SPREAD = 0.5  # after the first step; with 2 to 1000 steps it is 0.98 to 1.0, of a flow in 2 steps 0.7
DRAWN = 512


def gate_collapse(run: "Run") -> list[Check]:
    """Return the check of the denoiser where draws begin; of several fits, that of the worst; none without one."""
    if not isinstance(run.engine.generator, DenoisingGenerator):
        return []
    seed, parts = run.seed("gate", "collapse"), split_population(run)
    checks = []
    for engine in run.engines:
        given = [(engine.encode(rows).to(engine.device), conditions_of(run, rows)) for rows in parts if len(rows)]
        (fitted, c), *heldout = given
        own = denoising_losses(engine, fitted, seed, conditions=c, noisiest=NOISIEST)
        others = [denoising_losses(engine, other, seed, fitted, at, NOISIEST) for other, at in heldout]
        checks.append(check_collapse(own, others, spread_at_first(engine, fitted, c, seed), engine))
    if len(checks) == 1 or not all(check.figures for check in checks):
        return checks[:1]
    worst = max(range(len(checks)), key=lambda number: (not checks[number].passed, checks[number].figures["missed"]))
    return [replace(checks[worst], figures={**checks[worst].figures, "fit": worst})]


@torch.no_grad()
def spread_at_first(engine: ParameterDiffusion, latents: Tensor, conditions: Tensor | None, seed: int) -> float:
    """Return how wide draws are after the sampler's first step, over how wide noisy latents are there.

    A latent with the variance l on an axis has the variance a^2 l + s^2 there when it is noisy; the mean over the axes
    that carry some of the variance.

    Args:
        engine: a fitted one.
        latents: that it was fitted to `(N, L)`.
        conditions: what these were made for `(N, C)`; the draws are for the same ones.
        seed: of the draws.
    """
    rng, given = generator(seed, "first", device=engine.device), None
    if conditions is not None:
        rows = torch.arange(DRAWN) % len(conditions)
        given = engine.conditioning(conditions[rows].to(engine.device))
    shape = torch.Size([DRAWN, latents.shape[1]])
    z, _ = next(engine.generator.draw(shape, rng, given, sampler=engine.config["sampler"]))
    variances, axes = principal(engine.whitening(latents))
    sampler, (a, s) = build_sampler(engine.config["sampler"], engine.process), (1.0, 0.0)
    for t in sampler.timesteps[1:2]:  # none where one step is all
        z, (a, s) = engine.process.shown(z, t, sampler), engine.process.signal(t.to(z.device))
    return ((z.double() @ axes).std(0) / (a**2 * variances + s**2).sqrt()).mean().item()


def missed(loss: float, linear: float, noise: bool) -> float:
    """Return how much more than the best linear denoiser's a loss at the noisiest timesteps is, as a share.

    Of what is to be predicted there: `noise` of variance 1, of which the linear one leaves next to nothing; or the
    latents, of which nothing can be seen, so that its loss is their variance.
    """
    return (loss - linear) / (1.0 if noise else linear)


def check_collapse(
    fitted: tuple[float, float], heldout: list[tuple[float, float]], first: float, engine: ParameterDiffusion
) -> Check:
    """Return whether draws begin as they should.

    Args:
        fitted: the denoiser's loss at the noisiest timesteps on the latents that it was trained on, and that of the
            best linear one.
        heldout: the same two on latents that neither has seen; empty without any. They fail nothing: what lies in
            other directions than the fitted ones is missed by a sound one too.
        first: see `spread_at_first`.
        engine: a fitted one, of which the settings are named.
    """
    if not fitted[1]:
        return not_measured("collapse", EQUAL)
    noise = engine.process.predicts_noise
    figures = {"loss": fitted[0], "linear_loss": fitted[1], "missed": missed(*fitted, noise), "first": first}
    for other in heldout:
        figures["heldout_missed"] = missed(*other, noise)
    found = (
        f"at the noisiest tenth of the timesteps the denoiser misses {max(figures['missed'], 0.0):.2f} of what it is "
        f"to predict, beside the best linear one; after the first step draws have {first:.2f} times their spread"
    )
    if figures["missed"] <= MOST_MISSED and first >= LEAST_SPREAD:
        return Check("collapse", True, found, figures)
    steps = sampling_steps(engine, engine.config["sampler"])
    line = (
        f"got {found}, expected at most {MOST_MISSED}, and at least {LEAST_SPREAD} times: draws begin there, so they "
        f"collapse or stray. {remedy(engine.config, steps if first < LEAST_SPREAD else None)}"
    )
    return Check("collapse", False, line, figures)
