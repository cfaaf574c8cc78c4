"""Sources for a target, and of several vectors of another source at once: all optional, in no default table."""

import torch

from pdiff.analysis.regressions import linear, prediction
from pdiff.engine.whitening import Whitening
from pdiff.run.derived import MEMBERS, too_many
from pdiff.run.sources import SOURCES, Pool, check_members, grouped, groups
from pdiff.runtime.errors import PdiffError, check_positive
from pdiff.runtime.seeding import normal
from pdiff.weights.vectors import Made, Vectors


@SOURCES.register_module(name="ridge_gaussian")
def ridge_gaussian(pool: Pool, rng: torch.Generator, degree: int = 1, num: int | None = None) -> Vectors:
    """Return decoded draws from a Gaussian about what ridge regression of the latents says of the target.

    Its covariance is that of what the regression leaves of the fitted latents. It is to a target what
    `latent_gaussian` is without: a diffusion that learnt of the target no more than a line draws this. How strong the
    ridge is follows from cross-validation over whole lineages.

    Args:
        degree: of the polynomial in the figures; 1 for a line.
        num: how many; default: evaluate.num.
    """
    check_positive("evaluate.sources", degree=degree)
    if pool.targets is None:
        raise PdiffError("evaluate.sources: ridge_gaussian is for a target. Set fit.conditions, or the source to null.")
    latents, targets = torch.as_tensor(pool.encode(pool.known)), pool.targets
    seen, wanted = targets.values.double().numpy(), targets.wanted.double().numpy()[None]
    centre, rest = prediction(linear(degree), seen, targets.groups, latents.double().numpy(), wanted)
    whitening = Whitening(latents.shape[1])
    whitening.fit(torch.from_numpy(rest).float())
    drawn = whitening.inverse(normal(torch.Size([pool.count(num), latents.shape[1]]), rng))
    drawn += torch.from_numpy(centre).float()
    return Made([len(drawn), pool.layout.size], lambda rows, rng: pool.decode(drawn[rows]), rng)


@SOURCES.register_module(name="generated_soup")
def generated_soup(pool: Pool, rng: torch.Generator, members: int = MEMBERS, num: int | None = None) -> Vectors:
    """Return averages of `members` generated vectors, drawn without repetition: beside `soup_of`, of fitted ones.

    Args:
        members: generated vectors of an average.
        num: how many; default: evaluate.num.
    """
    drawn = of_generated(pool, rng, members, pool.count(num))
    return Made([len(drawn), pool.layout.size], lambda rows, rng: pool.generated[drawn[rows]].mean(1), rng)


@SOURCES.register_module(name="generated_ensemble")
def generated_ensemble(pool: Pool, rng: torch.Generator, members: int = MEMBERS, num: int = 1) -> Vectors:
    """Return groups of generated vectors `(num, members, P)`, whose predictions are averaged by the task.

    Args:
        members: generated vectors of a group.
        num: how many groups.
    """
    return grouped(pool.generated, of_generated(pool, rng, members, pool.count(num)))


@SOURCES.register_module(name="ensemble_of")
def ensemble_of(pool: Pool, rng: torch.Generator, of: str, members: int = MEMBERS, num: int = 1) -> Vectors:
    """Return groups of another source's candidates `(num, members, P)`, whose predictions are averaged by the task.

    Args:
        of: the name of that source; of single networks.
        members: candidates of a group, drawn without repetition inside it.
        num: how many groups.
    """
    check_positive("evaluate.sources", members=members)
    vectors = pool.other(of).vectors
    if members > len(vectors):
        raise too_many("evaluate.sources", members, len(vectors), of)
    return grouped(vectors, groups(torch.arange(len(vectors)), rng, members, pool.count(num), "ensemble_of"))


def of_generated(pool: Pool, rng: torch.Generator, members: int, num: int) -> torch.Tensor:
    """Return groups `(num, members)` of generated vectors, drawn without repetition inside a group."""
    check_members("evaluate.sources", {"members": members}, len(pool.generated))
    return groups(torch.arange(len(pool.generated)), rng, members, num, "generated_soup")
