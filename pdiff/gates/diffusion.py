"""The second gate of the fit, and that of the generation: did the generator learn the latents, and does it draw them?

On whitened latents the moments of samples tell little: a denoiser that was never trained leaves white noise white. So
its loss is held against that of the best linear denoiser, which knows mean and covariance and nothing else.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pdiff.engine.denoising import DenoisingGenerator
from pdiff.engine.generator import Generator
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.process import Process
from pdiff.engine.samplers import build_sampler
from pdiff.engine.whitening import Whitening
from pdiff.engine.width import WIDTHS, why_narrow
from pdiff.run.check import Check, Figure, not_measured
from pdiff.run.heldout import heldout_record, split_population
from pdiff.run.targets import Targets, known_conditions, open_targets
from pdiff.run.wanted import open_wanted
from pdiff.runtime.seeding import generator, normal
from pdiff.runtime.storage import read_tensors
from pdiff.weights.conditions import Conditions
from pdiff.weights.vectors import Made, Rows, relative_width

if TYPE_CHECKING:
    from pdiff.run.run import Run

HIGHEST_RATIO = 1.05  # a truly Gaussian population, of which there is no more to learn, ends at 1.00; one step at 1.28
MUCH_MEMORISED = 2.0  # 300 fine-tuned checkpoints end at 1.5 to 1.8, independent draws at 1.0, 30 checkpoints at 2.3
DRAWS = 8000  # pairs of latent and timestep; the ratio then has a standard error of 0.003
BATCH = 1000
LEAST_SHARE = 0.01  # of the largest variance; whitened latents have it on all axes or not at all
LARGEST_OFFSET = 0.5  # standard deviations of the population
NORMS = (0.5, 1.5)  # of the samples, over the population's; the defaults lie at 0.8 to 1.0, a blow-up far above
MOST_OUTSIDE = 0.1  # more than of a Gaussian
COLLAPSED = 0.3  # times the spread of the decoded; sound diffusions have 0.75 to 1.2, untrained ones of z 0.45
MEND = f"{Generator.remedy}."
FEWEST_NEAR = 10  # checkpoints near a target, whose spread the generated ones should have
EQUAL = "the fitted checkpoints do not differ"


def linear_loss(variances: Tensor, process: Process, t: Tensor, squares: Tensor | None = None) -> Tensor:
    """Return the mean squared error of the best linear denoiser, `(T,)`, averaged over the axes.

    On an axis with variance l, z_t = a z + s eps has the variance D = a^2 l + s^2, and the best linear estimate of z
    leaves the error s^2 (s^2 S + a^2 l^2) / D^2 on latents whose mean square is S. An estimate of z gives one of the
    target y = p z + q eps, whose error is ((p s - q a) / s)^2 times that. Where S = l it is l (p s - q a)^2 / D.

    Args:
        variances: of the latents that it is the best one for, on their principal axes `(L,)`, all l.
        process: from latents to noise.
        t: times `(T,)`.
        squares: mean squares about the mean of those, on the same axes, of the latents that it is used on `(L,)`, all
            S; default: the variances.
    """
    a, s = (factor[:, None].double() for factor in process.signal(t))
    determinant, squares = process.determinant(t)[:, None].double(), variances if squares is None else squares
    return ((determinant / (a**2 * variances + s**2)) ** 2 * (s**2 * squares + a**2 * variances**2)).mean(1)


def gate_denoiser(run: "Run") -> list[Check]:
    """Return the check of the denoiser's training; of several fits, that of the worst; none without a denoiser."""
    if not isinstance(run.engine.generator, DenoisingGenerator):
        return []
    seed, record = run.seed("gate", "denoiser"), heldout_record(run)["line"]
    checks = []
    for engine in run.engines:
        (fitted, c), (heldout, other_c) = (
            (engine.encode(rows).to(engine.device) if len(rows) else None, conditions_of(run, rows))
            for rows in split_population(run)
        )
        other = None if heldout is None else denoising_losses(engine, heldout, seed, fitted, other_c)
        own = denoising_losses(engine, fitted, seed, conditions=c)
        checks.append(check_denoiser(own, other, record, remedy(engine.config)))
    if len(checks) == 1 or not all(check.figures for check in checks):
        return checks[:1]
    worst = max(range(len(checks)), key=lambda number: checks[number].figures["ratio"])
    line = f"{checks[worst].line.rstrip('.')}. This is the worst of {len(checks)} fits, number {worst}."
    return [replace(checks[worst], line=line, figures={**checks[worst].figures, "fit": worst})]


