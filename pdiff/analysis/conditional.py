"""Sources side by side over conditions: all figures over unseen ones, what is chosen over select ones.

The unit of every interval and test is the group of conditions: candidates for conditions that belong together are one
piece of news. Two sources are compared condition by condition (paired). Of several fits of the engine, each drew for
all conditions: what their draw adds to a variance stands beside what that of the conditions adds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdiff.analysis.source_results import SourceResults
from pdiff.analysis.standards import GENERATED, ORACLE, REFERENCES
from pdiff.analysis.statistics import LEVEL, SIGNIFICANCE, Component, Difference, Values, clustered, contrast
from pdiff.task.task import Metric

BINS = 5  # of distances, where there are more different ones
MOST_DEAD = 0.1
DEAD, IGNORES, AHEAD, LEVEL_WITH, BEHIND, UNDECIDED = KINDS = (
    "dead", "ignores the condition", "ahead", "level", "behind", "not decided",
)  # fmt: skip


@dataclass(frozen=True)
class ConditionalCase:
    """What the sources are judged by.

    Attributes:
        metric: the task's.
        sources: what was measured, `oracle` and `generated` among them.
        unseen: which of the wanted conditions are reported `(W,)`; the others choose.
        groups: the number of each wanted condition's group `(W,)`.
        distance: how far each is from the nearest seen one `(W,)`.
        margin: how far apart two sources may be and still be level, in standard deviations of the oracles.
        left_out: sources that could have been measured, and were not: whoever is ahead, is not ahead of these.
    """

    metric: Metric
    sources: Mapping[str, SourceResults]
    unseen: NDArray
    groups: NDArray
    distance: NDArray
    margin: float
    left_out: Sequence[str] = ()

    @property
    def higher(self) -> bool:
        """Whether higher is better."""
        return self.metric.higher_is_better

    def counted(self, source: SourceResults, split: str) -> NDArray:
        """Return a source's metric `(M,)`: what is not finite counts as chance, where that is known, else not."""
        other = np.nan if self.metric.chance is None else self.metric.chance
        return np.where(np.isfinite(source.metrics[split]), source.metrics[split], other)

    def by_condition(self, name: str, split: str = "test") -> NDArray:
        """Return the mean metric of a source's candidates for each wanted condition `(W,)`; NaN where none counts."""
        source = self.sources[name]
        return means_of(self.counted(source, split), source.wanted, len(self.unseen))

    def columns(self, name: str) -> NDArray | None:
        """Return each test unit's mean score over the unseen conditions `(S,)`; None without scores, or living ones."""
        source = self.sources[name]
        if source.scores is None:
            return None
        scores = source.scores.double().numpy().copy()
        if self.metric.chance is not None:
            scores[~source.finite] = self.metric.chance
        own = self.unseen[source.wanted] & np.isfinite(self.counted(source, "test"))
        if not own.any():
            return None
        weights = own / np.maximum(np.bincount(source.wanted, own, len(self.unseen)), 1)[source.wanted]
        return weights @ np.where(own[:, None], scores, 0.0) / weights.sum()

    def values(self, name: str) -> Values:
        """Return a source's metric over unseen conditions, with the groups that these form."""
        return self.grouped(name, self.by_condition(name), self.columns(name))

    def grouped(self, name: str, metrics: NDArray, columns: NDArray | None) -> Values:
        """Return values of wanted conditions `(W,)` as those of the unseen ones."""
        own = self.unseen & np.isfinite(metrics)
        return Values(name, metrics[own], self.groups[own], columns, "conditions", dependent=own.sum() < 2)

    def fits(self, name: str) -> tuple[Component, ...]:
        """Return what the draw of the fits adds to the variance of a source's mean; nothing where there are not two."""
        source = self.sources[name]
        if source.fits is None:
            return ()
        values, means = self.counted(source, "test"), []
        for fit in np.unique(source.fits):
            own = np.where(source.fits == fit, values, np.nan)
            found = means_of(own, source.wanted, len(self.unseen))[self.unseen]
            means += [found[np.isfinite(found)].mean()] if np.isfinite(found).any() else []
        return (clustered(np.array(means), None, f"fits of {name}"),) if means else ()

    def interval(self, name: str) -> tuple[float, float] | None:
        """Return the 95 % interval of a source's mean over new conditions, and fits; None where it cannot be told."""
        values = self.values(name)
        return Difference(values.mean, (values.component, *self.fits(name))).interval

    def against(self, first: str, second: str, family: int = 1) -> Difference:
        """Return one source against another, paired by condition: positive where the first is better.

        Where no unseen condition has a living network of both, there is no difference: NaN.
        """
        columns = [self.columns(name) for name in (first, second)]
        both = None if columns[0] is None or columns[1] is None else columns[0] - columns[1]
        paired = self.grouped("the difference", self.by_condition(first) - self.by_condition(second), both)
        if not len(paired.metrics):
            return Difference(math.nan, (Component("conditions of the difference", math.nan, 0, 0),), family)
        nothing = Values("none", np.zeros(1), None, None if both is None else np.zeros(len(both)))
        found = contrast(paired, nothing, self.higher, family)
        return replace(found, components=(*found.components, *self.fits(first), *self.fits(second)))

    @cached_property
    def choosable(self) -> list[str]:
        """The sources that give networks for new conditions, and whose networks live."""
        return [
            name
            for name, source in self.sources.items()
            if source.root not in REFERENCES and math.isfinite(self.on_select(name))
        ]

    def on_select(self, name: str) -> float:
        """Return the mean metric over select conditions, on the data that choose; NaN where none counts."""
        found = self.by_condition(name, "select")[~self.unseen]
        return float(np.mean(found[np.isfinite(found)])) if np.isfinite(found).any() else math.nan

    def best(self, names: Sequence[str]) -> str | None:
        """Return the source that is best over select conditions; among equals, the first.

        One that has nothing that counts for a tenth of them, or more, stands behind those that have.
        """
        sign = 1 if self.higher else -1

        def place(name: str) -> tuple[bool, float]:
            lacks = ~np.isfinite(self.by_condition(name, "select")[~self.unseen])
            return lacks.mean() < MOST_DEAD, sign * self.on_select(name)

        return max(names, key=place, default=None)

    def level(self, found: Difference) -> bool:
        """Say whether a difference is surely within the margin."""
        oracles = self.values(ORACLE).metrics
        margin = self.margin * oracles.std(ddof=1) if len(oracles) > 1 else 0.0
        return found.interval is not None and bool(max(map(abs, found.interval)) <= margin)

    @cached_property
    def rival(self) -> str | None:
        """The best source but for the engine's own, chosen on select conditions; None without one."""
        return self.best([name for name in self.choosable if not self.sources[name].root.startswith("generated")])


