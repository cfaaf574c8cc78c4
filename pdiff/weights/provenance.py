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


def runs_of(provenance: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Return the rows of each training that the provenance tells apart."""
    labels = branch_labels(provenance)
    return [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]


def _labels(provenance: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> NDArray[np.int_]:
    numbers: dict[str, int] = {}
    found = [numbers.setdefault(str([record.get(key) for key in keys]), len(numbers)) for record in provenance]
    return np.array(found, dtype=int)
