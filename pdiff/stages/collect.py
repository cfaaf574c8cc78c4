"""Stage 1: the population, collected by the plugin or read from checkpoints that the user has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdiff.contract import check_iterable, check_snapshot
from pdiff.errors import PdiffError
from pdiff.progress import progress
from pdiff.run import Run, load_base
from pdiff.storage import finite_or_null, read_tensors, write_tensors
from pdiff.task import Snapshot
from pdiff.weights.checkpoints import find_checkpoints, load_state_dict
from pdiff.weights.population import Population


def collect(run: Run) -> None:
    """Write `population/` and `base.safetensors`; go on where an interrupted collection stopped.

    A snapshot with a NaN is the last one: a training that diverged does not come back, and the gate names the place.

    Raises:
        PdiffError: the plugin yields nothing, something that is no snapshot, or changes what is not selected.
    """
    if run.config.checkpoints.files:
        import_checkpoints(run)
        return
    for _ in recorded(run):
        pass
    if len(run.population) == 0:
        raise PdiffError(f"plugin {run.name}: collect yielded no snapshot. Yield pdiff.Snapshot(params, ...).")
    check_frozen(run)


def recorded(run: Run) -> Iterator[Population]:
    """Write snapshot after snapshot, and yield the population after each: between two of them a run may be stopped."""
    resting = run.directory.folder("collect") / "collect.state.safetensors"
    population = open_population(run)
    for snapshot in continued_snapshots(run, population, resting):
        if snapshot.params and not append(run, population, snapshot):
            break  # before its state is written, so that a resumed collection ends here too
        if snapshot.state is not None:
            rows = {"rows": torch.tensor(len(population))}
            write_tensors(resting, {**{f"state.{n}": t for n, t in snapshot.state.items()}, **rows})
        yield population


def open_population(run: Run) -> Population:
    """Return the population of an interrupted collection, or a new one."""
    folder = run.directory.folder("collect")
    if not (folder / "layout.json").exists():
        return Population.create(folder, run.layout)
    population = Population.open(folder)
    if population.layout != run.layout:
        raise PdiffError(f"{folder}: holds another selection than {run.config.select!r}. Give --overwrite.")
    return population


def continued_snapshots(run: Run, population: Population, resting: Path) -> Iterator[Snapshot]:
    """Return the snapshots that are not in the population yet.

    A plugin that takes `state` goes on from the last one written; of any other, the snapshots that are on disk are
    computed again and compared.
    """
    implementation = run.hook.collect.get_hookimpls()
    if not implementation:
        raise PdiffError(f"plugin {run.name}: lacks the hook collect. Define it, or give checkpoints.files.")
    logs = run.directory.folder("collect") / "logs"
    arguments = {"task": run.task, "names": run.layout.names, "cfg": run.config, "folder": logs}
    if "state" in implementation[0].argnames:
        state, rows = read_state(resting)
        population.truncate(rows)
        if rows:
            load_base(run.task, run.directory.base)
        return checked(run, run.hook.collect(**arguments, state=state))
    return repeated(checked(run, run.hook.collect(**arguments, state=None)), population)


def read_state(path: Path) -> tuple[dict[str, Tensor] | None, int]:
    """Return the last state of a collection and the number of rows it belongs to."""
    if not path.exists():
        return None, 0
    tensors = read_tensors(path)
    state = {n.removeprefix("state."): t for n, t in tensors.items() if n.startswith("state.")}
    return state, int(tensors["rows"])


def checked(run: Run, snapshots: Iterator[Snapshot]) -> Iterator[Snapshot]:
    """Yield the snapshots, each of them looked at."""
    check_iterable(run.name, "collect", snapshots, Snapshot)
    for snapshot in snapshots:
        check_snapshot(run.name, snapshot, run.layout)
        yield snapshot


def repeated(snapshots: Iterator[Snapshot], population: Population) -> Iterator[Snapshot]:
    """Yield the snapshots behind those in the population, which must come again as they are."""
    row = 0
    for snapshot in snapshots:
        if not snapshot.params:
            continue
        if row >= len(population):
            yield snapshot
        elif not same(population.layout.flatten(snapshot.params), population.vectors[row]):
            raise PdiffError(
                f"collect: snapshot {row} differs from the one on disk, so the collection cannot be resumed. "
                "Give --overwrite to collect again, and seed everything that the plugin draws."
            )
        row += 1


def same(vector: Tensor, stored: np.ndarray) -> bool:
    """Say whether two vectors are equal, a NaN in both included."""
    return np.array_equal(vector.numpy(), stored, equal_nan=True)


def append(run: Run, population: Population, snapshot: Snapshot) -> bool:
    """Add a snapshot, and say whether it is finite; with the first one comes the frozen network."""
    if len(population) == 0:
        write_tensors(run.directory.base, run.task.model.state_dict())
    origin = f"plugin {run.name}: collect, snapshot {len(population)}"
    vector = population.layout.flatten(snapshot.params, origin)
    provenance = {key: finite_or_null(value) for key, value in snapshot.provenance.items()}
    population.append(vector, {**origin_of(run), **provenance})
    return bool(torch.isfinite(vector).all())


def origin_of(run: Run) -> dict[str, Any]:
    """Return what the provenance of every vector of a run begins with."""
    return {"run": {"plugin": run.name, "seed": run.config.seed}}


def check_frozen(run: Run) -> None:
    """Raise a `PdiffError` when the collection changed what is not selected: no candidate would be what was trained."""
    base = read_tensors(run.directory.base)
    for name, tensor in run.task.model.state_dict().items():
        if name not in run.layout.names and not torch.equal(tensor.cpu(), base[name]):
            raise PdiffError(
                f"plugin {run.name}: collect changed {name!r}, which is not selected. "
                "Freeze it (running statistics: keep the layer in eval mode), or select it."
            )


def import_checkpoints(run: Run) -> None:
    """Fill the population from files, all of one network with one frozen part."""
    settings = run.config.checkpoints
    files = find_checkpoints(settings.files)
    base_file = Path(settings.base) if settings.base else files[0]
    base = load_state_dict(base_file, settings.prefix)
    own = run.task.model.state_dict()
    frozen = [name for name in own if name not in run.layout.names]
    missing = [name for name in frozen if name not in base]
    if missing:
        raise PdiffError(f"{base_file}: lacks {missing[0]!r}. Name a file with the frozen part as checkpoints.base.")
    population = Population.create(run.directory.folder("collect"), run.layout)
    with progress("read checkpoints", len(files)) as advance:
        for file in files:
            tensors = load_state_dict(file, settings.prefix)
            vector = population.layout.flatten(tensors, str(file))
            if settings.base is None:
                check_same_base(tensors, base, frozen, file, base_file)
            population.append(vector, {**origin_of(run), "file": file.name})
            advance()
    write_tensors(run.directory.base, {name: base.get(name, tensor) for name, tensor in own.items()})
    load_base(run.task, run.directory.base)


def check_same_base(
    tensors: dict[str, Tensor], base: dict[str, Tensor], frozen: list[str], file: Path, base_file: Path
) -> None:
    """Raise a `PdiffError` when two files differ in what is not selected."""
    for name in frozen:
        if name not in tensors:
            raise PdiffError(f"{file}: lacks {name!r}. Give the file of the frozen part as checkpoints.base.")
        if name not in base or not torch.equal(tensors[name], base[name]):
            raise PdiffError(
                f"{file}: differs from {base_file} in {name!r}, which is not selected. "
                "Select it, or say whose frozen part to take with checkpoints.base."
            )
