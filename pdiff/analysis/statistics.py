"""Figures of sources from the metrics of their candidates; the best is chosen on `select` and reported on `test`.

Every function takes a metric of either direction. A dead candidate may stand as an infinity in the bad direction:
whatever is about ranks takes it as it is; means and their intervals are of the living, and the caller leaves it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INTERVAL = (2.5, 97.5)  # percentiles: 95 %
DRAWS = 1_000_000  # at once: few enough for the processor's cache


@dataclass(frozen=True)
class Difference:
    """One source's mean against another's.

    Attributes:
        difference: of the means; positive where the first is better, whatever the metric's direction.
        interval: 95 %, of the difference.
        p: two-sided, of no difference; at least `2 / (resamples + 1)`.
    """

    difference: float
    interval: tuple[float, float]
    p: float


@dataclass(frozen=True)
class Choice:
    """What comes of choosing the best of a source by its metric on training data.

    Attributes:
        spearman: rank correlation with the metric on `test`; None where one of the two never differs, and below three
            candidates.
        p: two-sided, of no correlation; None with it.
        regret: how far the chosen one lies behind the best on `test`; 0 at best.
        n: candidates.
    """

    spearman: float | None
    p: float | None
    regret: float
    n: int


def best_index(select: NDArray, higher_is_better: bool) -> int:
    """Return the candidate that is best on `select`; among equals, the first."""
    return int(np.argmax(select) if higher_is_better else np.argmin(select))


def best_of(select: NDArray, test: NDArray, k: int, higher_is_better: bool) -> float:
    """Return what choosing the best of `k` on `select` gives on `test`, in expectation over which `k` are there.

    Exact: `k` of the n candidates are drawn without replacement, and the j-th best of all is the best of them with
    probability C(n - j, k - 1) / C(n, k). Equals stand in their own order, so that `k = n` gives the candidate of
    `best_index`. As in every mean here, draws whose best is dead on `test` are left out; NaN where all are.

    Args:
        select: the metric that chooses `(n,)`.
        test: the metric that is reported `(n,)`.
        k: budget, from 1 on; a source with fewer candidates offers all of them.
        higher_is_better: direction of both.
    """
    n = len(select)
    k = min(k, n)
    ranking = np.argsort(-select if higher_is_better else select, kind="stable")[: n - k + 1]
    j = np.arange(1, n - k + 1)
    chance = k / n * np.cumprod(np.concatenate([[1.0], (n - j - k + 1) / (n - j)]))
    alive = np.isfinite(test[ranking])
    if not alive.any():
        return float("nan")
    return float(chance[alive] @ test[ranking][alive] / chance[alive].sum())


def ranked(select: NDArray, higher_is_better: bool, count: int) -> NDArray:
    """Return the numbers of at most `count` candidates, evenly spaced from the best on `select` to the worst."""
    ranking = np.argsort(-select if higher_is_better else select, kind="stable")
    return ranking[np.linspace(0, len(ranking) - 1, min(count, len(ranking))).round().astype(int)]


def resampled_means(values: NDArray, resamples: int, rng: np.random.Generator) -> NDArray:
    """Return the means `(resamples, J)` of rows drawn with replacement from `values` `(K, J)`, K at a time."""
    count, step = len(values), max(1, DRAWS // len(values))
    means = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        means.append(weights.astype(np.float64) @ values / count)
    return np.concatenate(means)


def mean_interval(values: NDArray, resamples: int, seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval (percentile) of a mean.

    Args:
        values: `(K,)`: one candidate's scores over samples, or one source's metrics over candidates.
        resamples: how many.
        seed: of the draws.
    """
    values = np.asarray(values, dtype=np.float64)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    low, high = np.percentile(resampled_means(values[:, None], resamples, np.random.default_rng(seed)), INTERVAL)
    return float(low), float(high)


