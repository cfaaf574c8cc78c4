"""The figures that the engine is conditioned on: the task's metric, measured on `select`, or columns of the provenance.

Never on `test`: what is reported must not have chosen what the engine was taught.
"""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch

from pdiff.run.heldout import split_population
from pdiff.run.measuring import evaluate_split
from pdiff.run.targets import FILE, check_targets
from pdiff.runtime import processes
from pdiff.runtime.errors import PdiffError, known
from pdiff.runtime.progress import progress
from pdiff.runtime.storage import read_tensors, write_json, write_tensors
from pdiff.task.task import Metric

if TYPE_CHECKING:
    from pdiff.run.run import Run

WHERE = "fit.conditions"
CHECKSUM = "crc32"  # of a row, in its provenance
BLOCK = 128  # checkpoints that are measured between two writes


def write_targets(run: "Run") -> None:
    """Write `engine/targets.json`, the figures of every checkpoint; one that was interrupted goes on."""
    check_targets(run, run.collected.conditions)
    names, path = run.config.fit.conditions, run.directory.folder("fit") / FILE
    if names is None or processes.on_main(path.exists):
        return
    provenance, metric = run.population.provenance, run.task.metric
    fitted = split_population(run)[0].rows.tolist()
    columns = {name: column(provenance, name, metric.name) for name in names if name != metric.name}
    check_differ(columns, fitted)
    if metric.name in names:
        columns[metric.name] = [told(value, metric, row) for row, value in enumerate(measured(run))]
        check_differ(columns, fitted)
    values = [list(row) for row in zip(*(columns[name] for name in names), strict=True)]
    processes.on_main(lambda: write_json(path, {"names": list(names), "values": values}))


def measured(run: "Run") -> list[float]:
    """Return the metric of every checkpoint on the split `select`; several processes share the work."""
    state = run.directory.folder("fit") / "targets.state.safetensors"
    found = processes.on_main(lambda: read_tensors(state)["metric"].tolist() if state.exists() else [])
    candidates = run.candidates(run.population.tensor())
    starts = range(len(found), len(candidates), BLOCK)
    with progress("measuring on select", len(starts)) as advance:
        for start in starts:
            share = processes.own(min(BLOCK, len(candidates) - start))
            rows = slice(start + share.start, start + share.stop)
            results = evaluate_split(run, "trained", candidates, "select", rows)
            found += [value for part in processes.gather([result.metric for result in results]) for value in part]
            metric = torch.tensor(found, dtype=torch.float64)
            processes.on_main(lambda metric=metric: write_tensors(state, {"metric": metric}))
            advance()
    return found


def told(value: float, metric: Metric, row: int) -> float:
    """Return what the engine is told of a checkpoint with this metric: of one without a finite metric, chance."""
    if math.isfinite(value):
        return value
    if metric.chance is None:
        line = f"got no finite {metric.name} of checkpoint {row} on the split select, expected one of each"
        raise PdiffError(f"{WHERE}: {line}. Leave that checkpoint out, or set Metric.chance, which it then counts as.")
    return metric.chance


def column(provenance: Sequence[Mapping[str, Any]], name: str, metric: str) -> list[float]:
    """Return a numeric column of the provenance `(N,)`; raise a `PdiffError` for one that is not there."""
    cells = [{**record.get("columns", {}), **record} for record in provenance]
    names = {key for record in cells for key, value in record.items() if is_number(value) and key != CHECKSUM}
    if name not in names and not any(name in record for record in cells):
        raise PdiffError(f"{WHERE}: got {name!r}. {known(name, {*names, metric})}")
    for row, record in enumerate(cells):
        if not is_number(record.get(name)):
            got = f"got {record.get(name)!r} as {name!r} of checkpoint {row}"
            raise PdiffError(f"{WHERE}: {got}, expected a finite number of each. Name another column.")
    return [float(record[name]) for record in cells]


def check_differ(columns: Mapping[str, Sequence[float]], rows: Sequence[int]) -> None:
    """Raise a `PdiffError` for a column `(N,)` that is the same in all of some rows: nothing can be learnt of it."""
    for name, values in columns.items():
        if len({values[row] for row in rows}) == 1:
            got = f"got {name!r}, which is {values[rows[0]]:g} of every fitted checkpoint"
            raise PdiffError(f"{WHERE}: {got}, expected figures that differ. Name another, or set it to null.")


def is_number(value: Any) -> bool:
    """Say whether a value of the provenance is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
