"""What follows from the evaluations: each source's figures, the generated against every other source, the verdict."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.analysis.choosing import Reached, choosing
from pdiff.analysis.copying import Copying, examine
from pdiff.analysis.dependence import FEWEST_UNITS, independent_units, time_of_series
from pdiff.analysis.novelty import Averaging, Novelty, averaging, largest, novelty
from pdiff.analysis.references import Place
from pdiff.analysis.source_results import SourceResults
from pdiff.analysis.statistics import (
    SIGNIFICANCE,
    Values,
    average,
    best_index,
    best_of,
    best_rows,
    contrast,
    mean_interval,
    sample_interval,
    superiority,
)
from pdiff.analysis.verdict import FEW_ERRORS, GENERATED, TRAINED, Findings
from pdiff.runtime.errors import PdiffError
from pdiff.task.task import Metric
from pdiff.weights.origin import Origin, origin_of, sentence
from pdiff.weights.provenance import branch_labels, kin_labels, lineage_labels
from pdiff.weights.vectors import CPU, Rows, Vectors, row_slices

if TYPE_CHECKING:
    from pdiff.canonical.form import Form

NOISES = ("relative_noise", "absolute_noise")
CORE = {
    "the average of all (soup)": ("soup",),
    "averages of a few (soup_of)": ("soup_of",),
    "a Gaussian (gaussian)": ("gaussian",),
    "a Gaussian through the codec (latent_gaussian)": ("latent_gaussian",),
    "noise on checkpoints (relative_noise)": NOISES,
}
SMALL = 0.1  # share of the test samples
TINY = 1e-300
FEW = 10  # candidates of a core baseline, but for the one soup, and of what is told from averages


@dataclass(frozen=True)
class Case:
    """What the sources are judged by.

    Attributes:
        metric: the task's.
        sources: what was measured, `trained` and `generated` among them.
        similarities: on `test`, of every candidate to every trained one `(M, N)`.
        to_soup: on `test`, of every candidate to the average of all fitted ones `(M,)`; empty without such a source.
        places: where its vectors lie among the trained ones; an ensemble lies nowhere.
        population: all checkpoints `(C, P)`.
        provenance: of each of them.
        fitted: the rows of those that the engine was fitted to.
        heldout: the rows of those that it has not seen.
        decode: from rows of the population to what the codec makes of them.
        margin: how far below the trained is as good, in standard deviations of the trained.
        seed: of what is drawn.
        form: the canonical form of the population; None without one.
        device: that computes with vectors.
        averages: the source of averages of a few trained ones; None without any.
        small: sources of averages that are of too few to count as such.
    """

    metric: Metric
    sources: Mapping[str, SourceResults]
    similarities: Mapping[str, Tensor]
    to_soup: Mapping[str, NDArray]
    places: Mapping[str, Place]
    population: Tensor
    provenance: Sequence[Mapping[str, Any]]
    fitted: Sequence[int]
    heldout: Sequence[int]
    decode: Callable[[Tensor | Rows], Vectors]
    margin: float
    seed: int
    form: "Form | None" = None
    device: torch.device = CPU
    averages: str | None = None
    small: Sequence[str] = ()

    @property
    def budget(self) -> int:
        """How many candidates every source may choose among: as many as the smallest source of several vectors has."""
        several = [len(source.test) for source in self.sources.values() if source.has_place and len(source.test) > 1]
        return min(several, default=1)

    @cached_property
    def branches(self) -> NDArray:
        """The branch of each checkpoint `(C,)`."""
        return branch_labels(self.provenance)

    @cached_property
    def kin(self) -> NDArray:
        """What each checkpoint is akin to `(C,)`: its lineage, or its branch where all are of one lineage."""
        return kin_labels(self.provenance)

    @cached_property
    def origin(self) -> Origin:
        """Words for where the checkpoints come from."""
        return origin_of(self.provenance)

    @cached_property
    def time(self) -> float:
        """How many successive checkpoints are worth a single independent one, by their metric on `test`."""
        metrics, rows = self.counted(self.sources[TRAINED]), self.kept(self.sources[TRAINED])
        if not len(metrics):
            return 1.0
        deviations, branches = metrics - metrics.mean(), self.branches[rows]
        series = [deviations[branches == label] for label in np.unique(branches)]
        time = time_of_series([np.outer(own, own) for own in series], cautious=True)
        return 1 + (time - 1) * len(self.branches) / len(rows)

    @cached_property
    def units(self) -> NDArray | None:
        """Which checkpoints may count as one independent draw `(C,)`; None where there are too few such."""
        rows = self.kept(self.sources[TRAINED])
        found = independent_units(self.time, self.branches, lineage_labels(self.provenance)) if len(rows) else None
        return None if found is None or len(np.unique(found[rows])) < FEWEST_UNITS else found

    @cached_property
    def unit(self) -> str:
        """A word for what these are."""
        kinds = {"lineages": lineage_labels(self.provenance), "branches": self.branches}
        if self.units is None:
            return "branches"
        same = (word for word, labels in kinds.items() if len(np.unique(labels)) == len(np.unique(self.units)))
        single = "checkpoints" if len(np.unique(self.units)) == len(self.units) else "blocks of steps"
        return next(same, single)

    def counts(self, source: SourceResults) -> NDArray:
        """Return which candidates count `(M,)`: what is not finite counts as chance, where that is known."""
        return source.finite | (self.metric.chance is not None)

    def kept(self, source: SourceResults) -> NDArray:
        """Return the parents `(M,)` of a source's candidates that count."""
        return source.parents[self.counts(source)]

    def counted(self, source: SourceResults) -> NDArray:
        """Return the metrics of a source on `test`: what is not finite counts as chance, or not at all without one."""
        if self.metric.chance is None:
            return source.test[source.finite]
        return np.where(source.finite, source.test, self.metric.chance)

    def values(self, name: str) -> Values:
        """Return a source's metric on `test`, with what its candidates share."""
        source = self.sources[name]
        return self.shared(source, self.counts(source), self.counted(source), self.columns(source))

    def shared(self, source: SourceResults, own: NDArray, values: NDArray, columns: NDArray | None = None) -> Values:
        """Return values `(m,)` of some of a source's candidates, of those in `own` `(M,)`, with what these share."""
        if len(values) == 1:
            return Values(source.name, values, None, columns, dependent=source.name in (TRAINED, GENERATED))
        if source.fits is not None:
            return Values(source.name, values, source.fits[own], columns, "fits")
        if source.parents is None:
            return Values(source.name, values, None, columns)
        if self.units is None:
            return Values(source.name, values, None, columns, self.unit, dependent=True)
        return Values(source.name, values, self.units[source.parents[own]], columns, self.unit)

    def columns(self, source: SourceResults) -> NDArray | None:
        """Return the mean score of each test unit over the candidates that count `(S,)`; None without scores."""
        if source.scores is None:
            return None
        total = source.scores.numpy()[source.finite].sum(0, dtype=np.float64)
        if self.metric.chance is None:
            return total / source.finite.sum()
        return (total + (~source.finite).sum() * self.metric.chance) / len(source.finite)

    @cached_property
    def nearest(self) -> dict[str, NDArray]:
        """Each candidate's largest similarity `(M,)` to a fitted checkpoint; a trained one's to one that is not akin.

        With a single branch, those within the integrated time are left out instead. A candidate that none is left for
        has a NaN.
        """
        rows, own = self.sources[TRAINED].parents, self.similarities[TRAINED].numpy()
        columns, several = np.isin(rows, np.asarray(self.fitted)), self.kin.any()
        found = {name: largest(table.numpy(), columns) for name, table in self.similarities.items() if name != TRAINED}
        labels, reach = (self.kin[rows], 0) if several else (rows, self.time)
        parts = [
            largest(own[place], columns, np.abs(labels[place, None] - labels) <= reach)
            for place in row_slices(own.shape)
        ]
        return found | {TRAINED: np.concatenate(parts)}


