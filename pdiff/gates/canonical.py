"""The gate of the canonical form: are the networks one distribution once the order of their units tells nothing?

What is asked of a collection of fine-tunings (`pdiff.gates.population`) is asked of independent trainings only here.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pdiff.gates.population import MOST_COPIES, gate_basin, judge_runs, of_few, place_of
from pdiff.run.check import Check, not_measured
from pdiff.runtime.storage import read_json
from pdiff.weights.gram import MOST, centred_gram
from pdiff.weights.provenance import few_rows, lineage_labels
from pdiff.weights.vectors import Rows

if TYPE_CHECKING:
    from pdiff.run.run import Run

SAME = 1e-3  # of the mean distance from the average; copies lie within 1e-6


def gate_canonical(run: "Run") -> list[Check]:
    """Return the checks of the canonical form; none in a run without one."""
    if run.form is None:
        return []
    population = run.population
    looked = Rows(population.tensor(), few_rows(population.provenance, MOST))
    told = [population.provenance[row] for row in looked.rows.tolist()]
    gram, lineages = centred_gram(looked), lineage_labels(told)
    copies = check_reordered(gram, lineages, [place_of(*pair) for pair in zip(told, looked.rows.tolist(), strict=True)])
    if not copies.passed:
        return [check_canonical(read_json(run.canonical_folder / "canonical.json")), copies]
    conditional = not_measured("basin", "the checkpoints are for different conditions.")
    basin = conditional if run.conditional else gate_basin(run, population, gram, looked)
    others = [copies, basin, judge_runs(gram, told, False)]
    found = [of_few(check, len(looked), len(population)) for check in others]
    return [check_canonical(read_json(run.canonical_folder / "canonical.json")), *found]


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
        f"{record['form']}: {record['lineages']} lineages in one order of {figures['units']} units in {len(groups)} "
        f"groups, {abs(nearer):.0%} {'nearer to' if nearer >= 0 else 'farther from'} their average than in their own "
        f"order; {record['compared']} change by {record['largest_change']:.1g} at most"
    )
    return Check("canonical", True, line, figures)


def check_reordered(gram: Tensor, lineages: np.ndarray, names: Sequence[str]) -> Check:
    """Return whether the networks of different lineages differ: copies in another order of units do not any more.

    Args:
        gram: `(N, N)`, of the centred vectors in canonical form.
        lineages: of each of them `(N,)`.
        names: words for each of them.
    """
    norms = gram.diagonal()
    squares = (norms[:, None] + norms - 2 * gram).numpy()
    close = np.tril((squares <= SAME**2 * norms.mean().item()) & (lineages[:, None] != lineages))
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
