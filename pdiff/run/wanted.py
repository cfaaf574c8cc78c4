"""What networks are wanted for: conditions that the engine has not seen, and what it has seen around them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pdiff.run.heldout import heldout_record, split_population
from pdiff.run.symmetry import Symmetry, build_symmetry
from pdiff.weights.conditions import Conditions
from pdiff.weights.provenance import lineage_labels

if TYPE_CHECKING:
    from pdiff.run.run import Run


@dataclass(frozen=True)
class Wanted:
    """The conditions that every source gives candidates for.

    Attributes:
        conditions: each once `(W, C)`.
        unseen: which of them are reported `(W,)`; the others choose.
        groups: the number of each one's group `(W,)`.
        seen: the conditions of the fitted vectors `(F, C)`.
        seen_groups: the number of each fitted vector's group `(F,)`.
        lineages: the number of each fitted vector's initialisation `(F,)`.
        oracles: rows of the population that were trained for wanted conditions `(H,)`.
        oracle_of: which wanted condition each of them is for `(H,)`.
        symmetry: that the config declares.
    """

    conditions: Conditions
    unseen: NDArray
    groups: NDArray
    seen: Conditions
    seen_groups: NDArray
    lineages: NDArray
    oracles: NDArray
    oracle_of: NDArray
    symmetry: Symmetry | None

    def __len__(self) -> int:
        return len(self.conditions)

    @property
    def distance(self) -> NDArray:
        """How far each wanted condition is from the nearest seen one `(W,)`; see `Conditions.distances`."""
        return self.conditions.distances(self.seen).min(1)

    def instead(self, conditions: Conditions) -> "Wanted":
        """Return the same for other conditions `(W, C)`, for which nobody trained anything."""
        none = np.zeros(0, dtype=int)
        count = len(conditions)
        return replace(
            self,
            conditions=conditions,
            unseen=np.ones(count, dtype=bool),
            groups=np.arange(count),
            oracles=none,
            oracle_of=none,
        )


def open_wanted(run: "Run") -> Wanted | None:
    """Return what networks are wanted for; None in a run without conditions."""
    if not run.conditional:
        return None
    conditions, record = run.population.conditions, heldout_record(run)
    rows = np.array([*record["select"], *record["unseen"]], dtype=int)
    groups, fitted = np.array(record["groups"]), split_population(run)[0].rows.numpy()
    distinct, of = conditions.take(rows).distinct()
    first = np.array([rows[np.flatnonzero(of == number)[0]] for number in range(len(distinct))])
    return Wanted(
        conditions=distinct,
        unseen=np.isin(first, record["unseen"]),
        groups=groups[first],
        seen=conditions.take(fitted),
        seen_groups=groups[fitted],
        lineages=lineage_labels(run.population.provenance)[fitted],
        oracles=rows,
        oracle_of=of,
        symmetry=build_symmetry(run.config.fit.symmetry, run.population.layout),
    )