def row(case: Case, name: str) -> dict[str, Any]:
    """Return one source's figures; of the metric, all on `test`."""
    source, higher = case.sources[name], case.metric.higher_is_better
    select, test = source.metrics["select"], source.test
    best, counted = best_index(select, higher), case.counted(source)
    values = case.values(name) if len(counted) else None
    similarity = case.nearest[name]
    figures = {
        "best": test[best_rows(select, higher)].mean(),
        "best_of": best_of(select, test, case.budget, higher),
        "select": np.mean(select[np.isfinite(select)]) if np.isfinite(select).any() else None,
        "mean": values.mean if values else None,
        "std": counted.std(ddof=1) if len(counted) > 1 else 0.0,
        "median": np.median(test),
        "worst": test.min() if higher else test.max(),
        "similarity": np.nanmean(similarity) if np.isfinite(similarity).any() else None,
        **placed(case.places.get(name)),
    }
    figures = {key: finite(value) for key, value in figures.items()}
    counts = {"n": len(test), "effective_n": values.effective if values else 0.0, "dead": int(source.dead.sum())}
    counts |= {"best_index": best}
    scores = None if source.scores is None else source.scores.double().numpy()[best_rows(select, higher)].mean(0)
    intervals = {
        "best_ci": None if scores is None or figures["best"] is None else sample_interval(scores),
        "mean_ci": mean_interval(values) if len(counted) > 1 else None,
    }
    details = {"details": aggregate(source.details, best)}
    return counts | intervals | figures | details


