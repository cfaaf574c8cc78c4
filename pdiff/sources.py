"""Where candidates come from: the trained, the generated, and baselines that cost nothing.

Whoever reports generated parameters without the baselines misleads (arXiv 2506.07998).
"""

import torch
from torch import Tensor

from pdiff.errors import PdiffError, known
from pdiff.models.objectives import normal
from pdiff.registry import SOURCES, build
from pdiff.run import Run
from pdiff.seeding import generator
from pdiff.weights.layout import Layout


def source_names(run: Run) -> list[str]:
    """Return the sources of the config; those that it sets to null are left out."""
    return [name for name, source in run.config.evaluate.sources.items() if source is not None]


def source_vectors(run: Run, name: str, generated: Tensor) -> Tensor:
    """Return the vectors `(M, P)` of the source that the config calls `name`; the same ones at each call."""
    if name not in source_names(run):
        raise PdiffError(f"source: got {name!r}. {known(name, source_names(run))}")
    return build(
        SOURCES,
        run.config.evaluate.sources[name],
        f"evaluate.sources.{name}",
        population=run.population.tensor(),
        generated=generated,
        layout=run.population.layout,
        rng=generator(run.config.seed, "source", name),
    )


@SOURCES.register_module(name="trained")
def trained(population: Tensor, generated: Tensor, layout: Layout, rng: torch.Generator) -> Tensor:
    """Return the collected vectors."""
    return population


@SOURCES.register_module(name="generated")
def from_engine(population: Tensor, generated: Tensor, layout: Layout, rng: torch.Generator) -> Tensor:
    """Return the vectors that the engine drew."""
    return generated


@SOURCES.register_module(name="soup")
def soup(population: Tensor, generated: Tensor, layout: Layout, rng: torch.Generator) -> Tensor:
    """Return the average of all trained vectors."""
    return population.mean(0, keepdim=True)


@SOURCES.register_module(name="soup_of")
def soup_of(
    population: Tensor, generated: Tensor, layout: Layout, rng: torch.Generator, members: int = 16, num: int = 100
) -> Tensor:
    """Return `num` averages of `members` trained vectors, drawn without repetition."""
    if not 1 <= members <= len(population):
        raise PdiffError(f"evaluate.sources: got members {members}, expected 1 to {len(population)}, all trained.")
    draws = [torch.randperm(len(population), generator=rng)[:members] for _ in range(num)]
    return torch.stack([population[draw].mean(0) for draw in draws])


@SOURCES.register_module(name="gaussian")
def gaussian(population: Tensor, generated: Tensor, layout: Layout, rng: torch.Generator, num: int = 200) -> Tensor:
    """Return draws from an independent Gaussian per coordinate, with the population's moments."""
    shape = torch.Size([num, population.shape[1]])
    return population.mean(0) + population.std(0) * normal(shape, rng)


@SOURCES.register_module(name="relative_noise")
def relative_noise(
    population: Tensor, generated: Tensor, layout: Layout, rng: torch.Generator, scale: float, num: int = 200
) -> Tensor:
    """Return trained vectors, drawn at random, with noise of `scale` times each tensor's standard deviation."""
    vectors = population[torch.randint(len(population), (num,), generator=rng)]
    noise = scale * normal(vectors.shape, rng)
    for entry in layout:
        noise[:, entry.slice] *= vectors[:, entry.slice].std(1, correction=0, keepdim=True)
    return vectors + noise
