"""A population from checkpoints that the user has, instead of a collection."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pdiff.files.formats import Zoo
from pdiff.files.members import find_members, reader_of
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.progress import progress, say
from pdiff.runtime.storage import write_json, write_tensors
from pdiff.weights.layout import Layout
from pdiff.weights.lineages import find_lineages
from pdiff.weights.population import Population
from pdiff.weights.roles import free_names
from pdiff.weights.ties import frozen_names, spread
from pdiff.weights.vectors import row_slices

if TYPE_CHECKING:
    from pdiff.run.run import Run

BUILT = "built"  # for checkpoints.base: the network as the plugin builds it
OTHERWISE = (
    f"Or name a file with the frozen part as checkpoints.base, or give checkpoints.base={BUILT} for the network as the "
    "plugin builds it."
)
COLUMNS = "Say what its columns are by checkpoints.format.layout, or select fewer tensors."
ROWS, VALUES = 256, 2**24  # that are written at once: 64 MiB


def import_checkpoints(run: "Run") -> None:
    """Fill the population from files, all of one network with one frozen part; go on where that was interrupted."""
    settings, own = run.config.checkpoints, run.built.model.state_dict()
    zoo, provenance = find_members(settings, run.built.model, run.layout.names)
    records = [{**run.origin, **record} for record in provenance]
    base = read_base(run, zoo)
    alike = {name: base[name] for name in free_names(own, base)} if settings.base is None else {}  # counters may differ
    first = zoo.read(0, run.layout.names, COLUMNS if zoo.blocks else OTHERWISE)
    if zoo.blocks:
        check_columns(zoo, Layout.of(own, alike))
    population, mapped = continued(run, records), zoo.mapped(run.layout) if zoo.mapped else None
    if mapped:
        Population.create(population.folder, run.layout).refer(mapped, records)
    elif zoo.blocks:
        take_blocks(zoo, population, records)
    else:
        take_one_by_one(zoo, population, records, alike)
    tell_lineages(population, records)
    if zoo.kept:
        write_json(population.folder / "zoo.json", zoo.kept)
    write_tensors(run.directory.base, {**own, **base, **spread(run.built.model, first)})


def tell_lineages(population: Population, records: Sequence[dict[str, Any]]) -> None:
    """Add to the provenance which lineage each network is of, where nobody says it and their distances do."""
    if any("network" in record for record in records):
        return
    lineages = find_lineages(population.tensor(), population.layout)
    if lineages is None:
        return
    population.tell([{"network": lineage} for lineage in lineages.tolist()])
    say(
        f"checkpoints: {lineages.max() + 1} independent lineages, by the distances between the networks; if that is "
        "not so, say which are of one training by checkpoints.lineage"
    )


def read_base(run: "Run", zoo: Zoo) -> dict[str, Tensor]:
    """Return what is not selected of the network that candidates are put into."""
    settings, own = run.config.checkpoints, run.built.model.state_dict()
    frozen = frozen_names(run.built.model, run.selected)
    if settings.base == BUILT:
        return {name: own[name] for name in frozen}
    if settings.base is None:
        return zoo.read(0, frozen, OTHERWISE)
    return reader_of(settings, run.built.model).read(Path(settings.base), frozen, OTHERWISE)


def continued(run: "Run", records: Sequence[dict[str, Any]]) -> Population:
    """Return the population, with those of the checkpoints in it that an interrupted import has left."""
    folder = run.directory.folder("collect")
    population = Population.open(folder) if (folder / "layout.json").exists() else None
    if population is None or population.elsewhere or population.layout != run.layout:
        return Population.create(folder, run.layout)
    kept = 0
    for found, record in zip(population.provenance, records, strict=False):
        told = {"network": found["network"]} if "network" in found else {}  # it may have been found by the distances
        if found != {**told, **record, "crc32": found["crc32"]}:
            break
        kept += 1
    population.truncate(kept)
    return population


def take_blocks(zoo: Zoo, population: Population, records: Sequence[dict[str, Any]]) -> None:
    """Add the networks that are not in the population yet, many at once."""
    start, count = len(population), len(zoo) - len(population)
    with progress("read checkpoints", len(zoo), start) as advance:
        for place in row_slices((count, population.layout.size), max(1, VALUES // population.layout.size)):
            rows = range(start + place.start, start + place.stop)
            population.append_rows(zoo.blocks(population.layout, rows), records[rows.start : rows.stop])
            for _ in rows:
                advance()


def take_one_by_one(
    zoo: Zoo, population: Population, records: Sequence[dict[str, Any]], frozen: dict[str, Tensor]
) -> None:
    """Add the networks that are not in the population yet; what was read before one that cannot be read is kept.

    Args:
        zoo: the networks.
        population: where they go.
        records: the provenance of each.
        frozen: what all must have alike.
    """
    vectors: list[Tensor] = []
    wanted, told = [*frozen, *population.layout.names], False

    def write() -> None:
        begin = len(population)
        if vectors:
            population.append_rows(torch.stack(vectors), records[begin : begin + len(vectors)])
            vectors.clear()

    with progress("read checkpoints", len(zoo), len(population)) as advance:
        try:
            for number in range(len(population), len(zoo)):
                tensors, origin = zoo.read(number, wanted, OTHERWISE), zoo.origins[number]
                rounded = check_same_base(tensors, frozen, origin, zoo.origins[0])
                if rounded and not told:
                    told = True
                    words = "differ in what is not selected by rounding"
                    say(f"checkpoints: {origin} and {zoo.origins[0]} {words} to {rounded}; the latter's is taken")
                vectors.append(population.layout.flatten(tensors, origin))
                if len(vectors) == ROWS or len(vectors) * population.layout.size >= VALUES:
                    write()
                advance()
        finally:
            write()


def check_same_base(tensors: dict[str, Tensor], frozen: dict[str, Tensor], origin: str, first: str) -> str | None:
    """Compare what is not selected of a checkpoint with that of the first one.

    Args:
        tensors: of the checkpoint.
        frozen: what is not selected of the first one.
        origin: the checkpoint's path.
        first: that of the first one.

    Returns:
        None where they are the same; the name of the type where one is the other rounded to it.

    Raises:
        PdiffError: they differ.
    """
    differs = next((name for name, tensor in frozen.items() if not torch.equal(tensors[name], tensor)), None)
    if differs is None:
        return None
    for dtype in (torch.float16, torch.bfloat16):
        pairs = [(frozen[name], tensors[name]) for name in frozen]
        if is_rounded(pairs, dtype) or is_rounded([(b, a) for a, b in pairs], dtype):
            return str(dtype).removeprefix("torch.")
    raise different(origin, first, differs)


def is_rounded(pairs: Sequence[tuple[Tensor, Tensor]], dtype: torch.dtype) -> bool:
    """Say whether the second of two tensors is the first one rounded to a type, in each pair."""
    return all(torch.equal(a.to(dtype).to(b.dtype) if a.is_floating_point() else a, b) for a, b in pairs)


def check_columns(zoo: Zoo, frozen: Layout) -> None:
    """Raise a `PdiffError` where networks that lie side by side differ in what is not selected."""
    for entry in frozen:
        layout = Layout((replace(entry, offset=0),))
        first = zoo.blocks(layout, range(1))
        for place in row_slices((len(zoo), layout.size), max(1, VALUES // layout.size)):
            differs = (zoo.blocks(layout, range(place.start, place.stop)) != first).any(1).nonzero()
            if len(differs):
                raise different(zoo.origins[place.start + int(differs[0])], zoo.origins[0], entry.name)


def different(origin: str, first: str, name: str) -> PdiffError:
    """Return the error over two checkpoints that differ in a tensor which is not selected."""
    return PdiffError(
        f"{origin}: differs from {first} in {name!r}, which is not selected. "
        "Select it, or say whose frozen part to take with checkpoints.base."
    )
