"""Where candidates come from: the trained, the generated, and baselines that cost next to nothing.

Whoever reports generated parameters without the baselines misleads (arXiv 2506.07998). A source returns vectors
`(M, P)`; an ensemble returns `(M, K, P)`, K vectors whose predictions count together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdiff.engine import ParameterDiffusion
from pdiff.errors import PdiffError, check_positive, known
from pdiff.models.objectives import normal
from pdiff.registry import SOURCES, build
from pdiff.run import Run
from pdiff.seeding import generator
from pdiff.weights.layout import Layout


@dataclass(frozen=True)
class Pool:
    """What sources draw from.

    Attributes:
        population: the trained vectors `(N, P)`.
        generated: the vectors that the engine drew `(M, P)`.
        layout: of a vector.
        reconstruct: from vectors to what the codec makes of them.
        num: how many candidates a source gives whose settings do not say it.
    """

    population: Tensor
    generated: Tensor
    layout: Layout
    reconstruct: Callable[[Tensor], Tensor]
    num: int

    def count(self, num: int | None) -> int:
        """Return `num`, or the default number for None; raise a `PdiffError` unless that is positive."""
        number = self.num if num is None else num
        check_positive("evaluate.sources", num=number)
        return number


def open_pool(run: Run) -> Pool:
    """Return what the sources of a run draw from."""

    def reconstruct(vectors: Tensor) -> Tensor:
        engine = ParameterDiffusion.load(run.directory.folder("fit"), str(run.device))
        return engine.decode(engine.encode(vectors))

    population = run.population
    return Pool(population.tensor(), run.generated, population.layout, reconstruct, run.config.evaluate.num)


def source_names(run: Run) -> list[str]:
    """Return the sources of the config, without those that are null, and without ensembles where the task has none."""
    sources = {name: source for name, source in run.config.evaluate.sources.items() if source is not None}
    return [name for name, source in sources.items() if source.get("type") != "ensemble" or run.has_hook("ensemble")]


def source_vectors(run: Run, name: str, pool: Pool) -> Tensor:
    """Return the vectors of the source that the config calls `name`; the same ones at each call."""
    if name not in source_names(run):
        raise PdiffError(f"source: got {name!r}. {known(name, source_names(run))}")
    settings, rng = run.config.evaluate.sources[name], generator(run.config.seed, "source", name)
    return build(SOURCES, settings, f"evaluate.sources.{name}", pool=pool, rng=rng)


def spaced(vectors: Tensor, num: int) -> Tensor:
    """Return `num` rows, evenly spaced from the first to the last; all where there are no more."""
    if num >= len(vectors):
        return vectors
    return vectors[torch.linspace(0, len(vectors) - 1, num).round().long()]


@SOURCES.register_module(name="trained")
def trained(pool: Pool, rng: torch.Generator, num: int | None = None) -> Tensor:
    """Return the collected vectors; `num` of them, evenly spaced, where it is given."""
    return pool.population if num is None else spaced(pool.population, pool.count(num))


@SOURCES.register_module(name="generated")
def from_engine(pool: Pool, rng: torch.Generator) -> Tensor:
    """Return the vectors that the engine drew."""
    return pool.generated


@SOURCES.register_module(name="codec")
def codec(pool: Pool, rng: torch.Generator, num: int | None = None) -> Tensor:
    """Return trained vectors, evenly spaced, encoded and decoded: what the codec alone does to them."""
    return pool.reconstruct(spaced(pool.population, pool.count(num)))


@SOURCES.register_module(name="soup")
def soup(pool: Pool, rng: torch.Generator) -> Tensor:
    """Return the average of all trained vectors."""
    return pool.population.mean(0, keepdim=True)


@SOURCES.register_module(name="soup_of")
def soup_of(pool: Pool, rng: torch.Generator, members: int = 16, num: int | None = None) -> Tensor:
    """Return averages of `members` trained vectors, drawn without repetition."""
    return torch.stack([group.mean(0) for group in groups(pool, rng, members, pool.count(num))])


def groups(pool: Pool, rng: torch.Generator, members: int, num: int) -> list[Tensor]:
    """Return `num` groups of trained vectors `(members, P)`, drawn without repetition inside a group."""
    population = pool.population
    if not 1 <= members <= len(population):
        raise PdiffError(f"evaluate.sources: got members {members}, expected 1 to {len(population)}, all trained.")
    return [population[torch.randperm(len(population), generator=rng)[:members]] for _ in range(num)]


@SOURCES.register_module(name="interpolation")
def interpolation(pool: Pool, rng: torch.Generator, num: int | None = None) -> Tensor:
    """Return points between two trained vectors, uniformly drawn on the line that joins them."""
    pairs = torch.stack(groups(pool, rng, 2, pool.count(num)))
    return torch.lerp(pairs[:, 0], pairs[:, 1], torch.rand(len(pairs), 1, generator=rng))


@SOURCES.register_module(name="gaussian")
def gaussian(pool: Pool, rng: torch.Generator, num: int | None = None) -> Tensor:
    """Return draws from an independent Gaussian per coordinate, with the population's moments."""
    population = pool.population
    shape = torch.Size([pool.count(num), population.shape[1]])
    return population.mean(0) + population.std(0) * normal(shape, rng)