def conditions_of(run: "Run", vectors: Rows) -> Tensor | None:
    """Return what the engine is told of some vectors `(M, P)` of a run's population `(M, C)`; None for nothing."""
    conditions = known_conditions(run)
    return None if conditions is None else conditions.values[vectors.rows]


@torch.no_grad()
def denoising_losses(
    engine: ParameterDiffusion,
    latents: Tensor,
    seed: int,
    fitted: Tensor | None = None,
    conditions: Tensor | None = None,
    noisiest: float = 1.0,
) -> tuple[float, float]:
    """Return the loss of the engine's denoiser on latents `(N, L)`, and that of the best linear one.

    The times are evenly spaced over the process, in random order. Only the principal axes count that carry some
    of the variance: what is drawn on the others changes nothing. The linear one knows of no conditions: one more
    reason for the engine's to be no worse.

    Args:
        engine: a fitted one.
        latents: that both denoise.
        seed: of noise and times.
        fitted: latents `(F, L)` that the linear one is the best for; default: the same ones.
        conditions: `(N, C)`, what the latents were made for; None for an engine without.
        noisiest: the share of the times that counts, the last ones.
    """
    white, process, denoiser = engine.whitening(latents), engine.process, engine.generator.denoiser
    rng = generator(seed, device=white.device)
    t = process.even(DRAWS, rng, noisiest)
    drawn = torch.arange(DRAWS, device=white.device) % len(white)
    rows, given = white[drawn], ()
    if conditions is not None:
        given = (engine.conditioning(conditions.to(white.device))[drawn].split(BATCH),)
    eps = normal(rows.shape, rng)
    target, z_t = process.wanted(rows, eps, t), process.noisy(rows, eps, t)
    batches = zip(z_t.split(BATCH), t.split(BATCH), *given, strict=True)
    predictions = [denoiser(*batch) for batch in batches]
    own = white if fitted is None else engine.whitening(fitted)
    variances, axes = principal(own)
    errors = (torch.cat(predictions) - target).double() @ axes
    squares = ((white - own.mean(0)).double() @ axes).square().mean(0)
    linear = linear_loss(variances, process, t, squares)
    return errors.square().mean().item(), linear.mean().item()


