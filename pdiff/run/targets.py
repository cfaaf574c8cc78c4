"""What the engine is conditioned on where checkpoints have no conditions of their own: figures of each, as its metric.

A generator that knows how good each checkpoint is can be asked for good ones (Peebles et al. 2022, arXiv 2209.12892,
who condition on a loss). One thing is asked of all generated vectors: a quantile of the fitted checkpoints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.run.heldout import split_population
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json
from pdiff.weights.conditions import Conditions
from pdiff.weights.provenance import kin_labels

if TYPE_CHECKING:
    from pdiff.run.run import Run

FILE = "targets.json"  # in the folder of the fit


@dataclass(frozen=True)
class Targets:
    """The figures that the engine is conditioned on, and what the generated are asked for.

    Attributes:
        names: of the figures, C of them.
        values: of the fitted vectors `(F, C)`.
        wanted: what is asked for `(C,)`.
        groups: the number of each fitted vector's lineage `(F,)`; of a single one its branch, or else its own.
    """

    names: tuple[str, ...]
    values: Tensor
    wanted: Tensor
    groups: NDArray


def check_targets(run: "Run", conditions: Conditions | None) -> None:
    """Raise a `PdiffError` where the checkpoints of a run with `fit.conditions` have `conditions` of their own."""
    names = run.config.fit.conditions
    if names is not None and conditions is not None:
        found = f"got {names}, but the checkpoints have conditions of their own ({', '.join(conditions.names)})"
        raise PdiffError(f"fit.conditions: {found}, expected null. Set it to null, or leave those conditions out.")


def known_conditions(run: "Run") -> Conditions | None:
    """Return what the engine is told of each checkpoint `(N, C)`: its conditions or its figures; None for nothing."""
    if not run.targeted:
        return run.population.conditions
    record = read_json(run.directory.folder("fit") / FILE)
    return Conditions(record["names"], torch.tensor(record["values"]))


def open_targets(run: "Run") -> Targets | None:
    """Return what the engine of a run is conditioned on and asked for; None without `fit.conditions`."""
    if not run.targeted:
        return None
    rows, known = split_population(run)[0].rows, known_conditions(run)
    values = known.values[rows]
    metric, share = run.built.metric, run.config.generate.target
    shares = [1 - share if name == metric.name and not metric.higher_is_better else share for name in known.names]
    columns = zip(values.double().numpy().T, shares, strict=True)
    wanted = torch.tensor([np.quantile(column, share) for column, share in columns], dtype=values.dtype)
    return Targets(known.names, values, wanted, groups_of([run.population.provenance[row] for row in rows.tolist()]))


def groups_of(provenance: Sequence[Mapping[str, Any]]) -> NDArray:
    """Return the number of each row's lineage `(F,)`; of a single one its branch, or else its own."""
    labels = kin_labels(provenance)
    return labels if labels.any() else np.arange(len(provenance))


def asked_of(run: "Run", count: int) -> dict[str, Tensor]:
    """Return what the engine is told for so many vectors, arguments of its `sample_latents`; none without targets."""
    targets = open_targets(run)
    return {} if targets is None else {"conditions": targets.wanted.expand(count, -1)}