def means_of(values: NDArray, wanted: NDArray, count: int) -> NDArray:
    """Return the mean of those values `(M,)` that are finite for each wanted condition `(count,)`; NaN without any."""
    own = np.isfinite(values)
    numbers, sums = np.bincount(wanted, own, count), np.bincount(wanted, np.where(own, values, 0.0), count)
    return np.where(numbers > 0, sums, np.nan) / np.maximum(numbers, 1)


def conditional_row(case: ConditionalCase, name: str) -> dict[str, Any]:
    """Return one source's figures, all over unseen conditions on `test`, but for `select`."""
    source, values, own = case.sources[name], case.values(name), case.by_condition(name)[case.unseen]
    own = own[np.isfinite(own)]
    select, to_oracle = case.on_select(name), None if name == ORACLE else case.against(name, ORACLE, family(case))
    return {
        "n": int(case.unseen[source.wanted].sum()),
        "units": len(np.unique(case.groups[case.unseen])),
        "mean": values.mean if len(own) else None,
        "ci": case.interval(name) if len(own) > 1 else None,
        "std": float(own.std(ddof=1)) if len(own) > 1 else None,
        "worst": float(own.min() if case.higher else own.max()) if len(own) else None,
        "select": select if math.isfinite(select) else None,
        "dead": int(source.dead[case.unseen[source.wanted]].sum()),
        "to_oracle": None if to_oracle is None or math.isnan(to_oracle.difference) else figures(to_oracle),
        "near": near(case, name),
        "obeys": obeys(case, name),
    }


