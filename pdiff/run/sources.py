"""Where candidates come from: the trained, the generated, and baselines that cost next to nothing.

Whoever reports generated parameters without the baselines misleads (arXiv 2506.07998). A source returns vectors
`(M, P)`; an ensemble returns `(M, K, P)`, K vectors whose predictions count together. What is not stored already is
made a few vectors at a time (`Made`), with the same draws at every pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from mmengine.registry import Registry
from torch import Tensor

from pdiff.runtime.errors import PdiffError, check_positive, known
from pdiff.runtime.registry import build, prepare
from pdiff.runtime.seeding import generator, normal
from pdiff.weights.gram import centred_blocks, centred_gram
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Made, Rows, Vectors, along_columns, mean

if TYPE_CHECKING:
    from pdiff.run.run import Run

MEMBERS = 16  # of an average of a few
SOURCES = Registry("source", scope="pdiff", locations=["pdiff.run.sources"])


@dataclass(frozen=True)
class Pool:
    """What sources draw from.

    Attributes:
        population: the trained vectors `(N, P)`, memory-mapped.
        generated: the vectors that the engine drew `(M, P)`, memory-mapped.
        layout: of a vector.
        reconstruct: from vectors to what the codec makes of them, a few at a time.
        num: how many candidates a source gives whose settings do not say it.
    """

    population: Tensor
    generated: Tensor
    layout: Layout
    reconstruct: Callable[[Tensor | Rows], Vectors]
    num: int

    def count(self, num: int | None) -> int:
        """Return `num`, or the default number for None; raise a `PdiffError` unless that is positive."""
        number = self.num if num is None else num
        check_positive("evaluate.sources", num=number)
        return number


def open_pool(run: "Run") -> Pool:
    """Return what the sources of a run draw from."""

    def reconstruct(vectors: Tensor | Rows) -> Vectors:
        latents = run.engine.encode(vectors)
        return Made(vectors.shape, lambda rows, rng: run.engine.decode(latents[rows]), generator(0))

    population = run.population
    return Pool(population.tensor(), run.generated, population.layout, reconstruct, run.config.evaluate.num)


def source_names(run: "Run") -> list[str]:
    """Return the sources of the config, without those that are null, and without ensembles where the task has none."""
    sources = {name: source for name, source in run.config.evaluate.sources.items() if source is not None}
    return [name for name, source in sources.items() if source.get("type") != "ensemble" or run.has_hook("ensemble")]


def check_sources(run: "Run") -> None:
    """Raise a `PdiffError` for a source that cannot be, before anything is computed for it."""
    for name in source_names(run):
        settings, where = run.config.evaluate.sources[name], f"evaluate.sources.{name}"
        prepare(SOURCES, settings, where, {"rng": None}, pool=None)
        if settings.get("num") is not None:
            check_positive(where, num=settings["num"])
    for name in run.config.evaluate.train:
        if name not in source_names(run):
            raise PdiffError(f"evaluate.train: got {name!r}. {known(name, source_names(run))}")


def source_vectors(run: "Run", name: str, pool: Pool) -> Vectors:
    """Return the vectors of the source that the config calls `name`; the same ones at each call."""
    if name not in source_names(run):
        raise PdiffError(f"source: got {name!r}. {known(name, source_names(run))}")
    settings, rng = run.config.evaluate.sources[name], generator(run.config.seed, "source", name)
    return build(SOURCES, settings, f"evaluate.sources.{name}", {"rng": rng}, pool=pool)


def spaced(vectors: Tensor, num: int) -> Tensor | Rows:
    """Return `num` rows, evenly spaced from the first to the last; all where there are no more."""
    if num >= len(vectors):
        return vectors
    return Rows(vectors, torch.linspace(0, len(vectors) - 1, num).round().long())


@SOURCES.register_module(name="trained")
def trained(pool: Pool, rng: torch.Generator, num: int | None = None) -> Vectors:
    """Return the collected vectors; `num` of them, evenly spaced, where it is given.

    Args:
        num: how many; default: all.
    """
    return pool.population if num is None else spaced(pool.population, pool.count(num))


@SOURCES.register_module(name="generated")
def from_engine(pool: Pool, rng: torch.Generator) -> Vectors:
    """Return the vectors that the engine drew."""
    return pool.generated


@SOURCES.register_module(name="codec")
def codec(pool: Pool, rng: torch.Generator, num: int | None = None) -> Vectors:
    """Return trained vectors, evenly spaced, encoded and decoded: what the codec alone does to them.

    Args:
        num: how many; default: evaluate.num.
    """
    return pool.reconstruct(spaced(pool.population, pool.count(num)))


@SOURCES.register_module(name="soup")
def soup(pool: Pool, rng: torch.Generator) -> Vectors:
    """Return the average of all trained vectors."""
    return mean(pool.population)[None]


@SOURCES.register_module(name="soup_of")
def soup_of(pool: Pool, rng: torch.Generator, members: int = MEMBERS, num: int | None = None) -> Vectors:
    """Return averages of `members` trained vectors, drawn without repetition.

    Args:
        members: trained vectors of an average.
        num: how many; default: evaluate.num.
    """
    population, drawn = pool.population, groups(pool, rng, members, pool.count(num))

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        return torch.stack([mean(Rows(population, group)) for group in drawn[rows]])

    return Made([len(drawn), population.shape[1]], make, rng)


def groups(pool: Pool, rng: torch.Generator, members: int, num: int) -> Tensor:
    """Return the numbers `(num, members)` of groups of trained vectors, drawn without repetition inside a group."""
    count = len(pool.population)
    if not 1 <= members <= count:
        raise PdiffError(f"evaluate.sources: got members {members}, expected 1 to {count}, all trained.")
    return torch.stack([torch.randperm(count, generator=rng)[:members] for _ in range(num)])


@SOURCES.register_module(name="interpolation")
def interpolation(pool: Pool, rng: torch.Generator, num: int | None = None) -> Vectors:
    """Return points between two trained vectors, uniformly drawn on the line that joins them.

    Args:
        num: how many; default: evaluate.num.
    """
    population, pairs = pool.population, groups(pool, rng, 2, pool.count(num))
    weights = torch.rand(len(pairs), 1, generator=rng)

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        first, second = pairs[rows].T
        return torch.lerp(population[first], population[second], weights[rows])

    return Made([len(pairs), population.shape[1]], make, rng)


@SOURCES.register_module(name="gaussian")
def gaussian(pool: Pool, rng: torch.Generator, num: int | None = None) -> Vectors:
    """Return draws from an independent Gaussian per coordinate, with the population's moments.

    Args:
        num: how many; default: evaluate.num.
    """
    average, deviation = mean(pool.population), along_columns(lambda block: block.std(0), pool.population)

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        return average + deviation * normal(torch.Size([rows.stop - rows.start, len(average)]), rng)

    return Made([pool.count(num), len(average)], make, rng)


@SOURCES.register_module(name="gaussian_subspace")
def gaussian_subspace(pool: Pool, rng: torch.Generator, axes: int = 32, num: int | None = None) -> Vectors:
    """Return draws from a Gaussian in the population's first principal axes, with its covariance there.

    With X the centred population and U the leading eigenvectors of X X^T, `(N, axes)`, a draw is the mean plus
    X^T U g / sqrt(N - 1) for white g: its covariance is that of the population on these axes.

    Args:
        axes: how many; no more than there are trained vectors.
        num: how many; default: evaluate.num.
    """
    check_positive("evaluate.sources", axes=axes)
    population = pool.population
    average = mean(population)
    leading = torch.linalg.eigh(centred_gram(population)).eigenvectors[:, -axes:]
    white = normal(torch.Size([pool.count(num), leading.shape[1]]), rng).double()
    weights = white @ leading.T

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        vectors = average.repeat(rows.stop - rows.start, 1)
        for place, centred in centred_blocks(population):
            vectors[:, place] += (weights[rows] @ centred / max(len(centred) - 1, 1) ** 0.5).to(vectors.dtype)
        return vectors

    return Made([len(white), len(average)], make, rng)


@SOURCES.register_module(name="relative_noise")
def relative_noise(pool: Pool, rng: torch.Generator, scale: float, num: int | None = None) -> Vectors:
    """Return trained vectors, drawn at random, with noise of `scale` times each tensor's standard deviation.

    Args:
        scale: of the noise, in standard deviations of each tensor's values.
        num: how many; default: evaluate.num.
    """

    def widen(vectors: Tensor, noise: Tensor) -> Tensor:
        for entry in pool.layout:
            noise[:, entry.slice] *= vectors[:, entry.slice].std(1, correction=0, keepdim=True)
        return noise

    return noisy(pool, rng, scale, num, widen)


@SOURCES.register_module(name="absolute_noise")
def absolute_noise(pool: Pool, rng: torch.Generator, scale: float, num: int | None = None) -> Vectors:
    """Return trained vectors, drawn at random, with noise of standard deviation `scale` on every coordinate.

    Args:
        scale: of the noise.
        num: how many; default: evaluate.num.
    """
    return noisy(pool, rng, scale, num, lambda vectors, noise: noise)


def noisy(
    pool: Pool, rng: torch.Generator, scale: float, num: int | None, widen: Callable[[Tensor, Tensor], Tensor]
) -> Made:
    """Return trained vectors, drawn at random, plus what `widen` makes of white noise of standard deviation `scale`."""
    population = pool.population
    chosen = torch.randint(len(population), (pool.count(num),), generator=rng)

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        vectors = population[chosen[rows]]
        return vectors + widen(vectors, scale * normal(vectors.shape, rng))

    return Made([len(chosen), population.shape[1]], make, rng)


@SOURCES.register_module(name="ensemble")
def ensemble(pool: Pool, rng: torch.Generator, members: int = 16, num: int = 1) -> Vectors:
    """Return groups of trained vectors `(num, members, P)`, whose predictions are averaged by the task.

    Args:
        members: trained vectors of a group; no more than there are.
        num: how many groups.
    """
    population = pool.population
    drawn = groups(pool, rng, min(members, len(population)), pool.count(num))
    return Made([*drawn.shape, population.shape[1]], lambda rows, rng: population[drawn[rows]], rng)
