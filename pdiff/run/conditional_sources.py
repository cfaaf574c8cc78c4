"""Sources for wanted conditions: what was trained for them, what is computed from the seen, what the engine draws.

Each gives one vector, or several, for every wanted condition. All but those of the engine and of a fine-tuning are
weighted sums of seen vectors, so that none needs more memory than a few vectors.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.analysis.references import coordinates_of
from pdiff.analysis.regressions import (
    between_weights,
    by_network,
    combination,
    kernel,
    linear,
    nearest_weights,
    project_randomly,
)
from pdiff.run.sources import SOURCES, Drawn, Pool
from pdiff.runtime.errors import PdiffError, check_positive
from pdiff.runtime.seeding import generator
from pdiff.weights.conditions import Conditions
from pdiff.weights.gram import centred_blocks, centred_gram
from pdiff.weights.vectors import Made, Rows, Vectors, mean

KINDS = ("all", "lineage")


@SOURCES.register_module(name="oracle")
def oracle(pool: Pool, rng: torch.Generator) -> Drawn:
    """Return the networks that were trained for the wanted conditions: what a training would give."""
    rows = torch.from_numpy(pool.wanted.oracles)
    return Drawn(Rows(pool.population, rows), parents=rows, wanted=torch.from_numpy(pool.wanted.oracle_of))


@SOURCES.register_module(name="oracle_codec")
def oracle_codec(pool: Pool, rng: torch.Generator) -> Drawn:
    """Return those networks, encoded and decoded: what the codec alone takes from a perfect generator."""
    found = oracle(pool, rng)
    return Drawn(pool.reconstruct(found.vectors), parents=found.parents, wanted=found.wanted)


@SOURCES.register_module(name="base")
def base(pool: Pool, rng: torch.Generator) -> Vectors:
    """Return what every network of the collection began with, as it is: one for all conditions."""
    return pool.base()[None]


@SOURCES.register_module(name="finetuned")
def finetuned(pool: Pool, rng: torch.Generator, steps: int = 1) -> Drawn:
    """Return what a short training for each wanted condition makes of that: the plugin's hook `finetune` does it.

    Args:
        steps: of the training.
    """
    check_positive("evaluate.conditional", steps=steps)
    vectors, seconds = pool.finetune(pool.wanted.conditions, steps)
    return Drawn(vectors, wanted=torch.arange(len(pool.wanted)), seconds=seconds)


@SOURCES.register_module(name="hypernet")
def hypernet(pool: Pool, rng: torch.Generator) -> Vectors:
    """Return what the hypernetwork gives for the wanted conditions (`fit.hypernet`)."""
    return pool.hypernet(pool.wanted.conditions)


@SOURCES.register_module(name="nearest")
def nearest(pool: Pool, rng: torch.Generator, k: int = 1) -> Vectors:
    """Return the mean of the `k` seen networks whose conditions are nearest; among equals, chance decides.

    Args:
        k: networks of a mean.
    """
    check_positive("evaluate.conditional", k=k)
    wanted = pool.wanted
    distances = wanted.conditions.distances(wanted.seen)
    weights = nearest_weights(distances, k, torch.rand(distances.shape, generator=rng).numpy())
    if k == 1:
        return Rows(pool.population, pool.fitted[torch.from_numpy(weights.argmax(1))])
    return combined(pool, weights)


@SOURCES.register_module(name="interpolation2")
def interpolation2(pool: Pool, rng: torch.Generator) -> Vectors:
    """Return points between the networks of the two nearest seen conditions, where the wanted one lies nearest."""
    wanted = pool.wanted
    distinct, of = wanted.seen.distinct()
    distances = wanted.conditions.distances(distinct)
    order = np.lexsort((torch.rand(distances.shape, generator=rng).numpy(), distances), axis=1)[:, :2]
    rows = [one_of_each(of, numbers, rng) for numbers in order.T]
    scale = wanted.seen.values.std(0, correction=0).clamp(min=1e-12).numpy()
    points = [distinct.values[numbers].numpy() / scale for numbers in order.T]
    share = between_weights(wanted.conditions.values.numpy() / scale, *points)
    first, second = (pool.fitted[torch.from_numpy(row)] for row in rows)
    weight = torch.from_numpy(share).float()[:, None]

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        return torch.lerp(pool.population[first[rows]], pool.population[second[rows]], weight[rows])

    return Made([len(wanted), pool.layout.size], make, rng)


def one_of_each(of: NDArray, numbers: NDArray, rng: torch.Generator) -> NDArray:
    """Return for each number one of the rows `(N,)` that have it, drawn at random."""
    members = [np.flatnonzero(of == number) for number in numbers]
    return np.array([rows[int(torch.randint(len(rows), (1,), generator=rng))] for rows in members])


@SOURCES.register_module(name="ridge")
def ridge(pool: Pool, rng: torch.Generator, degree: int = 1) -> Vectors:
    """Return what ridge regression of the parameters on the condition predicts.

    Args:
        degree: of the polynomial: 2 adds squares and products of the condition's numbers.
    """
    check_positive("evaluate.conditional", degree=degree)
    return regressed(pool, rng, partial(linear, degree), np.arange(len(pool.fitted)))


@SOURCES.register_module(name="kernel_ridge")
def kernel_ridge(pool: Pool, rng: torch.Generator, within: str = "all") -> Vectors | Drawn:
    """Return what ridge regression with a Gaussian kernel predicts.

    Args:
        within: `all` takes every seen network; `lineage` takes those of one initialisation at a time and gives a
            network of each, which nobody can do who is not told the initialisations.
    """
    if within not in KINDS:
        raise PdiffError(f"evaluate.conditional: got within {within!r}, expected {' or '.join(KINDS)}.")
    numbers = len(pool.wanted.seen.names)
    if within == "all":
        return regressed(pool, rng, partial(kernel, numbers), np.arange(len(pool.fitted)))
    lineages = [np.flatnonzero(pool.wanted.lineages == label) for label in np.unique(pool.wanted.lineages)]
    lineages = [rows for rows in lineages if len(np.unique(pool.wanted.seen_groups[rows])) >= 2]
    if not lineages:
        raise PdiffError(
            "evaluate.conditional: no initialisation has networks for two conditions, so that there is nothing to "
            "regress on within one. Set this source to null."
        )
    each = [weights_of(pool, rng, partial(kernel, numbers), rows) for rows in lineages]
    return Drawn(combined(pool, np.concatenate(each)), wanted=torch.arange(len(pool.wanted)).repeat(len(each)))


def regressed(pool: Pool, rng: torch.Generator, model, rows: NDArray) -> Vectors:
    """Return what a regression on some of the fitted vectors predicts for the wanted conditions."""
    return combined(pool, weights_of(pool, rng, model, rows))


def weights_of(pool: Pool, rng: torch.Generator, model, rows: NDArray) -> NDArray:
    """Return the weights of the fitted vectors `(W, F)` of a regression on some of them, the others 0.

    They sum up to 1, so that they may be used on the deviations from any average.
    """
    wanted, own = pool.wanted, Rows(pool.population, pool.fitted[torch.from_numpy(rows)])
    seen, asked = (conditions.values.double().numpy() for conditions in (wanted.seen, wanted.conditions))
    found, _ = combination(model(), seen[rows], wanted.seen_groups[rows], project_randomly(own, rng), asked)
    weights = np.zeros((len(wanted), len(pool.fitted)))
    weights[:, rows] = found + (1 - found.sum(1, keepdims=True)) / len(rows)
    return weights


@SOURCES.register_module(name="regression")
def regression(pool: Pool, rng: torch.Generator, hidden: Sequence[int] = (256, 256), axes: int = 256) -> Vectors:
    """Return what a small network with the condition as its input predicts, on the seen vectors' principal axes.

    Args:
        hidden: units of each hidden layer.
        axes: how many principal axes, at most.
    """
    check_positive("evaluate.conditional", axes=axes)
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise PdiffError(f"evaluate.conditional.hidden: got {hidden!r}, expected a list of units. Mend it.")
    for units in hidden:
        check_positive("evaluate.conditional", hidden=units)
    gram = centred_gram(pool.known, pool.device).cpu()
    directions = coordinates_of(gram)[0][:, :axes]
    seen, asked = (conditions.values.double().numpy() for conditions in (pool.wanted.seen, pool.wanted.conditions))
    seed = int(torch.randint(2**31, (1,), generator=rng))
    found = by_network(seen, (gram @ directions).numpy(), asked, tuple(hidden), seed)
    return combined(pool, found @ directions.T.numpy())


@SOURCES.register_module(name="symmetry")
def symmetry(pool: Pool, rng: torch.Generator) -> Vectors:
    """Return what the declared symmetry makes of the seen network whose condition it brings nearest.

    Where the symmetric condition itself was seen this is as good as a training, and the split has a leak; a split that
    keeps both together leaves it the nearest of the images.
    """
    wanted = pool.wanted
    distances = wanted.conditions.distances(wanted.symmetry.image(wanted.seen))
    rows = nearest_weights(distances, 1, torch.rand(distances.shape, generator=rng).numpy()).argmax(1)
    chosen = Rows(pool.population, pool.fitted[torch.from_numpy(rows)])
    return Made(chosen.shape, lambda place, rng: wanted.symmetry.vector(chosen[place]), rng)


@SOURCES.register_module(name="generated_permuted")
def generated_permuted(pool: Pool, rng: torch.Generator) -> Vectors:
    """Return what the engine draws for other wanted conditions than those they are measured under.

    As good as the generated, and the condition does not matter.
    """
    count = len(pool.wanted)
    if count < 2:
        raise PdiffError("evaluate.conditional: one condition cannot be exchanged for another. Ask for another source.")
    order = torch.randperm(count, generator=rng)
    shifted = torch.empty_like(order)
    shifted[order] = order.roll(1)
    return drawn(pool, pool.wanted.conditions.take(shifted), rng)


@SOURCES.register_module(name="generated_mean")
def generated_mean(pool: Pool, rng: torch.Generator, draws: int = 16) -> Vectors:
    """Return the mean of several draws for each condition: worse than one of them where there are several modes.

    Args:
        draws: of a mean.
    """
    check_positive("evaluate.conditional", draws=draws)
    every = drawn(pool, pool.wanted.conditions.take(torch.arange(len(pool.wanted)).repeat_interleave(draws)), rng)

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        return every[slice(rows.start * draws, rows.stop * draws)].unflatten(0, (-1, draws)).mean(1)

    return Made([len(pool.wanted), pool.layout.size], make, rng)


def drawn(pool: Pool, conditions: Conditions, rng: torch.Generator) -> Vectors:
    """Return what the engine draws for conditions, one vector for each."""
    latents = pool.draw(conditions, int(torch.randint(2**62, (1,), generator=rng)))
    return Made([len(latents), pool.layout.size], lambda rows, rng: pool.decode(latents[rows]), generator(0))


def combined(pool: Pool, weights: NDArray) -> Vectors:
    """Return the average of the fitted vectors plus sums of their deviations from it with weights `(M, F)`."""
    average, factors = mean(pool.known), torch.from_numpy(weights).to(pool.device)

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        vectors = average.repeat(rows.stop - rows.start, 1)
        for place, centred in centred_blocks(pool.known, pool.device):
            vectors[:, place] += (factors[rows] @ centred).float().cpu()
        return vectors

    return Made([len(factors), pool.layout.size], make, generator(0))
