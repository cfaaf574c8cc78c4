"""Figures of sources from the metrics of their candidates; the best is chosen on `select` and reported on `test`.

Every function takes a metric of either direction. Intervals and p-values are analytic: a mean has a variance for each
thing that was drawn (candidates, by what they have in common; test samples), each with its degrees of freedom, and
Student's t with those of Satterthwaite (1946) for their sum.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # of every interval
SIGNIFICANCE = 1 - LEVEL
FEWEST = 2  # units, of whose spread a variance can be computed


@dataclass(frozen=True)
class Component:
    """What one thing that was drawn adds to the variance of a mean.

    Attributes:
        what: was drawn: words for a line.
        variance: of the mean; NaN where too few were drawn to tell.
        freedom: its degrees of freedom.
        count: how many were drawn.
    """

    what: str
    variance: float
    freedom: float
    count: int


@dataclass(frozen=True)
class Values:
    """A metric of the candidates of one source.

    Attributes:
        name: of the source.
        metrics: `(M,)`.
        units: what each candidate shares with others of its number `(M,)`, a branch, a block of steps or a fit: only
            different units are independent. None: each is a draw of its own.
        columns: mean over the candidates of each test unit's score `(S,)`, whose mean is that of the metrics; None
            where the test set is taken as it is.
        unit: a word for what the units are.
        dependent: too dependent for any unit to be independent, or a single draw of many that could be; there is no
            variance then.
    """

    name: str
    metrics: NDArray
    units: NDArray | None = None
    columns: NDArray | None = None
    unit: str = "candidates"
    dependent: bool = False

    @property
    def mean(self) -> float:
        """Over the candidates."""
        return average(self.metrics)

    @property
    def component(self) -> Component:
        """What the draw of the candidates adds to the variance of their mean; nothing for a single one, a soup."""
        what = f"{self.unit} of {self.name}"
        if self.dependent:
            return Component(what, math.nan, 0, 1)
        if len(self.metrics) == 1:
            return Component(what, 0.0, math.inf, 1)
        return clustered(self.metrics, self.units, what)

    @property
    def effective(self) -> float:
        """How many independent candidates have a mean that is as sure as theirs, at most as many as they are."""
        count, variance = len(self.metrics), self.component.variance
        if count == 1 or variance == 0:
            return float(count)
        return float(np.clip(self.metrics.var(ddof=1) / variance, 1, count)) if variance > 0 else 1.0


@dataclass(frozen=True)
class Difference:
    """One source's mean against another's.

    Attributes:
        difference: of the means; positive where the first is better, whatever the metric's direction.
        components: of its variance.
        family: how many such differences are looked at together.
    """

    difference: float
    components: tuple[Component, ...]
    family: int = 1

    @property
    def variance(self) -> float:
        """Of the difference; NaN where it cannot be told."""
        drawn = any(component.count > 1 for component in self.components)
        return sum(component.variance for component in self.components) if drawn else math.nan

    @property
    def freedom(self) -> float:
        """Degrees of freedom of its variance, by Satterthwaite."""
        parts = [c.variance**2 / c.freedom for c in self.components if c.variance > 0]
        return self.variance**2 / sum(parts) if parts else math.inf

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return not math.isnan(self.variance)

    @property
    def untold(self) -> list[str]:
        """What was drawn too rarely to tell its part of the variance, in words."""
        return [component.what for component in self.components if math.isnan(component.variance)]

    def quantile(self, family: int = 1) -> float:
        """Return how many standard errors an interval reaches to either side, one of so many at once (Bonferroni)."""
        from scipy.stats import t

        return float(t.ppf(1 - SIGNIFICANCE / (2 * family), self.freedom))

    def reach(self, family: int = 1) -> tuple[float, float] | None:
        """Return the 95 % interval; None where the variance cannot be told."""
        if not self.known:
            return None
        half = self.quantile(family) * math.sqrt(self.variance) if self.variance else 0.0
        return self.difference - half, self.difference + half

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %, of this difference alone."""
        return self.reach()

    @property
    def simultaneous(self) -> tuple[float, float] | None:
        """95 %, of all differences that are looked at together: it holds zero where `p_adjusted` is 0.05 or more."""
        return self.reach(self.family)

    @property
    def p(self) -> float | None:
        """Two-sided, of no difference; None where it cannot be told."""
        from scipy.stats import t

        if not self.known:
            return None
        if self.variance == 0:
            return 1.0 if self.difference == 0 else 0.0
        return float(2 * t.sf(abs(self.difference) / math.sqrt(self.variance), self.freedom))

    @property
    def p_adjusted(self) -> float | None:
        """The same, times the number of differences that are looked at together (Bonferroni)."""
        return None if self.p is None else min(1.0, self.family * self.p)