@SOURCES.register_module(name="gaussian_subspace")
def gaussian_subspace(pool: Pool, rng: torch.Generator, axes: int = 32, num: int | None = None) -> Tensor:
    """Return draws from a Gaussian in the population's first principal axes, with its covariance there.

    With X the centred population and U the leading eigenvectors of X X^T, `(N, axes)`, a draw is the mean plus
    X^T U g / sqrt(N - 1) for white g: its covariance is that of the population on these axes.
    """
    check_positive("evaluate.sources", axes=axes)
    mean = pool.population.mean(0)
    centred = (pool.population - mean).double()
    leading = torch.linalg.eigh(centred @ centred.T).eigenvectors[:, -axes:]
    white = normal(torch.Size([pool.count(num), leading.shape[1]]), rng).double()
    deviations = (white @ leading.T) @ centred / max(len(centred) - 1, 1) ** 0.5
    return mean + deviations.to(mean.dtype)


@SOURCES.register_module(name="relative_noise")
def relative_noise(pool: Pool, rng: torch.Generator, scale: float, num: int | None = None) -> Tensor:
    """Return trained vectors, drawn at random, with noise of `scale` times each tensor's standard deviation."""
    vectors, noise = noisy(pool, rng, scale, num)
    for entry in pool.layout:
        noise[:, entry.slice] *= vectors[:, entry.slice].std(1, correction=0, keepdim=True)
    return vectors + noise


@SOURCES.register_module(name="absolute_noise")
def absolute_noise(pool: Pool, rng: torch.Generator, scale: float, num: int | None = None) -> Tensor:
    """Return trained vectors, drawn at random, with noise of standard deviation `scale` on every coordinate."""
    vectors, noise = noisy(pool, rng, scale, num)
    return vectors + noise


def noisy(pool: Pool, rng: torch.Generator, scale: float, num: int | None) -> tuple[Tensor, Tensor]:
    """Return trained vectors, drawn at random, and white noise of standard deviation `scale` for them."""
    vectors = pool.population[torch.randint(len(pool.population), (pool.count(num),), generator=rng)]
    return vectors, scale * normal(vectors.shape, rng)


@SOURCES.register_module(name="ensemble")
def ensemble(pool: Pool, rng: torch.Generator, members: int = 16, num: int = 1) -> Tensor:
    """Return groups of trained vectors `(num, members, P)`, whose predictions are averaged by the task."""
    return torch.stack(groups(pool, rng, min(members, len(pool.population)), pool.count(num)))
