"""Which columns of a matrix of networks are which tensor: by a file beside it, or in the network's order."""

import json
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdiff.files.naming import begin, check_distinct, rename
from pdiff.files.reader import Reader
from pdiff.files.stored import Found
from pdiff.files.table import read_table
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.progress import say

WHERE = "checkpoints.format"
NAMES, SHAPES, STARTS, STOPS = ("varname", "name"), ("shape",), ("start_idx", "start"), ("end_idx", "end", "stop")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a row.

    Attributes:
        start: its first column.
        stop: the column behind its last one.
        shape: as it is stored; None where only its length is known.
    """

    start: int
    stop: int
    shape: Shape | None = None


def load(path: Path) -> Any:
    """Return what `torch.save` wrote, tensors mapped; a file of before PyTorch 1.6 can only be read whole."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def in_order(path: Path, tensors: Mapping[str, Tensor], size: int) -> dict[str, Place]:
    """Return where tensors lie in rows that hold them one after another, and nothing else."""
    total = sum(tensor.numel() for tensor in tensors.values())
    if total != size:
        raise PdiffError(
            f"{path}: got rows of {size} values, expected {total}, those of the selection. Change select, or say which "
            f"columns are which tensor: {WHERE}.layout."
        )
    return one_after_another({name: tuple(tensor.shape) for name, tensor in tensors.items()})


def one_after_another(shapes: Mapping[str, Shape]) -> dict[str, Place]:
    """Return where tensors of some shapes lie, one after another."""
    places, start = {}, 0
    for name, shape in shapes.items():
        places[name] = Place(start, start + math.prod(shape), shape)
        start = places[name].stop
    return places


def read_layout(path: Path, size: int) -> dict[str, Place]:
    """Return where in a row of `size` values each tensor lies.

    Raises:
        PdiffError: the file cannot be read, or names columns that are not there.
    """
    places = places_of_csv(path) if path.suffix == ".csv" else places_of_mapping(path)
    for name, place in places.items():
        if not 0 <= place.start < place.stop <= size:
            got = f"{path}: got columns {place.start} to {place.stop} for {name!r}"
            raise PdiffError(f"{got}, expected some of 0 to {size}, the last exclusive. Mend it.")
        if place.shape is not None and math.prod(place.shape) != place.stop - place.start:
            got = f"{path}: got {place.stop - place.start} columns for {name!r} of shape {place.shape}"
            raise PdiffError(f"{got}, expected {math.prod(place.shape)}. Mend it.")
    return places


def places_of_csv(path: Path) -> dict[str, Place]:
    """Return where each tensor lies, by a table with `varname,shape,start_idx,end_idx`."""
    columns = read_table(path, f"{WHERE}.layout")
    names, shapes, starts, stops = (
        next((columns[name] for name in choices if name in columns), None) for choices in (NAMES, SHAPES, STARTS, STOPS)
    )
    if names is None or starts is None or stops is None:
        got = f"{path}: got columns {', '.join(columns)}"
        raise PdiffError(f"{got}, expected varname, shape, start_idx and end_idx. Mend the header.")
    places = {}
    for name, start, stop, shape in zip(names, starts, stops, shapes or [None] * len(names), strict=True):
        if not isinstance(start, int) or not isinstance(stop, int) or str(name) in places:
            got = f"{path}: got {name!r} from {start!r} to {stop!r}"
            raise PdiffError(f"{got}, expected each name once, and numbers of columns. Mend it.")
        places[str(name)] = Place(start, stop, None if shape is None else shape_of(path, str(name), shape))
    return places


def places_of_mapping(path: Path) -> dict[str, Place]:
    """Return where each tensor lies, by a mapping from name to shape, or to a list that ends with the shape."""
    try:
        content = json.loads(path.read_text()) if path.suffix == ".json" else load(path)
    except Exception as error:  # torch raises many kinds, and advises to run what is in the file
        reason = getattr(error, "strerror", None) or "it is damaged, or holds more than names and numbers"
        raise PdiffError(f"{WHERE}.layout: got {str(path)!r}, which cannot be read ({reason}). Mend it.") from None
    if not isinstance(content, Mapping):
        got = f"{path}: got {type(content).__name__}"
        raise PdiffError(f"{got}, expected a mapping from each tensor's name to its shape. Mend it.")
    return one_after_another({str(name): shape_of(path, str(name), value) for name, value in content.items()})


def shape_of(path: Path, name: str, value: Any) -> Shape:
    """Return the shape that a layout gives: numbers, a text of them such as `(3, 3, 1, 16)`, or a list that ends so."""
    found = tuple(map(int, re.findall(r"\d+", value))) if isinstance(value, str) else value
    found = (found,) if isinstance(found, int) else found
    while isinstance(found, Sequence) and found and isinstance(found[-1], Sequence):
        found = found[-1]
    if not isinstance(found, Sequence) or not all(isinstance(size, int) and size > 0 for size in found):
        raise PdiffError(f"{path}: got {value!r} for {name!r}, expected a shape, such as (3, 3, 1, 16). Mend it.")
    return tuple(found)


def by_own_names(places: Mapping[str, Place], reader: Reader) -> dict[str, Place]:
    """Return places by the names of the network; say what the network does not have.

    Raises:
        PdiffError: no name is the network's, or two become one.
    """
    before = begin([Found("", name, place) for name, place in places.items()], reader.prefix, reader.where)
    after = rename(before, reader.rename, reader.where)
    check_distinct(after, before, reader.where)
    found = {one.name: one.tensor for one in after}
    known = reader.model.state_dict()
    others = [name for name in found if name not in known]
    words = f"{', '.join(others[:5])}{', ...' if len(others) > 5 else ''}"
    if len(others) == len(found):
        raise PdiffError(
            f"{WHERE}.layout: got the names {words}, none of which the network has ({', '.join([*known][:5])}, ...). "
            "Say what they are by checkpoints.rename, from regular expression to replacement."
        )
    if others:
        say(f"{WHERE}.layout: left out {words}, which the network does not have")
    return found


def order_of(name: str, place: Place, shape: Sequence[int], axes: str) -> Tensor:
    """Return which column of a row holds each value of a tensor, in the tensor's shape."""
    shape = tuple(shape)
    moves = axes == "tensorflow" and len(shape) > 1
    stored = place.shape or (((*shape[2:], shape[1], shape[0])) if moves else shape)
    columns = torch.arange(place.start, place.stop)
    if math.prod(stored) == len(columns):
        columns = columns.reshape(stored)
        if moves and len(stored) > 1:
            columns = columns.permute(-1, -2, *range(len(stored) - 2))
    if tuple(columns.shape) != shape:
        hint = "" if axes == "tensorflow" else f" Kernels with their inputs and outputs last: {WHERE}.axes=tensorflow."
        raise PdiffError(
            f"{WHERE}.layout: {name!r} has shape {tuple(stored)} in the matrix, expected one that becomes {shape}, the "
            f"network's.{hint or ' Mend it.'}"
        )
    return columns
