"""The gate of the canonical form: are the networks one distribution once the order of their units tells nothing?

What is asked of a collection of fine-tunings (`pdiff.gates.population`) is asked of independent trainings only here.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pdiff.gates.population import (
    LATER,
    MOST_COPIES,
    gate_basin,
    gate_lineages,
    judge_runs,
    looked_at,
    of_few,
    place_of,
)
from pdiff.run.check import Check, not_measured
from pdiff.run.record import read_gate
from pdiff.runtime.storage import read_json
from pdiff.weights.gram import centred_gram, squared_distances
from pdiff.weights.origin import UNKNOWN, origin_of
from pdiff.weights.provenance import lineage_labels
from pdiff.weights.vectors import Rows

if TYPE_CHECKING:
    from pdiff.run.run import Run

SAME = 1e-3  # of the mean distance from the average; copies lie within 1e-6
ROUNDED = 1e-5  # of that before the form: where all are copies of one network, nothing but rounding is left behind it


def gate_canonical(run: "Run") -> list[Check]:
    """Return the checks of the canonical form; none in a run without one."""
    if run.form is None:
        return judged_now(run)
    population = run.population
    looked = looked_at(population)
    told = [population.provenance[row] for row in looked.rows.tolist()]
    gram, lineages = centred_gram(looked, run.device).cpu(), lineage_labels(told)
    if origin_of(told) is UNKNOWN:
        lineages = apart(centred_gram(Rows(run.collected.tensor(), looked.rows), run.device).cpu())
    names = [place_of(*pair) for pair in zip(told, looked.rows.tolist(), strict=True)]
    record = read_json(run.canonical_folder / "canonical.json")
    copies = check_reordered(gram, lineages, names, ROUNDED * record["spread_before"])
    if not copies.passed:
        return [check_canonical(record), copies]
    conditional = not_measured("basin", "the checkpoints are for different conditions.")
    basin = conditional if run.conditional else gate_basin(run, population, gram, looked)
    others = [copies, basin, judge_runs(gram, told, False)]
    found = [of_few(check, len(looked), len(population)) for check in others]
    return [check_canonical(record), *found]


def judged_now(run: "Run") -> list[Check]:
    """Return what the gate of a collection left to a canonical form that is not asked for any more."""
    if not any(LATER in record["line"] for record in read_gate(run.directory, "collect")):
        return []
    looked = looked_at(run.collected)
    return gate_lineages(run, centred_gram(looked, run.device).cpu(), looked)


def check_canonical(record: Mapping[str, Any]) -> Check:
    """Return what was done, of a form that changed no output: such a one stops the stage.

    Args:
        record: as `canonical.json` has it.
    """
    groups, before, after = record["groups"], record["spread_before"], record["spread"]
    nearer = 1 - after / before if before else 0.0
    figures = {
        "form": record["form"],
        "lineages": record["lineages"],
        "groups": len(groups),
        "units": sum(group["size"] for group in groups),
        "largest_change": record["largest_change"],
        "nearer": nearer,
    }
    line = (
        f"{record['form']}: {ordered(record)} of {figures['units']} units in {len(groups)} "
        f"group{'s' if len(groups) != 1 else ''}, {abs(nearer):.0%} {'nearer to' if nearer >= 0 else 'farther from'} "
        f"their average than in their own order; {record['compared']} change by {record['largest_change']:.1g} at most"
    )
    return Check("canonical", True, line, figures)


def ordered(record: Mapping[str, Any]) -> str:
    """Return words for what was brought into which order."""
    lineages = record["lineages"]
    orders = record.get("orders", lineages)  # an old one has none
    if orders > lineages:
        return f"{orders} files, each by itself since their lineage is unknown (checkpoints.lineage), in one order"
    return f"{lineages} lineages in one order" if lineages > 1 else "a single lineage, which keeps its order,"


def apart(gram: Tensor) -> np.ndarray:
    """Return the number of each network `(N,)`, the same for those that are the same in their own order, or nearly."""
    from scipy.sparse.csgraph import connected_components

    return connected_components(squared_distances(gram).numpy() <= SAME**2 * gram.diagonal().mean().item())[1]


def check_reordered(gram: Tensor, lineages: np.ndarray, names: Sequence[str], rounding: float = 0.0) -> Check:
    """Return whether the networks of different lineages differ: copies in another order of units do not any more.

    Args:
        gram: `(N, N)`, of the centred vectors in canonical form.
        lineages: of each of them `(N,)`.
        names: words for each of them.
        rounding: distance at which two are the same, whatever distances there are.
    """
    near = squared_distances(gram).numpy() <= max(SAME**2 * gram.diagonal().mean().item(), rounding**2)
    close = np.tril(near & (lineages[:, None] != lineages))
    found = np.flatnonzero(close.any(1))
    share = len(found) / len(lineages)
    figures = {"copies": len(found), "share": share}
    if share <= MOST_COPIES:
        line = f"{len(found)} of {len(lineages)} checkpoints repeat one of another lineage in another order of units"
        return Check("copies", True, line, figures)
    row = int(found[0])
    other = int(close[row].argmax())
    line = (
        f"got {len(found)} of {len(lineages)} checkpoints that repeat one of another lineage in another order of units "
        f"({names[row]} is {names[other]}), expected at most {MOST_COPIES:.0%}. They tell nothing beside it: leave "
        "them out."
    )
    return Check("copies", False, line, figures)