def placed(place: Place | None) -> dict[str, float | None]:
    """Return where a source's vectors lie among the trained ones; an ensemble lies nowhere."""
    if place is None:
        return {"distance": None, "spread": None, "marginal": None}
    return {"distance": place.distances.mean(), "spread": place.spread, "marginal": place.marginal}


def aggregate(details: list[dict[str, float]], best: int) -> dict[str, dict[str, float]]:
    """Return the mean of each further figure over the candidates that have it, and that of the best candidate."""
    keys = dict.fromkeys(key for figures in details for key in figures)
    means = {key: float(np.mean([figures[key] for figures in details if key in figures])) for key in keys}
    return {key: {"best": details[best].get(key), "mean": mean} for key, mean in means.items()}


def finite(value: float | None) -> float | None:
    """Return a plain number that JSON can hold; None for one that is not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def find(case: Case) -> Findings:
    """Return what the verdict follows from."""
    values = {name: case.values(name) for name, source in case.sources.items() if len(case.counted(source))}
    generated, higher = case.sources[GENERATED], case.metric.higher_is_better
    own = [name for name, source in case.sources.items() if source.of_generated]
    others = [name for name in values if name not in (GENERATED, *own)] if GENERATED in values else []
    family = max(len(others) - 1, 1)  # the comparison with the trained stands by itself
    trained = case.counted(case.sources[TRAINED])
    if GENERATED in values and not len(trained):
        line = f"trained: got no checkpoint with a finite {case.metric.name} on test, expected one to compare with."
        raise PdiffError(f"{line} Mend the evaluation (a metric beyond 1e60 counts as infinite), or take others.")
    return Findings(
        metric=case.metric.name,
        dead=float(generated.dead.mean()),
        means={name: value.mean for name, value in values.items()},
        differences={
            name: contrast(values[GENERATED], values[name], higher, 1 if name == TRAINED else family) for name in others
        },
        margin=case.margin * float(trained.std(ddof=1)) if len(trained) > 1 else 0.0,
        room=None if case.metric.best is None or not len(trained) else abs(case.metric.best - float(trained.mean())),
        lacking=lacking(case),
        copying=copying(case),
        averaging=averaged(case),
        averages=case.averages,
        novelty=new(case, values),
        origin=case.origin,
        errors=most_errors(case),
    )


def errors_of(case: Case, name: str) -> float | None:
    """Return on how many test samples a network of a source errs, the median; None where nobody knows.

    A sample counts by what it is short of the best value: n samples that are equally short, and no others, count as n.
    Where all are a little short, a difference of two networks is told by all of them.
    """
    source = case.sources[name]
    if case.metric.best is None or source.scores is None or not source.finite.any():
        return None
    short = (source.scores[torch.from_numpy(source.finite)].double() - case.metric.best).abs()
    squares = short.square().sum(1)
    return torch.where(squares > 0, short.sum(1).square() / squares.clamp(min=TINY), 0.0).median().item()


def most_errors(case: Case) -> float | None:
    """Return the larger number of errors of the trained and the generated, where it is a small share of the samples."""
    found = [errors_of(case, name) for name in (TRAINED, GENERATED)]
    if None in found:
        return None
    return max(found) if max(found) < SMALL * case.sources[TRAINED].scores.shape[1] else None


def lacking(case: Case) -> list[str]:
    """Return the core baselines that were left out, or that are too small to count."""
    enough = [
        source.type
        for source in case.sources.values()
        if (len(source.test) >= FEW or source.type == "soup") and source.name not in case.small
    ]
    return [words for words, types in CORE.items() if not set(types) & set(enough)]


def copying(case: Case) -> Copying:
    """Return whether the generated are copies of the fitted."""
    generated = case.sources[GENERATED]
    fitted, heldout = (Rows(case.population, list(rows)) for rows in (case.fitted, case.heldout))
    return examine(
        generated.vectors,
        fitted,
        heldout,
        lambda: (case.decode(fitted), case.decode(heldout)),
        (case.kin[list(case.fitted)], case.kin[list(case.heldout)]),
        generated.fits,
        case.seed,
        case.origin,
        case.form,
        case.device,
    )


def averaged(case: Case) -> Averaging | None:
    """Return whether the generated behave like averages; None without a soup, or with fewer than `FEW` of a source."""
    names = (GENERATED, TRAINED, case.averages)
    if not case.to_soup or not case.averages:
        return None
    values = [living(case, name, case.to_soup[name]) for name in names]
    return averaging(*values) if all(len(each.metrics) >= FEW for each in values) else None


def living(case: Case, name: str, numbers: NDArray) -> Values:
    """Return numbers of the candidates that live and have one `(M,)`, with what these share."""
    source = case.sources[name]
    own = ~source.dead & np.isfinite(numbers)
    return case.shared(source, own, numbers[own])


def new(case: Case, values: Mapping[str, Values]) -> Novelty:
    """Return whether the generated behave unlike the trained, and unlike noise that is as good."""
    if GENERATED not in values or case.sources[GENERATED].dead.all():
        return Novelty(None, None, None, None, False, "not shown to be new: no generated network lives")
    errors = most_errors(case)
    if errors is not None and errors <= FEW_ERRORS:
        line = f"not shown to be new: {errors:.0f} errors on the test samples are too few to tell behaviour apart"
        return Novelty(None, None, None, None, False, line)
    generated = living(case, GENERATED, case.nearest[GENERATED])
    if not len(generated.metrics):
        line = "not shown to be new: none of the evaluated trained is one that was fitted"
        return Novelty(None, None, None, None, False, line)
    trained = living(case, TRAINED, case.nearest[TRAINED])
    spread = trained if case.kin.any() and len(trained.metrics) else None
    higher = case.metric.higher_is_better
    equal = {}
    for name, source in case.sources.items():
        if source.type not in NOISES or name not in values or source.dead.all():
            continue
        found = contrast(values[GENERATED], values[name], higher)
        if found.known and not (found.difference > 0 and found.p < SIGNIFICANCE):
            equal[name] = living(case, name, case.nearest[name])
    return novelty(generated, spread, equal, case.origin)


def comparisons(case: Case, findings: Findings) -> dict[str, dict[str, Any]]:
    """Return, of the generated against every other source, what other programs read."""
    words = {1: "better", 0: "no clear difference", -1: "worse"}
    higher, found = case.metric.higher_is_better, {}
    for name, difference in findings.differences.items():
        wins = superiority(case.values(GENERATED), case.values(name), higher)
        relation, alone = findings.relation(name), findings.relation(name, together=False)
        reason = f" ({words[alone]} if it were the only one)" if relation != alone else ""
        found[name] = {
            "difference": difference.difference,
            "ci": ends(difference.interval),
            "ci_simultaneous": ends(difference.simultaneous),
            "superiority": wins.difference,
            "p": difference.p,
            "p_adjusted": difference.p_adjusted,
            "relation": words[relation] + reason,
        }
    return found


def ends(interval: tuple[float, float] | None) -> list[float] | None:
    """Return an interval as JSON holds it."""
    return None if interval is None else list(interval)


def chosen_by_training_data(case: Case) -> dict[str, Any] | None:
    """Return how well the metric on training data chooses among the generated, beside that on `select`.

    None where it was not measured, or where none of them has a finite metric.
    """
    source = case.sources[GENERATED]
    if "train" not in source.metrics or not source.finite.any():
        return None
    scores = None if source.scores is None else source.scores.numpy()
    everyone = Reached(average(case.counted(source)), case.columns(source))
    train, select = (source.metrics[split] for split in ("train", "select"))
    return choosing(train, select, source.test, scores, everyone, case.metric.higher_is_better)


def notes(case: Case, findings: Findings) -> list[str]:
    """Return what could not be tested, or weakens what was: a line each."""
    trained = case.sources[TRAINED]
    found = []
    if not len(case.counted(trained)):
        found.append("no trained checkpoint has a finite metric: nothing is compared with them")
    elif case.units is None:
        rows, whole = case.kept(trained), len(trained.test) == len(case.provenance)
        found.append(
            f"the trained are too few, or too dependent, for a test: {len(rows)} checkpoints in "
            f"{case.origin.count(len(np.unique(case.branches[rows])))}, one independent in {case.time:.0f}. "
            + (sentence(case.origin.more if whole else "raise evaluate.sources.trained.num").removesuffix("."))
        )
    if len(case.counted(trained)) > 1 and np.ptp(case.counted(trained)) == 0:
        found.append(f"all trained have the same {case.metric.name}: it tells nobody apart, and the margin is 0")
    drifts = drift(case)
    if drifts:
        found.append(drifts)
    if not findings.copying.power:
        found.append(findings.copying.line)
    if findings.averaging is None or case.averages in case.small:
        found.append(
            f"whether the generated are averages is not tested: that takes a living soup, and at least {FEW} living "
            "averages of eight or more (soup_of). Add what lacks to evaluate.sources"
        )
    if len(case.counted(case.sources[GENERATED])) == 1:
        found.append("a single one was generated: nothing tells how much others would differ. Raise generate.num")
    elif case.sources[GENERATED].fits is None:
        found.append("the generated are of one fit: no interval speaks of another. Raise fit.repeats")
    if case.sources[GENERATED].scores is None:
        found.append("the metric has no scores: intervals take the test set as it is")
    return found


def drift(case: Case) -> str | None:
    """Return that the later half of the branches is better or worse than the earlier one, if that is sure."""
    source = case.sources[TRAINED]
    metrics, labels = case.counted(source), case.branches[case.kept(source)]
    halves = []
    for label in np.unique(labels):
        own = metrics[labels == label]
        if len(own) >= 2:
            halves.append(own[len(own) // 2 :].mean() - own[: len(own) // 2].mean())
    if len(halves) < 2:
        return None
    values = Values("halves", np.array(halves))
    found = contrast(values, Values("none", np.zeros(1)), case.metric.higher_is_better)
    if found.p is None or found.p >= SIGNIFICANCE:
        return None
    word = "better" if found.difference > 0 else "worse"
    return (
        f"the trained still drift: the later half of a {case.origin.branch} is {word} by {abs(found.difference):.4f} "
        f"(p {found.p:.2g}), so that their mean is one over a transient. "
        f"{sentence(case.origin.late).removesuffix('.')}"
    )