@dataclass(frozen=True)
class Choice:
    """What comes of choosing the best of a source by its metric on training data.

    Attributes:
        spearman: rank correlation with the metric on `test`; None where one of the two never differs, and below three
            candidates.
        p: two-sided, of no correlation; None with it.
        regret: how far the chosen one lies behind the best on `test`, whose luck there is part of it; 0 at best, None
            where the chosen one has no finite metric there.
        n: candidates.
    """

    spearman: float | None
    p: float | None
    regret: float | None
    n: int


def average(values: NDArray) -> float:
    """Return the mean: of values that never differ the very same, so that no rounding passes for a sure difference."""
    return float(values[0] + (values - values[0]).mean())


def clustered(values: NDArray, units: NDArray | None, what: str) -> Component:
    """Return the variance of the mean of values `(M,)`, of which only those of different units `(M,)` are independent.

    With e_g the sum of the deviations in unit g of G, it is G / (G - 1) sum e_g^2 / M^2: for units of one value each
    the usual one.
    """
    _, labels = (None, np.arange(len(values))) if units is None else np.unique(units, return_inverse=True)
    sums = np.bincount(labels, values - average(values))
    count = len(sums)
    if count < FEWEST:
        return Component(what, math.nan, 0, count)
    return Component(what, float(count / (count - 1) * (sums**2).sum() / len(values) ** 2), count - 1, count)


def contrast(first: Values, second: Values, higher_is_better: bool, family: int = 1) -> Difference:
    """Return one source against another.

    Three things were drawn: the candidates of either, and the test samples, the same ones for both, so that what makes
    a sample hard for every candidate cancels (paired). The part of the variance that belongs to single cells of the
    table (candidates, samples) is in two of them, so that intervals err on the wide side.

    Args:
        first, second: the sources.
        higher_is_better: direction of the metric.
        family: how many differences are looked at together.
    """
    sign, components = 1 if higher_is_better else -1, [first.component, second.component]
    if first.columns is not None and second.columns is not None:
        components.append(clustered(first.columns - second.columns, None, "test samples"))
    return Difference(sign * (first.mean - second.mean), tuple(components), family)


def mean_interval(values: Values) -> tuple[float, float] | None:
    """Return the 95 % interval of a source's mean over new candidates; None where it cannot be told."""
    component = values.component
    return Difference(values.mean, (component,)).interval


def sample_interval(scores: NDArray) -> tuple[float, float] | None:
    """Return the 95 % interval, over new test samples, of the mean of scores `(S,)`; None of fewer than two."""
    return Difference(average(scores), (clustered(scores, None, "test samples"),)).interval


def best_index(select: NDArray, higher_is_better: bool) -> int:
    """Return the candidate that is best on `select`; among equals, the first."""
    return int(np.argmax(select) if higher_is_better else np.argmin(select))


def best_rows(select: NDArray, higher_is_better: bool) -> NDArray:
    """Return all candidates that are best on `select`: which of them is called the first must not matter."""
    return np.flatnonzero(select == select[best_index(select, higher_is_better)])


def best_of(select: NDArray, test: NDArray, k: int, higher_is_better: bool) -> float:
    """Return what choosing the best of `k` on `select` gives on `test`, in expectation over which `k` are there.

    Exact: `k` of the n candidates are drawn without replacement, and the j-th best of all is the best of them with
    probability C(n - j, k - 1) / C(n, k). Equals on `select` count as their average on `test`. As in every mean here,
    draws whose best is dead on `test` are left out; NaN where all are.

    Args:
        select: the metric that chooses `(n,)`.
        test: the metric that is reported `(n,)`.
        k: budget, from 1 on; a source with fewer candidates offers all of them.
        higher_is_better: direction of both.
    """
    n = len(select)
    k = min(k, n)
    test = tied_means(select, test)
    ranking = np.argsort(-select if higher_is_better else select, kind="stable")[: n - k + 1]
    j = np.arange(1, n - k + 1)
    chance = k / n * np.cumprod(np.concatenate([[1.0], (n - j - k + 1) / (n - j)]))
    alive = np.isfinite(test[ranking])
    if not alive.any():
        return float("nan")
    return float(chance[alive] @ test[ranking][alive] / chance[alive].sum())