def differences(
    subject: NDArray, others: Mapping[str, NDArray], higher_is_better: bool, resamples: int, seed: int
) -> dict[str, Difference]:
    """Return the subject against each other source: difference of means, 95 % interval and two-sided p-value.

    A bootstrap over candidates and over test samples. Candidates of either source are drawn with replacement; test
    samples are drawn once for both, so that what makes a sample hard for every candidate cancels (paired). The mean of
    a table (candidates, samples) is resampled as mean + (rows' deviation) + (columns' deviation), from the means of
    rows and of columns alone: fast, and the part of the variance that belongs to single cells, 1 / (M S) of theirs, is
    counted twice; drawing rows and columns of the table itself counts it three times (Owen 2007, The pigeonhole
    bootstrap). So intervals err on the wide side. They are percentiles; the p-value is the level at which the interval
    meets zero.

    Assumed: candidates are independent draws, and so are samples. Trained candidates are steps of few trainings, and
    the generated ones come from one fit, so the interval speaks of these sources on new candidates and samples, not of
    another training or another fit. A source of one candidate, a soup, is taken as it is. Where there are no scores,
    the test set is taken as it is, too; where then nothing is left to be drawn, the interval is infinite and p is 1.

    Args:
        subject: scores `(M, S)`, whose means over samples are the metrics, or metrics `(M,)`.
        others: the same of other sources, on the same samples, by name.
        higher_is_better: direction of the metric.
        resamples: how many.
        seed: of the draws.
    """
    rng, sign = np.random.default_rng(seed), 1 if higher_is_better else -1
    pairs = {name: _columns(subject) - _columns(other) for name, other in others.items() if _scored(subject, other)}
    by_samples = {}
    if pairs:
        drawn = resampled_means(np.stack(list(pairs.values()), axis=1), resamples, rng)
        by_samples = {name: drawn[:, i] - pair.mean() for i, (name, pair) in enumerate(pairs.items())}
    own, by_own = _rows(subject), _deviations(_rows(subject), resamples, rng)
    found = {}
    for name, other in others.items():
        metrics = _rows(other)
        difference = sign * (own.mean() - metrics.mean())
        if len(own) == len(metrics) == 1 and name not in pairs:
            found[name] = Difference(float(difference), (-np.inf, np.inf), 1.0)
            continue
        drawn = by_own - _deviations(metrics, resamples, rng) + by_samples.get(name, 0.0)
        found[name] = _judged(float(difference), difference + sign * drawn, 1e-12 * np.abs(own).max())
    return found


def _scored(subject: NDArray, other: NDArray) -> bool:
    return subject.ndim == other.ndim == 2


def _rows(values: NDArray) -> NDArray:
    return values.mean(1, dtype=np.float64) if values.ndim == 2 else values.astype(np.float64)


def _columns(scores: NDArray) -> NDArray:
    return scores.mean(0, dtype=np.float64)


def _deviations(metrics: NDArray, resamples: int, rng: np.random.Generator) -> NDArray:
    return resampled_means(metrics[:, None], resamples, rng)[:, 0] - metrics.mean()


def _judged(difference: float, drawn: NDArray, rounding: float) -> Difference:
    low, high = np.percentile(drawn, INTERVAL)
    opposite = min((drawn <= rounding).sum(), (drawn >= -rounding).sum())
    return Difference(difference, (float(low), float(high)), min(1.0, 2 * float(opposite + 1) / (len(drawn) + 1)))


def superiority(first: NDArray, second: NDArray, higher_is_better: bool) -> float:
    """Return the probability that a candidate of the first source is better than one of the second.

    The Mann-Whitney statistic over the number of pairs: equals count half. 1/2 means that neither is better.

    Args:
        first: metrics `(A,)`.
        second: metrics `(B,)`.
        higher_is_better: direction of the metric.
    """
    from scipy.stats import mannwhitneyu

    better, worse = (first, second) if higher_is_better else (second, first)
    return float(mannwhitneyu(better, worse, method="asymptotic").statistic / (len(first) * len(second)))


def holm(p: Sequence[float]) -> NDArray:
    """Return p-values adjusted for their number `(K,)` (Holm 1979, step-down): below 0.05, at most 5 % err in any."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def choice(train: NDArray, test: NDArray, higher_is_better: bool) -> Choice:
    """Return how well the metric on training data ranks candidates by their metric on `test`.

    Args:
        train: the metric that chooses `(n,)`.
        test: the metric that is reported `(n,)`, one of them alive.
        higher_is_better: direction of both.
    """
    best = test.max() if higher_is_better else test.min()
    regret = float(abs(best - test[best_index(train, higher_is_better)]))
    if len(test) < 3 or (train == train[0]).all() or (test == test[0]).all():
        return Choice(None, None, regret, len(test))
    from scipy.stats import spearmanr

    found = spearmanr(train, test)
    return Choice(float(found.statistic), float(found.pvalue), regret, len(test))
