"""The networks that a run takes from files: found, chosen by their columns, and what the provenance says of each."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pdiff.files.checkpoint_conditions import conditions_of, read_conditions
from pdiff.files.formats import FORMATS, Zoo
from pdiff.files.reader import Reader
from pdiff.files.rows import missing, rows_where
from pdiff.runtime.errors import PdiffError, known
from pdiff.runtime.registry import build
from pdiff.runtime.storage import finite_or_null


def find_members(checkpoints: Mapping[str, Any], model: nn.Module, names: Sequence[str]) -> tuple[Zoo, list[dict]]:
    """Return the networks in files, and the provenance of each.

    Args:
        checkpoints: the section of the config.
        model: the network that they are of.
        names: the selection.

    Returns:
        The networks, of which nothing is read yet; and of each `file`, its path below the common folder; what
        `checkpoints.conditions` gives; `network`, the number of its training, and `lineage`, the training's name,
        where these are known; other columns of the zoo under `columns`.

    Raises:
        PdiffError: there is none, or what is said of them is not there.
    """
    given = {"pattern": checkpoints["files"], "reader": reader_of(checkpoints, model)}
    zoo = build(FORMATS, checkpoints["format"], "checkpoints.format", {"names": names}, **given)
    rows = range(len(zoo))
    if checkpoints["rows"] is not None:
        rows = rows_where(checkpoints["rows"], zoo.columns, len(zoo))
    conditions, origins = checkpoints["conditions"], zoo.origins
    zoo = zoo.take(rows)
    told: list[dict[str, Any]] = [{}] * len(zoo)
    if isinstance(conditions, str):
        told = read_conditions(conditions, origins, rows)
    elif conditions is not None:
        told = conditions_of(conditions, zoo.columns, zoo.origins)
    others = [name for name in zoo.columns if isinstance(conditions, str) or name not in (conditions or ())]
    columns = {name: zoo.columns[name] for name in others}
    parts = zip(zoo.origins, told, lineages_of(checkpoints["lineage"], zoo), cells_of(columns, len(zoo)), strict=True)
    return zoo, [{"file": origin, **condition, **lineage, **cells} for origin, condition, lineage, cells in parts]


def reader_of(checkpoints: Mapping[str, Any], model: nn.Module) -> Reader:
    """Return what reads files into a network as a section of the config says."""
    settings = (checkpoints[name] for name in ("key", "prefix", "rename", "cast"))
    return Reader(model, "checkpoints", *settings)


def cells_of(columns: Mapping[str, Sequence[Any]], count: int) -> list[dict[str, Any]]:
    """Return what the provenance of each network has of columns; what JSON cannot hold, and missing cells, left out."""
    if not columns:
        return [{}] * count
    rows = zip(*columns.values(), strict=True)
    found = ({n: c for n, c in zip(columns, row, strict=True) if finite_or_null(c) is not None} for row in rows)
    return [{"columns": cells} for cells in found]


def lineages_of(source: str | None, zoo: Zoo) -> list[dict[str, Any]]:
    """Return what the provenance of each network says of its training: a number in order of appearance, and a name.

    Args:
        source: a column of the zoo, or a regular expression with one group on the path; None: as the format knows.
        zoo: the networks.
    """
    names = zoo.lineage if source is None else lineage_names(source, zoo)
    if names is None:
        return [{}] * len(zoo)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [{"network": numbers[name], "lineage": name} for name in names]


def lineage_names(source: str, zoo: Zoo) -> list[str]:
    """Return the name of each network's training; see `lineages_of`."""
    where = f"checkpoints.lineage: got {source!r}"
    if source in zoo.columns:
        for origin, cell in zip(zoo.origins, zoo.columns[source], strict=True):
            if missing(cell):
                raise PdiffError(f"{where}, which is empty for {origin}. Name another column, or leave it out by rows.")
        return [str(cell) for cell in zoo.columns[source]]
    expected = f"expected a column, or a regular expression with one group on the path. {known(source, zoo.columns)}"
    try:
        compiled = re.compile(source)
    except re.error as error:
        raise PdiffError(f"{where} ({error}), {expected}") from None
    if compiled.groups != 1:
        raise PdiffError(f"{where}, {expected}")
    found = [compiled.search(origin) for origin in zoo.origins]
    for origin, match in zip(zoo.origins, found, strict=True):
        if match is None or match[1] is None:
            raise PdiffError(f"{where}, which does not match {origin!r}. Mend the expression.")
    return [match[1] for match in found]