def tied_means(select: NDArray, test: NDArray) -> NDArray:
    """Return `test` `(n,)`, each the mean over the living of those that are equal to it on `select`."""
    _, ties = np.unique(select, return_inverse=True)
    alive = np.isfinite(test)
    totals, counts = np.bincount(ties, np.where(alive, test, 0.0)), np.bincount(ties, alive)
    return np.where(counts[ties] > 0, totals[ties] / np.maximum(counts[ties], 1), test)


def ranked(select: NDArray, higher_is_better: bool, count: int) -> NDArray:
    """Return the numbers of at most `count` candidates, evenly spaced from the best on `select` to the worst."""
    ranking = np.argsort(-select if higher_is_better else select, kind="stable")
    return ranking[np.linspace(0, len(ranking) - 1, min(count, len(ranking))).round().astype(int)]


def superiority(first: Values, second: Values, higher_is_better: bool) -> Difference:
    """Return the probability that a candidate of the first source is better than one of the second.

    The Mann-Whitney statistic over the number of pairs: equals count half, and 1/2 means that neither is better. Its
    variance is that of the placements, by what candidates share (DeLong et al. 1988; Obuchowski 1997).
    """
    sign = 1 if higher_is_better else -1
    ours = placements(sign * first.metrics, sign * second.metrics)
    theirs = placements(sign * second.metrics, sign * first.metrics)
    components = [
        Values(values.name, placed, values.units, None, values.unit, values.dependent).component
        for values, placed in ((first, ours), (second, theirs))
    ]
    return Difference(float(ours.mean()), tuple(components))


def placements(own: NDArray, others: NDArray) -> NDArray:
    """Return for each of `own` `(A,)` the share of `others` `(B,)` that are smaller; equals count half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")) / (2 * len(others))


def choice(train: NDArray, test: NDArray, higher_is_better: bool) -> Choice:
    """Return how well the metric on training data ranks candidates by their metric on `test`.

    Args:
        train: the metric that chooses `(n,)`.
        test: the metric that is reported `(n,)`, one of them alive.
        higher_is_better: direction of both.
    """
    best = test.max() if higher_is_better else test.min()
    regret = abs(float(best - test[best_index(train, higher_is_better)]))
    regret = regret if math.isfinite(regret) else None
    if len(test) < 3 or (train == train[0]).all() or (test == test[0]).all():
        return Choice(None, None, regret, len(test))
    from scipy.stats import spearmanr

    found = spearmanr(train, test)
    return Choice(float(found.statistic), float(found.pvalue), regret, len(test))


def missing(found: Difference, distance: float) -> str:
    """Return how many more draws would make the interval reach no farther than `distance`: words.

    One kind of draws suffices where the others' variance leaves room for it; the kind that needs the smallest factor is
    named. Else all are.
    """
    numbers = {c: number for c in found.components if (number := enough(found, c, distance))}
    if not numbers:
        factor = math.ceil(found.variance * (found.quantile() / distance) ** 2)
        return f"about {factor} times as many of everything that was drawn would decide"
    component = min(numbers, key=lambda c: numbers[c] / c.count)
    return f"about {numbers[component]} {component.what} (now {component.count}) would decide"


def enough(found: Difference, component: Component, distance: float) -> int | None:
    """Return how many draws of one kind would suffice for that; None where a thousand times as many would not."""

    def suffices(count: int) -> bool:
        variance, freedom = component.variance * component.count / count, component.freedom + count - component.count
        more = replace(component, variance=variance, freedom=freedom, count=count)
        then = replace(found, components=tuple(more if c is component else c for c in found.components))
        return then.interval[1] - then.difference <= distance

    most = 1000 * component.count
    number = bisect_left(range(most), True, lo=component.count, key=suffices) if component.variance > 0 else most
    return number if number < most else None