def family(case: ConditionalCase) -> int:
    """Return how many sources are held against one."""
    return max(len(case.sources) - 1, 1)


def figures(found: Difference) -> dict[str, Any]:
    """Return a difference as JSON holds it."""
    return {
        "difference": None if math.isnan(found.difference) else found.difference,
        "ci": None if found.interval is None else list(found.interval),
        "ci_simultaneous": None if found.simultaneous is None else list(found.simultaneous),
        "p": found.p,
        "p_adjusted": found.p_adjusted,
    }


def near(case: ConditionalCase, name: str) -> list[dict[str, float]]:
    """Return the mean metric by the distance to the nearest seen condition; of many distances, in bins.

    These have about as many conditions each; what is equally far is in one of them.
    """
    distance, metrics = case.distance[case.unseen].round(6), case.by_condition(name)[case.unseen]
    distinct = np.unique(distance)
    labels = np.searchsorted(distinct, distance)
    if len(distinct) > BINS:
        labels = np.searchsorted(np.sort(distance), distance) * BINS // len(distance)
    found = []
    for label in np.unique(labels):
        inside, own = labels == label, (labels == label) & np.isfinite(metrics)
        if own.any():
            found.append({"distance": distance[inside].mean(), "mean": metrics[own].mean(), "n": int(own.sum())})
    return found


def obeys(case: ConditionalCase, name: str) -> dict[str, dict[str, float | None]]:
    """Return, for each number of the condition that was measured, how it follows the requested one.

    1 is the slope of a network that does what it is asked for, 0 that of one that does not listen.
    """
    from scipy.stats import linregress

    found = {}
    for number, (requested, measured) in asked_and_found(case, name).items():
        if len(requested) > 1 and np.ptp(requested) > 0:
            with np.errstate(all="ignore"):  # a network that is far off may measure anything
                line = linregress(requested, measured)
            correlation = 0.0 if (measured == measured[0]).all() else line.rvalue
            found[number] = {"slope": plain(line.slope), "correlation": plain(correlation)}
    return found


def plain(value: float) -> float | None:
    """Return a number as JSON holds it; None for what is not finite."""
    return float(value) if math.isfinite(value) else None


def asked_and_found(case: ConditionalCase, name: str) -> dict[str, tuple[NDArray, NDArray]]:
    """Return requested and measured numbers of a source's candidates for unseen conditions, by the number's name."""
    source = case.sources[name]
    rows = [row for row in np.flatnonzero(case.unseen[source.wanted]) if source.measured and source.measured[row]]
    names = dict.fromkeys(key for row in rows for key in source.measured[row] if key in source.conditions.names)
    asked = source.conditions.values.double().numpy()
    found = {}
    for number in names:
        own = [row for row in rows if number in source.measured[row]]
        column = source.conditions.names.index(number)
        found[number] = (asked[own, column], np.array([source.measured[row][number] for row in own]))
    return found


def conditional_comparisons(case: ConditionalCase) -> dict[str, dict[str, Any]]:
    """Return the generated against every other source, paired by condition."""
    words = {1: "better", 0: "no clear difference", -1: "worse"}
    found = {}
    for name in case.sources:
        if name != GENERATED:
            difference = case.against(GENERATED, name, family(case))
            relation, alone = sure(difference, difference.p_adjusted), sure(difference, difference.p)
            reason = f" ({words[alone]} if it were the only one)" if relation != alone else ""
            said = "not measured" if math.isnan(difference.difference) else words[relation] + reason
            found[name] = {**figures(difference), "relation": said}
    return found


