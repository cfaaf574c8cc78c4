"""Which vectors of a population belong together: those of one training, and those of one initialisation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINEAGE_KEYS = ("network", "seed", "run")  # what shares these shares an initialisation
RUN_KEYS = ("network", "branch", "seed")  # what tells one training of a run from another


def branch_labels(provenance: Sequence[Mapping[str, Any]]) -> NDArray[np.int_]:
    """Return the number of each vector's training `(N,)`, by first appearance; all 0 where none is named."""
    return _labels(provenance, (*RUN_KEYS, "run"))


def lineage_labels(provenance: Sequence[Mapping[str, Any]]) -> NDArray[np.int_]:
    """Return the number of each vector's initialisation `(N,)`, which all branches of one network share."""
    return _labels(provenance, LINEAGE_KEYS)


def kin_labels(provenance: Sequence[Mapping[str, Any]]) -> NDArray[np.int_]:
    """Return the number of what each vector is akin to `(N,)`: its lineage; its branch where all are of one lineage.

    What is akin is fitted or held out together, and is no other draw of the population.
    """
    lineages = lineage_labels(provenance)
    return lineages if lineages.any() else branch_labels(provenance)


def runs_of(provenance: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Return the rows of each training that the provenance tells apart."""
    labels = branch_labels(provenance)
    return [own.tolist() for own in np.split(labels.argsort(kind="stable"), np.bincount(labels).cumsum()[:-1])]


def few_rows(provenance: Sequence[Mapping[str, Any]], most: int) -> list[int]:
    """Return all rows, or about `most`: those of whole trainings, evenly spaced; of few long ones, spaced rows."""
    if len(provenance) <= most:
        return [*range(len(provenance))]
    runs = runs_of(provenance)
    count = max(1, most * len(runs) // len(provenance))
    chosen = [runs[int(place)] for place in np.linspace(0, len(runs) - 1, count)]
    rows = np.sort(np.concatenate(chosen))
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)].tolist()


def _labels(provenance: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> NDArray[np.int_]:
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(str([record.get(key) for key in keys]), len(numbers)) for record in provenance]
    return np.array(found, dtype=int)
