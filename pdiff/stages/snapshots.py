"""From the plugin's snapshots to a population on disk; interrupted at any moment, it goes on and ends with the same."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pdiff.run.frozen import check_frozen
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import finite_or_null, read_tensors, write_tensors
from pdiff.task.contract import check_iterable, check_same_names, check_snapshot
from pdiff.task.selection import check_params
from pdiff.task.task import Snapshot
from pdiff.weights.population import Population
from pdiff.weights.ties import merged

if TYPE_CHECKING:
    from pdiff.run.run import Run

STATE = "collect.state.safetensors"
CPU = torch.device("cpu")
NO_REPETITION = "a GPU does not repeat every operation to the last digit"


def recorded(run: "Run", branch: int | None = None, root: int | None = None) -> Iterator[Population]:
    """Write snapshot after snapshot, and yield the population after each: between two of them a run may be stopped.

    Args:
        run: the run.
        branch: which branch of the collection, which then has a folder of its own; None for all of it.
        root: an earlier branch that begins with the same trained network.
    """
    population = open_population(run, folder_of(run, branch))
    for snapshot in continued_snapshots(run, population, branch, root):
        if snapshot.params and not append(run, population, snapshot, branch):
            break  # before its state is written, so that a resumed collection ends here too
        if snapshot.state is not None:
            rows = {"rows": torch.tensor(len(population))}
            write_tensors(population.folder / STATE, {**{f"state.{n}": t for n, t in snapshot.state.items()}, **rows})
        yield population


def collect_branch(run: "Run", branch: int | None = None, root: int | None = None) -> int:
    """Write one branch of a collection, or all of it, and return how many vectors it has; see `recorded`."""
    written = deque(recorded(run, branch, root), maxlen=1)
    found = Population.open(folder_of(run, branch))
    if written:
        check_length(found, len(written[0]))
    if len(found) == 0:
        raise PdiffError(f"plugin {run.name}: collect yielded no snapshot. Yield pdiff.Snapshot(params, ...).")
    check_frozen(run)
    return len(found)


def check_length(population: Population, written: int) -> None:
    """Raise a `PdiffError` unless a population holds on disk as many vectors as were written to it."""
    if len(population) != written:
        raise PdiffError(
            f"{population.folder}: got {len(population)} vectors, expected the {written} that were written; another "
            "program writes there too. End it, and give --overwrite to collect again."
        )


def folder_of(run: "Run", branch: int | None) -> Path:
    """Return the folder of the population of one branch of the collection, or of all of it."""
    whole = run.directory.folder("collect")
    return whole if branch is None else whole / "branches" / str(branch)


def open_population(run: "Run", folder: Path) -> Population:
    """Return the population of an interrupted collection, or a new one."""
    if not (folder / "layout.json").exists():
        return Population.create(folder, run.layout)
    population = Population.open(folder)
    if population.layout != run.layout:
        raise PdiffError(f"{folder}: holds another selection than {run.config.select!r}. Give --overwrite.")
    return population


def continued_snapshots(run: "Run", population: Population, branch: int | None, root: int | None) -> Iterator[Snapshot]:
    """Return the snapshots that are not in the population yet.

    A plugin that takes `state` goes on from the last one written; of any other, the snapshots that are on disk are
    computed again and compared.
    """
    implementation = run.hook.collect.get_hookimpls()
    if not implementation:
        raise PdiffError(f"plugin {run.name}: lacks the hook collect. Define it, or give checkpoints.files.")
    logs = run.directory.folder("collect") / "logs"
    arguments = {"task": run.built, "names": run.selected, "cfg": run.config, "folder": logs, "branch": branch}
    if "state" in implementation[0].argnames:
        state, rows = read_state(population.folder)
        population.truncate(rows)
        if state is None and root is not None:
            state, rows = state_of_root(run, root)
        if rows or root is not None:  # it may have begun, and rested before its first snapshot
            run.load_base()
        return checked(run, run.hook.collect(**arguments, state=state))
    return repeated(checked(run, run.hook.collect(**arguments, state=None)), population, run.device)


def state_of_root(run: "Run", root: int) -> tuple[dict[str, Tensor], int]:
    """Return a state of the branch that another one begins with, and the number of rows it belongs to."""
    state, rows = read_state(folder_of(run, root))
    if rows == 0:
        raise PdiffError(
            f"plugin {run.name}: branch {root} of the collection left no state for another to begin with: its first "
            "snapshot holds a NaN, or no Snapshot.state. Lower the learning rate, or yield a state."
        )
    return state, rows


def read_state(folder: Path) -> tuple[dict[str, Tensor] | None, int]:
    """Return the last state of a collection and the number of rows it belongs to."""
    if not (folder / STATE).exists():
        return None, 0
    tensors = read_tensors(folder / STATE)
    state = {n.removeprefix("state."): t for n, t in tensors.items() if n.startswith("state.")}
    return state, int(tensors["rows"])


def checked(run: "Run", snapshots: Iterator[Snapshot]) -> Iterator[Snapshot]:
    """Yield the snapshots, each of them looked at, its tied tensors under the first of their names."""
    check_iterable(run.name, "collect", snapshots, Snapshot)
    for snapshot in snapshots:
        check_snapshot(run.name, snapshot)
        params = merged(run.built.model, snapshot.params, f"plugin {run.name}: collect")
        if params:
            check_params(run.name, params, run.layout, run.selected)
        yield replace(snapshot, params=params)


def repeated(snapshots: Iterator[Snapshot], population: Population, device: torch.device = CPU) -> Iterator[Snapshot]:
    """Yield the snapshots behind those in the population, which must come again as they are on a device."""
    row = 0
    cause = "seed everything that the plugin draws."
    if device.type == "cuda":
        cause = f"have the plugin yield Snapshot.state, from which it goes on: {NO_REPETITION}."
    for snapshot in snapshots:
        if not snapshot.params:
            continue
        if row >= len(population):
            yield snapshot
        elif not again(snapshot, population, row):
            raise PdiffError(
                f"collect: snapshot {row} differs from the one on disk, so the collection cannot be resumed. "
                f"Give --overwrite to collect again, and {cause}"
            )
        elif not np.isfinite(population.vectors[row]).all():
            return
        row += 1


def again(snapshot: Snapshot, population: Population, row: int) -> bool:
    """Say whether a snapshot has the vector of a row, and its condition."""
    if population.provenance[row].get("condition") != stored_condition(snapshot).get("condition"):
        return False
    return same(population.layout.flatten(snapshot.params), population.vectors[row])


def same(vector: Tensor, stored: np.ndarray) -> bool:
    """Say whether two vectors are equal, a NaN in both included."""
    return np.array_equal(vector.numpy(), stored, equal_nan=True)


def append(run: "Run", population: Population, snapshot: Snapshot, branch: int | None) -> bool:
    """Add a snapshot, and say whether it is finite; with the first one of all comes the frozen network."""
    if len(population) == 0 and branch in (None, 0):
        write_tensors(run.directory.base, run.built.model.state_dict())
    origin = f"plugin {run.name}: collect, snapshot {len(population)}"
    first = population.provenance[0].get("condition") if len(population) else snapshot.condition
    check_same_names(run.name, len(population), snapshot.condition, first)
    vector = population.layout.flatten(snapshot.params, origin)
    provenance = {key: finite_or_null(value) for key, value in snapshot.provenance.items()}
    population.append(vector, {**run.origin, **provenance, **stored_condition(snapshot)})
    return bool(torch.isfinite(vector).all())


def stored_condition(snapshot: Snapshot) -> dict[str, dict[str, float]]:
    """Return what the provenance of a snapshot has of its condition: nothing where it has none."""
    if snapshot.condition is None:
        return {}
    return {"condition": {name: float(value) for name, value in snapshot.condition.items()}}