def principal(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return variances `(A,)` and principal axes `(L, A)` of latents `(N, L)`: of those that carry some variance."""
    centred = (latents - latents.mean(0)).double()
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(latents))
    carry = variances >= LEAST_SHARE * variances.max()
    return variances[carry], axes[:, carry]


def sampling_steps(engine: ParameterDiffusion, sampler: Mapping[str, Any] | None) -> int | None:
    """Return how many steps a sampler takes; None where it can take no more of them, or there is none."""
    if engine.process is None:
        return None
    times = build_sampler(sampler, engine.process).timesteps  # Heun's method asks at all but the first time twice
    taken, most = len(set(times.tolist())), engine.process.steps
    return taken if most is None or taken < most else None


def remedy(config: Mapping[str, Any], steps: int | None = None, own: str = Generator.remedy) -> str:
    """Return which settings of an engine may mend its generator: none that are as they should be already.

    Args:
        config: the engine section in force.
        steps: of the sampler, which may take more; None where nothing was drawn, or nothing more is to be had.
        own: what the generator itself says.
    """
    ways = [own]
    if steps is not None:
        ways.append(f"take more sampling steps (now {steps})")
    if not config["whiten"]:
        ways.append("set engine.whiten")
    return f"{'; '.join(ways)}."


def check_denoiser(
    fitted: tuple[float, float], heldout: tuple[float, float] | None, record: str, todo: str = MEND
) -> Check:
    """Return whether the denoiser learnt at least what mean and covariance say; what it knows by heart fails nothing.

    Args:
        fitted: its loss on the latents that it was trained on, and that of the best linear one.
        heldout: the same two on latents that neither has seen; None without any.
        record: a sentence about what is held out, or why nothing is.
        todo: what may mend it.
    """
    if not fitted[1]:
        return not_measured("denoiser", EQUAL)
    (loss, linear), ratio = fitted, ratio_of(*fitted)
    figures = {"loss": loss, "linear_loss": linear, "ratio": ratio}
    found = f"a denoising loss of {loss:.3f}, {ratio:.2f} times that of the best linear denoiser ({linear:.3f})"
    if heldout is not None:
        other = ratio_of(*heldout)
        figures |= {"heldout_loss": heldout[0], "heldout_ratio": other, "memorisation": ratio_of(other, ratio)}
    if ratio <= HIGHEST_RATIO:
        return Check("denoiser", True, f"{found}; {words_for_memory(figures, record)}", figures)
    line = (
        f"got {found}, expected at most {HIGHEST_RATIO}: the diffusion has not even learnt mean and covariance. {todo}"
    )
    return Check("denoiser", False, line, figures)


def ratio_of(loss: float, reference: float) -> float:
    """Return a loss as a multiple of another."""
    return loss / reference if reference else float("inf")


def words_for_memory(figures: Mapping[str, Figure], record: str) -> str:
    """Return what the figures of the check say about latents that the denoiser has not seen."""
    if "memorisation" not in figures:
        return f"on held-out checkpoints it is not measured: {record}"
    words = f"on held-out checkpoints {figures['heldout_ratio']:.2f} times, a memorisation of "
    words += f"{figures['memorisation']:.2f} (1: as good on them as on the fitted); {record}"
    if figures["memorisation"] <= MUCH_MEMORISED:
        return words
    return (
        f"{words}. Much of the gain is memory of single checkpoints: lower engine.generator_training.steps, take "
        "more checkpoints, or a smaller engine.denoiser"
    )


def gate_latents(run: "Run") -> list[Check]:
    """Return the checks of the sampled latents, and of how widely the vectors are spread that they decode to.

    Those for wanted conditions may lie where none of the fitted does, so they are held against the checkpoints for
    select conditions too, along the axes that carry some of the variance; those beyond the range of the seen ones are
    left out, for nobody knows where they ought to lie. Their spread is that of their conditions. Those for a target
    may have another mean than all of the fitted, and their spread is held against that of the fitted near the target.
    """
    engine, (fitted, heldout) = run.engine, split_population(run)
    sampled = read_tensors(run.directory.folder("generate") / "latents.safetensors")["latents"]
    todo = remedy(engine.config, sampling_steps(engine, run.drawing["sampler"]), engine.generator.remedy)
    if not run.conditional:
        latents, targets = engine.encode(fitted), open_targets(run)
        near = torch.arange(len(fitted)) if targets is None else nearest_rows(targets)
        decoded = Made([len(near), fitted.shape[1]], lambda rows, rng: engine.decode(latents[near][rows]), generator(0))
        widths, among = [engine.spread(vectors) for vectors in (run.generated, decoded)], "the fitted ones"
        if targets is not None:
            own, among = engine.spread(Rows(run.population.tensor(), fitted.rows[near])), f"{among} near the target"
            widths = [relative_width(width, own) for width in widths]
        found = check_latents(sampled, latents, todo, elsewhere=targets is not None)
        return [found, check_spread(*widths, engine.config, todo, among)]
    wanted, rows = open_wanted(run), torch.cat([fitted.rows, heldout.rows])
    asked = wanted.conditions.take(run.generated_for[: len(sampled)])
    inside = ~asked.beyond(wanted.seen).any(1)
    if not inside.any():
        return [not_measured("latents", "every wanted condition lies beyond the range of the seen ones.")]
    return [check_latents(sampled[inside], engine.encode(Rows(run.population.tensor(), rows)), todo, elsewhere=True)]


def nearest_rows(targets: Targets) -> Tensor:
    """Return which of the fitted are nearest to what is asked for: a tenth of them, and ten at least."""
    wanted, values = (Conditions(targets.names, rows) for rows in (targets.wanted[None], targets.values))
    order = wanted.distances(values)[0].argsort(kind="stable")
    return torch.from_numpy(order[: max(len(order) // 10, FEWEST_NEAR)].copy())


def outside_by_chance(own: Tensor) -> float:
    """Return how many of a Gaussian's draws lie farther out than all of the latents that it was fitted to: a share.

    Of few latents that is much: N of them span no more than N - 1 axes, and on as many all N have one and the same
    norm, which half of the draws exceed.

    Args:
        own: the latents in units of their standard deviations along their principal axes `(N, L)`.
    """
    from scipy.stats import chi2

    return float(chi2.sf(own.double().square().sum(1).max().item(), own.shape[1]))


def check_latents(sampled: Tensor, latents: Tensor, todo: str = MEND, elsewhere: bool = False) -> Check:
    """Return whether samples `(M, L)` have the moments and norms of the population's latents `(N, L)`.

    Both are looked at in units of the population's standard deviations along its principal axes. As many samples may
    lie outside the envelope as of a Gaussian with the population's moments, and a tenth more.

    Args:
        sampled: what was drawn.
        latents: those of the population.
        todo: what may mend it.
        elsewhere: the samples are for conditions of their own, so that their mean may be another, and only the axes
            count that carry some of the variance.
    """
    whitening = Whitening(latents.shape[1])
    whitening.fit(latents)
    alive = whitening.std > (LEAST_SHARE**0.5 * whitening.std.max() if elsewhere else 0)
    if not alive.any():
        return not_measured("latents", EQUAL)
    own, new = whitening(latents)[:, alive], whitening(sampled)[:, alive]
    figures = {
        "offset": new.mean(0).square().mean().sqrt().item(),
        "std": new.std(0, correction=0).mean().item(),
        "norm": (new.norm(dim=1).mean() / own.norm(dim=1).mean()).item(),
        "outside": (new.norm(dim=1) > own.norm(dim=1).max()).double().mean().item(),
        "outside_by_chance": outside_by_chance(own),
    }
    chance = figures["outside_by_chance"]
    most = chance + max(MOST_OUTSIDE, 3 * math.sqrt(chance * (1 - chance) / len(new)))
    found = (
        f"sampled latents with {figures['norm']:.2f} times the population's norm, {figures['std']:.2f} times its "
        f"spread, {figures['offset']:.2f} off its mean, {figures['outside']:.0%} outside its envelope "
        f"(of a Gaussian {chance:.0%})"
    )
    low, high = NORMS
    near = elsewhere or figures["offset"] <= LARGEST_OFFSET
    if low <= figures["norm"] <= high and near and figures["outside"] <= most:
        return Check("latents", True, found, figures)
    offset = "" if elsewhere else f"at most {LARGEST_OFFSET} off, "
    line = (
        f"got {found}, expected {low} to {high} times its norm, {offset}at most "
        f"{most:.0%} outside. What is drawn does not match the latents. {todo}"
    )
    return Check("latents", False, line, figures)


def check_spread(
    generated: float, codec: float, config: Mapping[str, Any], todo: str, among: str = "the fitted ones"
) -> Check:
    """Return how widely the generated vectors are spread, and what is to blame where that is little.

    It fails where the generator has collapsed: they are far narrower than what the codec makes of the fitted ones.

    Args:
        generated: their spread, over that of the fitted vectors.
        codec: that of what the codec makes of the fitted vectors.
        config: the engine section in force.
        todo: what may mend the generator.
        among: words for the fitted vectors that these are held against.
    """
    figures = {"spread": generated, "spread_of_decoded": codec}
    line = f"generated vectors with {generated:.2f} times the spread of {among}, decoded ones with {codec:.2f}"
    if codec and generated / codec < COLLAPSED:
        line = f"got {line}, expected at least {COLLAPSED} times these: the generator has collapsed. {todo}"
        return Check("spread", False, line, figures)
    blame = why_narrow(config, codec)
    if codec and not WIDTHS[0] <= generated / codec <= WIDTHS[1]:
        blame += f"; the generator draws {generated / codec:.2f} times as widely as it should. {todo.removesuffix('.')}"
    return Check("spread", True, line + blame, figures)