def sure(found: Difference, p: float | None) -> int:
    """Return 1 for surely better, -1 for surely worse, 0 for neither."""
    if p is None or p >= SIGNIFICANCE:
        return 0
    return 1 if found.difference > 0 else -1


def conditional_verdict(case: ConditionalCase) -> tuple[str, str]:
    """Return the verdict's kind, one of `KINDS`, and a sentence.

    Two sources are level whose difference is surely within the margin; one that is neither sure nor surely small
    decides nothing.
    """
    source, rival = case.sources[GENERATED], case.rival
    share = float(source.dead[case.unseen[source.wanted]].mean())
    if share >= MOST_DEAD:
        return DEAD, f"{DEAD}: {share:.0%} of the generated networks are dead"
    ignoring = verdict_on_listening(case)
    if ignoring:
        return ignoring
    if rival is None:
        return UNDECIDED, f"{UNDECIDED}: no other source gives networks for new conditions"
    found = case.against(GENERATED, rival)
    line = f"{words(case, rival, found)}; {standing(case)}"
    others = [n for n in case.choosable if not case.sources[n].root.startswith("generated")]
    differences = [case.against(GENERATED, name) for name in others]
    if all(sure(difference, difference.p) > 0 for difference in differences):
        return ahead(case, others, line)
    side = sure(found, found.p)
    if side == 0 and not case.level(found):
        return UNDECIDED, f"{UNDECIDED} how they stand to {rival}: {line}"
    return (BEHIND, f"{BEHIND} {rival}: {line}") if side < 0 else (LEVEL_WITH, f"{LEVEL_WITH} with {rival}: {line}")


def ahead(case: ConditionalCase, others: Sequence[str], line: str) -> tuple[str, str]:
    """Return the verdict where the generated are surely better than all `others`, and `line` says by how much."""
    if case.left_out:
        return UNDECIDED, f"{UNDECIDED}: ahead of {', '.join(others)}, and nobody knows of what was left out: {line}"
    return AHEAD, f"{AHEAD} of every other source: {line}"


def verdict_on_listening(case: ConditionalCase) -> tuple[str, str] | None:
    """Return the verdict where the generated do not listen to the condition, or nobody knows; None where they do.

    They ignore it where they are not surely better than those for permuted conditions, and surely gain less than half
    of what the oracle gains on these.
    """
    permuted = next((name for name, found in case.sources.items() if found.type == "generated_permuted"), None)
    if permuted is None:
        return None
    found, most = case.against(GENERATED, permuted), case.against(ORACLE, permuted).difference
    if sure(found, found.p) > 0:
        return None
    if found.known and found.interval[1] < most / 2:
        return IGNORES, f"{IGNORES}: {words(case, permuted, found)}"
    return UNDECIDED, f"{UNDECIDED} whether the condition matters: {words(case, permuted, found)}"


def words(case: ConditionalCase, other: str, found: Difference) -> str:
    """Return the words that set the generated against another source."""
    if math.isnan(found.difference):
        return f"no unseen condition has living networks of both the generated and {other}"
    means = [case.values(name).mean for name in (GENERATED, other)]
    line = f"for unseen conditions the generated have {case.metric.name} {means[0]:.4f}, {other} {means[1]:.4f}"
    if found.interval is None:
        return f"{line} (gain {found.difference:+.4f}, without an interval)"
    low, high = found.interval
    return f"{line} (gain {found.difference:+.4f}, {LEVEL:.0%} interval {low:+.4f} to {high:+.4f})"


def standing(case: ConditionalCase) -> str:
    """Return how the best source stands to the oracle."""
    best = case.best(case.choosable)
    found = case.against(best, ORACLE)
    if math.isnan(found.difference):
        return f"best on select conditions is {best}, with nothing to hold against the oracle"
    side = "worse" if found.difference < 0 else "better"
    oracle = case.values(ORACLE).mean
    return f"best on select conditions is {best}, {abs(found.difference):.4f} {side} than the oracle ({oracle:.4f})"
