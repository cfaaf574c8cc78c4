"""Are the new parameters new in what they do? Similarity of what candidates get wrong, and averages of trained ones."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pdiff.analysis.statistics import SIGNIFICANCE, Difference, Values, contrast, superiority
from pdiff.weights.origin import COLLECTED, Origin

TOLD_APART = 0.75  # of the pairs; halfway between always and by chance


@dataclass(frozen=True)
class Averaging:
    """How behaviour tells averages of a few trained ones from others: by similarity to the average of all, the soup.

    Attributes:
        trained: probability that an average is nearer to the soup than a trained one.
        generated: probability that it is nearer than a generated one.
    """

    trained: Difference
    generated: Difference

    @property
    def average_like(self) -> bool:
        """Averages can be told from the trained ones, but not from the generated, and both are sure."""
        if not (self.trained.known and self.generated.known):
            return False
        told = self.trained.difference >= TOLD_APART and self.trained.interval[0] > 0.5
        return told and self.generated.interval[1] < TOLD_APART


@dataclass(frozen=True)
class Novelty:
    """Whether the generated behave unlike the trained ones.

    Attributes:
        similarity: mean over the generated of the largest similarity to a fitted checkpoint; None where none lives.
        across_branches: that of trained ones to fitted ones of other branches; None where there are no others.
        noise: the source of noisy checkpoints of equal quality that are the least similar; None without one.
        of_noise: their similarity.
        distinct: the generated are less similar than both, surely.
        line: what was found, or why nothing was.
    """

    similarity: float | None
    across_branches: float | None
    noise: str | None
    of_noise: float | None
    distinct: bool
    line: str


def averaging(generated: Values, trained: Values, averages: Values) -> Averaging:
    """Return whether the generated can be told from averages of trained ones by how they behave.

    Args:
        generated: similarity of each candidate to the average of all trained ones, the soup.
        trained: that of each trained one.
        averages: that of each average of a few trained ones, soup16.
    """
    return Averaging(superiority(averages, trained, True), superiority(averages, generated, True))


def novelty(
    generated: Values, trained: Values | None, noises: Mapping[str, Values], origin: Origin = COLLECTED
) -> Novelty:
    """Return whether the generated are less similar to the fitted than fresh branches are, and than noise is.

    Args:
        generated: largest similarity of each to a fitted checkpoint.
        trained: that of each trained one to a fitted one of another branch; None where there are no other branches.
        noises: that of noisy checkpoints that are as good as the generated, by source.
        origin: of the population.
    """
    name = min(noises, key=lambda name: noises[name].mean, default=None)
    noise = noises[name] if name else None
    found = {
        "similarity": generated.mean,
        "across_branches": trained.mean if trained else None,
        "noise": name,
        "of_noise": noise.mean if noise else None,
    }
    if trained is None:
        line = f"not shown to be new: there is no other {origin.branch} to hold it against"
        return Novelty(**found, distinct=False, line=line)
    below = {f"{trained.mean:.3f} of other {origin.branches}": surely_below(generated, trained)}
    if noise:
        below[f"{noise.mean:.3f} of {name}"] = surely_below(generated, noise)
    failed = [words for words, true in below.items() if not true]
    if not failed and noise:
        words = " and ".join(below)
        return Novelty(**found, distinct=True, line=f"distinct: similarity {generated.mean:.3f}, below {words}")
    if failed:
        line = f"not shown to be new: similarity {generated.mean:.3f}, not surely below {' and '.join(failed)}"
        return Novelty(**found, distinct=False, line=line)
    line = f"not shown to be new: similarity {generated.mean:.3f}, but no noise of equal quality to hold it against"
    return Novelty(**found, distinct=False, line=line)


def surely_below(first: Values, second: Values) -> bool:
    """Say whether the mean of the first is smaller, and its interval says so."""
    found = contrast(first, second, True)
    return bool(found.known and found.difference < 0 and found.p < SIGNIFICANCE)


def largest(similarity: NDArray, columns: NDArray, apart: NDArray | None = None) -> NDArray:
    """Return each candidate's largest similarity `(M,)` to some of the trained ones.

    Args:
        similarity: to all N of them `(M, N)`.
        columns: which of them count `(N,)`, booleans.
        apart: which pairs do not `(M, N)`, booleans; a candidate without any pair gets NaN.
    """
    counted = np.broadcast_to(columns, similarity.shape) & (True if apart is None else ~apart)
    found = np.where(counted, similarity, -np.inf).max(1)
    return np.where(counted.any(1), found, np.nan)


def pareto_front(metric: NDArray, similarity: NDArray, higher_is_better: bool) -> NDArray:
    """Return which candidates are on the front: none is at least as good and as dissimilar, and better in one of both.

    Args:
        metric: of each candidate `(K,)`; a dead one, at an infinity, is never on the front.
        similarity: largest to a trained one `(K,)`.
        higher_is_better: direction of the metric; similarity is the better the lower.

    Returns:
        Booleans `(K,)`.
    """
    quality = metric if higher_is_better else -metric
    alive = np.isfinite(metric)
    no_worse = (quality[:, None] >= quality) & (similarity[:, None] <= similarity)
    better = (quality[:, None] > quality) | (similarity[:, None] < similarity)
    return alive & ~(no_worse & better & alive[:, None]).any(0)
