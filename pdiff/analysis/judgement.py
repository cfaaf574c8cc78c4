"""What follows from the evaluations: each source's figures, the generated against every other source, the verdict."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pdiff.analysis.novelty import averaging, copying, nearest_similarity
from pdiff.analysis.references import Place
from pdiff.analysis.source_results import SourceResults, drop_dead
from pdiff.analysis.statistics import (
    Difference,
    best_index,
    best_of,
    choice,
    differences,
    holm,
    mean_interval,
    superiority,
)
from pdiff.analysis.verdict import GENERATED, TRAINED, Findings
from pdiff.task.task import Metric
from pdiff.weights.vectors import Rows


@dataclass(frozen=True)
class Case:
    """What the sources are judged by.

    Attributes:
        metric: the task's.
        sources: what was measured, `trained` and `generated` among them.
        similarities: on `test`, of every candidate to every trained one `(M, N)`.
        to_soup: on `test`, of every candidate to the average of all trained ones `(M,)`; empty without such a source.
        averages: the source of averages of a few trained ones; None without any.
        places: where its vectors lie among the trained ones; an ensemble lies nowhere.
        fitted: the trained vectors `(N, P)` that the engine was fitted to.
        heldout: the others.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    metric: Metric
    sources: dict[str, SourceResults]
    similarities: dict[str, Tensor]
    to_soup: dict[str, NDArray]
    places: dict[str, Place]
    fitted: Rows
    heldout: Rows
    resamples: int
    seed: int
    averages: str | None = None

    @property
    def budget(self) -> int:
        """How many candidates every source may choose among: as many as the smallest source of several has."""
        return min((len(source.test) for source in self.sources.values() if len(source.test) > 1), default=1)

    def nearest(self, name: str) -> NDArray:
        """Return each candidate's largest similarity `(M,)` to a trained one; a trained one leaves itself out."""
        return nearest_similarity(self.similarities[name], name == TRAINED).numpy()


def row(case: Case, name: str) -> dict[str, Any]:
    """Return one source's figures; of the metric, all on `test`, and means those of the living candidates."""
    source, higher = case.sources[name], case.metric.higher_is_better
    select, test, alive = source.metrics["select"], source.test, source.test[source.alive]
    best = best_index(select, higher)
    figures = {
        "best": test[best],
        "best_of": best_of(select, test, case.budget, higher),
        "mean": alive.mean() if len(alive) else None,
        "std": alive.std(ddof=1) if len(alive) > 1 else 0.0,
        "median": np.median(test),
        "worst": test.min() if higher else test.max(),
        "similarity": case.nearest(name).mean(),
        **placed(case.places.get(name)),
    }
    counts = {"n": len(test), "dead": int((~source.alive).sum()), "best_index": best}
    intervals = {"best_ci": best_interval(case, source, best), "mean_ci": interval(case, alive)}
    details = {"details": aggregate(source.details, best)}
    return counts | intervals | {key: finite(value) for key, value in figures.items()} | details


def interval(case: Case, values: NDArray) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean; None of fewer than two values."""
    return mean_interval(values, case.resamples, case.seed) if len(values) > 1 else None


def best_interval(case: Case, source: SourceResults, best: int) -> tuple[float, float] | None:
    """Return the 95 % interval, over test samples, of the candidate that `select` chose."""
    return None if source.scores is None else interval(case, source.scores[best].numpy())


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


def compared(case: Case) -> dict[str, Difference]:
    """Return the living generated against the living of every other source."""
    living = {name: drop_dead(source) for name, source in case.sources.items() if source.alive.any()}
    if GENERATED not in living:
        return {}
    others = {name: values for name, values in living.items() if name != GENERATED}
    higher = case.metric.higher_is_better
    return differences(living[GENERATED], others, higher, case.resamples, case.seed)


def comparisons(case: Case, findings: Findings) -> dict[str, dict[str, Any]]:
    """Return, of the generated against every other source, what other programs read."""
    generated, higher = case.sources[GENERATED].test, case.metric.higher_is_better
    return {
        name: {
            "difference": found.difference,
            "ci": [finite(end) for end in found.interval],
            "superiority": superiority(generated, case.sources[name].test, higher),
            "p": found.p,
            "p_adjusted": findings.p_adjusted[name],
        }
        for name, found in findings.differences.items()
    }


def find(case: Case) -> Findings:
    """Return what the verdict follows from."""
    found = compared(case)
    adjusted = holm([difference.p for difference in found.values()])
    generated = case.sources[GENERATED]
    averaged = None
    if case.to_soup and case.averages and case.sources[case.averages].alive.any():
        averaged = averaging(*(case.to_soup[name] for name in (GENERATED, TRAINED, case.averages)))
    return Findings(
        metric=case.metric.name,
        dead=float((~generated.alive).mean()),
        means={name: float(s.test[s.alive].mean()) for name, s in case.sources.items() if s.alive.any()},
        differences=found,
        p_adjusted={name: float(p) for name, p in zip(found, adjusted, strict=True)},
        copying=copying(generated.vectors, case.fitted, case.heldout if len(case.heldout) else None),
        averaging=averaged,
        averages=case.averages,
    )


def chosen_by_training_data(case: Case) -> dict[str, Any] | None:
    """Return how well the metric on training data chooses among the generated; None where it was not measured."""
    source = case.sources[GENERATED]
    if "train" not in source.metrics or not source.alive.any():
        return None
    return asdict(choice(source.metrics["train"], source.test, case.metric.higher_is_better))
