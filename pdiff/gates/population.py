"""The gate of the collection: is the population one distribution that can be learnt?

Whole, without repeated checkpoints, of more than one direction, and in one basin: on the line between two checkpoints
the task's metric does not break down (Frankle et al., 2020, "Linear mode connectivity"). Where the fit brings the
networks into a canonical form, the last question is asked behind that (`pdiff.gates.canonical`).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pdiff.run.check import Check, goodness, in_words, not_measured, share_lost, whole
from pdiff.run.measuring import evaluate_split
from pdiff.task.task import Evaluation, Metric
from pdiff.weights.gram import MOST, centred_gram, squared_distances
from pdiff.weights.layout import Layout
from pdiff.weights.mapped import Mapped
from pdiff.weights.origin import COLLECTED, Origin, origin_of, sentence
from pdiff.weights.population import Population
from pdiff.weights.provenance import RUN_KEYS, few_rows, lineage_labels, runs_of
from pdiff.weights.vectors import Rows, parts

if TYPE_CHECKING:
    from pdiff.run.run import Run

MOST_COPIES = 0.05  # a loss scaler that skips its first steps repeats a few checkpoints; a stuck training repeats most
LEAST_RANK = 1.02  # below it 99.7 % of the variance lies on one line; trainings that still drift have 1.1 or more
HIGHEST_BARRIER = 0.2  # fine-tunings of one network show 0 to 0.02, two independent networks 0.89
MOST_BETWEEN = 0.95  # branches of one network have 0.3 to 0.6, two independent networks 0.9996
MANY = 20  # lineages, from which on the spread of a distribution is known to a sixth of itself, 1 / sqrt(2 (n - 1))
SAME = 0.999  # the similarity of two networks that differ in the order of their sums alone
LATER = "judged after the canonical form."
INTERIOR = (0.25, 0.5, 0.75)


def gate_population(run: "Run") -> list[Check]:
    """Return the checks of the population."""
    population = run.collected
    vectors, provenance = population.mapped, population.provenance  # read, so that the map takes no memory
    finite = check_finite(vectors, population.layout, provenance)
    if not finite.passed:
        return [finite]
    origin = origin_of(provenance)
    copies = check_copies(vectors, provenance, origin)
    if not copies.passed:
        return [finite, copies]
    looked = looked_at(population)
    gram = centred_gram(looked, run.device).cpu()
    others = [*gate_lineages(run, gram, looked), check_rank(gram, origin)]
    return [finite, copies, *(of_few(check, len(looked), len(vectors)) for check in others)]


def gate_lineages(run: "Run", gram: Tensor, looked: Rows) -> list[Check]:
    """Return the checks of what different trainings have in common, unless the fit is to see to that first."""
    if run.config.fit.canonical != "none":
        return [not_measured(name, LATER) for name in ("basin", "runs")]
    order = None if run.conditional else gate_order(run, looked)
    told = [run.collected.provenance[row] for row in looked.rows.tolist()]
    return [order or gate_basin(run, run.collected, gram, looked), judge_runs(gram, told, True)]


def looked_at(population: Population) -> Rows:
    """Return the vectors whose inner products the checks rest on: all, or some whole trainings of very many."""
    return Rows(population.tensor(), few_rows(population.provenance, MOST))


def of_few(check: Check, looked: int, count: int) -> Check:
    """Return a check that says of how many of so many checkpoints it is, where not of all."""
    if looked == count:
        return check
    return replace(check, line=f"{check.line.rstrip('.')}. Looked at: {looked} of {count} checkpoints, spaced evenly.")


def place_of(record: Mapping[str, Any], row: int) -> str:
    """Return words for where a checkpoint comes from."""
    if "file" in record:
        return record["file"] + (f" ({record['lineage']})" if record.get("lineage") is not None else "")
    words = [f"{key} {record[key]}" for key in (*RUN_KEYS, "step") if key in record]
    return f"checkpoint {row}" + (f" ({', '.join(words)})" if words else "")


def check_finite(vectors: np.ndarray | Mapped, layout: Layout, provenance: Sequence[Mapping[str, Any]]) -> Check:
    """Return whether all vectors `(N, P)` are free of NaN and infinity; the line names the first that is not."""
    bad = [row for row, vector in enumerate(vectors) if not np.isfinite(vector).all()]
    figures = {"checkpoints": len(vectors), "not_finite": len(bad)}
    if not bad:
        return Check("finite", True, f"all {len(vectors)} checkpoints are finite", figures)
    first = vectors[bad[0]]
    tensor = next(entry.name for entry in layout if not np.isfinite(first[entry.slice]).all())
    record = provenance[bad[0]]
    cause = "Remove the file." if "file" in record else "The training diverged: collect at a lower rate."
    line = (
        f"got NaN or infinity in {place_of(record, bad[0])}, {tensor!r} ({len(bad)} of {len(vectors)} checkpoints), "
        f"expected none. {cause}"
    )
    return Check("finite", False, line, {**figures, "first": bad[0]})


def check_copies(
    vectors: np.ndarray | Mapped, provenance: Sequence[Mapping[str, Any]], origin: Origin = COLLECTED
) -> Check:
    """Return whether the vectors `(N, P)` differ from each other, a few repeated ones allowed."""
    first: dict[bytes, int] = {}
    copies = []
    for row, vector in enumerate(vectors):
        original = first.setdefault(hashlib.sha256(vector.tobytes()).digest(), row)
        if original != row:
            copies.append((row, original))
    share = len(copies) / len(vectors)
    figures = {"copies": len(copies), "share": share}
    if share <= MOST_COPIES:
        return Check("copies", True, f"{len(copies)} of {len(vectors)} checkpoints repeat another", figures)
    row, original = copies[0]
    line = (
        f"got {len(copies)} of {len(vectors)} checkpoints that repeat another ({place_of(provenance[row], row)} is "
        f"{place_of(provenance[original], original)}), expected at most {MOST_COPIES:.0%}. {origin.copies}"
    )
    return Check("copies", False, line, figures)


def sorted_values(vectors: Tensor, layout: Layout) -> Tensor:
    """Return vectors `(M, P)` with the values of each tensor in rising order: no order of units changes that."""
    return torch.cat([vectors[:, entry.slice].sort(1).values for entry in layout], 1) + 0.0  # and -0 is 0


def reordered(vectors: Tensor, layout: Layout) -> list[tuple[int, int]]:
    """Return which of the vectors `(N, P)` hold the values of an earlier one in another order, each with that one."""
    first: dict[bytes, int] = {}
    found, row = [], 0
    for part in parts(vectors):
        for values in sorted_values(part, layout):
            original = first.setdefault(hashlib.sha256(values.numpy().tobytes()).digest(), row)
            if original != row and not torch.equal(vectors[row], vectors[original]):
                found.append((row, original))
            row += 1
    return found


def gate_order(run: "Run", looked: Rows) -> Check | None:
    """Return the failed check of checkpoints that are one network whose units stand in another order; None of others.

    Where a tensor has few different values, it may hold those of another one and be another; so the first two that seem
    to be one network are held against each other on `select`.
    """
    population = run.collected
    numbers = reordered(looked, population.layout)
    if len(numbers) <= MOST_COPIES * len(looked):
        return None
    found = [tuple(looked.rows[list(pair)].tolist()) for pair in numbers]
    candidates = run.candidates(population.tensor()[list(found[0])])
    one, other = evaluate_split(run, "two checkpoints", candidates, "select")
    if run.task.similarity(one.signature[None], other.signature[None]).item() < SAME:
        return None
    names = [place_of(population.provenance[row], row) for row in found[0]]
    line = (
        f"got the same function in another order: {len(found)} of {len(looked)} checkpoints hold the values of an "
        f"earlier one in every tensor and do the same, but their units (channels, heads) are permuted ({names[0]} is "
        f"{names[1]}), expected at most {MOST_COPIES:.0%}. They tell nothing beside it: leave them out, or bring the "
        "units of all checkpoints into the order of one of them."
    )
    return Check("basin", False, line, {"reordered": len(found)})


def farthest_pair(gram: Tensor) -> tuple[int, int]:
    """Return the rows of the two vectors that are farthest apart."""
    first, second = divmod(int(squared_distances(gram).argmax()), len(gram))
    return min(first, second), max(first, second)


def gate_basin(run: "Run", population: Population, gram: Tensor, looked: Rows) -> Check:
    """Return whether the metric on `select` holds on the line between the two farthest checkpoints."""
    if run.conditional:
        return not_measured("basin", "the checkpoints are for different conditions.")
    rows = looked.rows[list(farthest_pair(gram))].tolist()
    ends = torch.from_numpy(np.array(population.vectors[list(rows)]))
    if run.form is not None:  # nearer to each other than both in the order of the reference
        ends[1:] = run.form.onto(ends[1:], ends[:1])
    line = torch.stack([torch.lerp(ends[0], ends[1], weight) for weight in (0.0, *INTERIOR, 1.0)])
    results = evaluate_split(run, "the line between two checkpoints", run.candidates(line), "select")
    names = tuple(place_of(population.provenance[row], row) for row in rows)
    metrics, error = [result.metric for result in results], standard_error(results[0])
    origin = origin_of(population.provenance)
    scattered = len(set(lineage_labels(population.provenance))) > 1 and run.form is None
    return check_basin(metrics, run.task.metric, names, error, origin, scattered)


def standard_error(result: Evaluation) -> float:
    """Return the standard error of a metric over its samples; 0 where it is no mean over samples."""
    if result.scores is None or len(result.scores) < 2:
        return 0.0
    return (result.scores.double().std() / math.sqrt(len(result.scores))).item()


def check_basin(
    metrics: Sequence[float],
    metric: Metric,
    ends: tuple[str, str],
    error: float = 0.0,
    origin: Origin = COLLECTED,
    scattered: bool = False,
) -> Check:
    """Return whether two checkpoints lie in one basin.

    Args:
        metrics: at evenly spaced points of the line between them, both ends included.
        metric: the task's.
        ends: words for the two.
        error: standard error of the metric at an end; a distance from chance within two of them is none.
        origin: of the population.
        scattered: whether the checkpoints are of several lineages, each with its units in an order of its own.
    """
    good = goodness(metrics, metric)
    mean = good[[0, -1]].mean().item()
    barrier = share_lost(mean, good[1:-1].min().item())
    figures = {"barrier": barrier, **{f"metric_{place}": value for place, value in enumerate(metrics)}}
    if metric.chance is not None and mean <= 2 * error:
        line = (
            f"got {metric.name} {in_words(metrics[0])} and {in_words(metrics[-1])} in the two farthest, expected "
            f"clearly better than chance ({metric.chance:.4f}). {origin.failed}"
        )
        return Check("basin", False, line, figures)
    share = f"{barrier:.0%}" if math.isfinite(barrier) else "all"
    found = f"between the two farthest checkpoints {metric.name} loses {share} of {whole(metric)}"
    if barrier <= HIGHEST_BARRIER:
        return Check("basin", True, f"one basin: {found}", figures)
    line = (
        f"got several basins ({ends[0]} and {ends[1]}): {found}, expected at most {HIGHEST_BARRIER:.0%}. These are "
        f"independently trained networks: {origin.in_one_order(origin.basins, scattered)}."
    )
    return Check("basin", False, line, figures)


def judge_runs(gram: Tensor, told: Sequence[Mapping[str, Any]], scattered: bool) -> Check:
    """Return what `check_runs` finds of checkpoints with a provenance; `gram` `(N, N)` is that of the vectors."""
    return check_runs(gram, runs_of(told), origin_of(told), len(set(lineage_labels(told))), scattered)


def check_runs(
    gram: Tensor,
    runs: Sequence[Sequence[int]],
    origin: Origin = COLLECTED,
    lineages: int = 1,
    scattered: bool = True,
) -> Check:
    """Return whether each training covers some of the ground that lies between the trainings.

    Where there are many lineages, the trainings are points that were drawn from a distribution.

    Args:
        gram: `(N, N)`, of the centred vectors.
        runs: the rows of each training.
        origin: of the population.
        lineages: how many initialisations they are of.
        scattered: whether the units of each lineage are in an order of their own.
    """
    if len(runs) == 1 or len(runs) == len(gram):
        reason = f"{origin.alone}." if len(runs) == 1 else "each checkpoint is of another training."
        return not_measured("runs", reason)
    between = sum(gram[rows][:, rows].sum().item() / len(rows) for rows in runs) / gram.trace().item()
    figures = {"runs": len(runs), "between": between, "within": 1 - between}
    found = f"{between:.0%} of the variance lies between the {len(runs)} trainings, the rest within them"
    if between <= MOST_BETWEEN:
        return Check("runs", True, found, figures)
    if lineages >= MANY:
        return Check("runs", True, f"{found}: {lineages} lineages are points of a distribution of their own", figures)
    todo = origin.in_one_order(origin.points, scattered and lineages > 1)
    if lineages > 1 and not scattered:
        todo = f"bring {MANY} independent networks or more, or {todo}"
    line = (
        f"got {between:.2%} of the variance between the {len(runs)} trainings, expected at most {MOST_BETWEEN:.0%}: "
        f"the population is a few points, not a distribution. {sentence(todo)}"
    )
    return Check("runs", False, line, figures)


def effective_rank(gram: Tensor) -> float:
    """Return exp(entropy of the shares of variance) (Roy and Vetterli, 2007): how many directions are in use."""
    shares = torch.linalg.eigvalsh(gram).clamp(min=0)
    shares = shares[shares > 0] / shares.sum()
    return torch.exp(-(shares * shares.log()).sum()).item() if len(shares) else 0.0


def check_rank(gram: Tensor, origin: Origin = COLLECTED) -> Check:
    """Return whether the population extends into more than one direction."""
    rank = effective_rank(gram)
    figures = {"effective_rank": rank, "spread": math.sqrt(gram.trace().item() / max(len(gram) - 1, 1))}
    if rank >= LEAST_RANK:
        return Check("rank", True, f"the checkpoints use {rank:.1f} directions (effective rank)", figures)
    line = (
        f"got an effective rank of {rank:.2f}, expected at least {LEAST_RANK}: the checkpoints lie on one line, so "
        f"there is no distribution to learn. {sentence(origin.steps)}"
    )
    return Check("rank", False, line, figures)
