"""The format `matrix`: networks as rows of one matrix, which is mapped into memory and never read whole.

So are stored the Small CNN Zoo (Unterthiner et al., arXiv 2002.11448): `weights.npy`, `layout.csv` and
`metrics.csv.gz`; and weights2weights (Dravid et al., arXiv 2406.09413): one tensor in a `.pt` file.
"""

import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdiff.files.columns import WHERE, by_own_names, in_order, load, order_of, read_layout
from pdiff.files.formats import FORMATS, Zoo
from pdiff.files.reader import Reader
from pdiff.files.table import read_table
from pdiff.runtime.errors import PdiffError, known
from pdiff.runtime.progress import say
from pdiff.weights.layout import Layout
from pdiff.weights.mapped import Mapped
from pdiff.weights.roles import encode, is_counter
from pdiff.weights.vectors import row_slices, unwritten

SUFFIXES = (".npy", ".pt", ".pth")
AXES = ("torch", "tensorflow")


@FORMATS.register_module(name="matrix")
def matrix(
    pattern: str,
    reader: Reader,
    names: Sequence[str],
    layout: str | None = None,
    table: str | None = None,
    axes: str = "torch",
    finite: bool = False,
    copy: bool = False,
) -> Zoo:
    """Take each row of a matrix as a network.

    Args:
        pattern: a `.npy` file, or one of `torch.save` with one tensor; or a folder with one such.
        reader: says of which network, and how names are changed.
        names: the selection.
        layout: which columns are which tensor: a `.csv` file with `varname,shape,start_idx,end_idx`, the last of them
            exclusive; or a `.json` or `.pt` file with a mapping from name to shape, in order. A path from here, or
            from the matrix's folder. Default: the columns are the selection, in the network's order.
        table: a `.csv` file, compressed or not, with a row for each of the matrix. A path from here, or from the
            matrix's folder.
        axes: in which order the axes of kernels are stored: `torch`, or `tensorflow`, with inputs and outputs last.
        finite: whether rows with NaN or infinity are left out.
        copy: whether the vectors are copied also where the run could use the matrix itself.
    """
    if axes not in AXES:
        raise PdiffError(f"{WHERE}.axes: got {axes!r}. {known(axes, AXES)}")
    path = find_matrix(pattern)
    values = open_matrix(path, reader.key)
    own = reader.model.state_dict()
    if layout is None:
        places = in_order(path, {name: own[name] for name in names}, values.shape[1])
    else:
        places = by_own_names(read_layout(beside(path, layout), values.shape[1]), reader)
    columns = {} if table is None else read_table(beside(path, table), f"{WHERE}.table")
    for name, cells in columns.items():
        if len(cells) != len(values):
            got = f"{WHERE}.table: got {len(cells)} cells in column {name!r}"
            raise PdiffError(f"{got}, expected {len(values)}, a row for each of {path}. Mend it.")
    order = {name: order_of(name, places[name], own[name].shape, axes) for name in own if name in places}
    found = Matrix(path, values, order, own)
    zoo = Zoo(
        origins=[f"{path.name}:{row}" for row in range(len(values))],
        read=found.read,
        columns=columns,
        blocks=found.blocks,
        mapped=None if copy else found.mapped,
    )
    return without_bad_rows(zoo, values) if finite else zoo


@dataclass(frozen=True)
class Matrix:
    """A matrix on disk, and which of its columns are what.

    Attributes:
        path: of the file.
        values: `(N, P)`, mapped.
        order: columns of each tensor of the network, in its shape.
        own: tensors of the network, whose counters a matrix lacks.
    """

    path: Path
    values: Tensor | np.ndarray
    order: Mapping[str, Tensor]
    own: Mapping[str, Tensor]

    def rows(self, place: slice | Sequence[int], columns: Tensor | slice) -> Tensor:
        """Return some columns of some rows, float32."""
        rows = self.values[place]  # a copy where these are numbers; else still mapped
        rows = rows if isinstance(rows, Tensor) else unwritten(rows)
        return rows[..., columns].to(torch.float32)

    def read(self, number: int, names: Sequence[str], otherwise: str) -> dict[str, Tensor]:
        """Return tensors of a row."""
        missing = [name for name in names if name not in self.order and not is_counter(self.own[name])]
        if missing:
            more = f" and {len(missing) - 1} more of the network's tensors" if len(missing) > 1 else ""
            raise PdiffError(f"{self.path}: lacks {missing[0]!r}{more}. {otherwise}")
        return {name: self.rows(number, self.order[name]) if name in self.order else self.own[name] for name in names}

    def blocks(self, layout: Layout, numbers: Sequence[int]) -> Tensor:
        """Return the vectors of some rows `(M, P)`."""
        place = slice(numbers[0], numbers[-1] + 1)  # which is read without a copy
        successive = list(numbers) == [*range(place.start, place.stop)]
        rows = self.rows(place if successive else list(numbers), self.columns(layout))
        for entry in layout:
            if entry.code:
                values = rows[:, entry.slice]
                if (values < 0).any():
                    raise PdiffError(f"{self.path}: {entry.name!r} has negative values, as no variance has. Mend it.")
                rows = torch.cat([rows[:, : entry.offset], encode(values).float(), rows[:, entry.slice.stop :]], 1)
        return rows

    def columns(self, layout: Layout) -> Tensor | slice:
        """Return the columns of a vector."""
        order = torch.cat([self.order[name].flatten() for name in layout.names])
        start = int(order[0])
        return (
            slice(start, start + len(order)) if torch.equal(order, torch.arange(start, start + len(order))) else order
        )

    def mapped(self, layout: Layout) -> Mapped | None:
        """Return where the vectors lie as a population has them; None where they do not."""
        columns = self.columns(layout)
        coded = any(entry.code for entry in layout)
        whole = isinstance(columns, slice) and not coded and columns == slice(0, self.values.shape[1])
        offset = offset_of(self.path, self.values) if whole else None
        return None if offset is None else Mapped(self.path, offset, tuple(self.values.shape))


def find_matrix(pattern: str) -> Path:
    """Return the file that holds the matrix: the one named, or the only one of a folder."""
    path = Path(pattern)
    if not os.path.isdir(path):
        if os.path.isfile(path):
            return path
        raise PdiffError(f"checkpoints.files: got {pattern!r}, which is no file. Name one, {', '.join(SUFFIXES)}.")
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    if len(found) == 1:
        return found[0]
    got = ", ".join(file.name for file in found) or "none"
    raise PdiffError(f"checkpoints.files: got {got} in {pattern!r}, expected one of {', '.join(SUFFIXES)}. Name it.")


def open_matrix(path: Path, key: str | None) -> Tensor | np.ndarray:
    """Return the matrix `(N, P)` in a file, mapped where the file's format allows it.

    Raises:
        PdiffError: the file cannot be read, or holds something else.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False) if path.suffix == ".npy" else load(path)
    except Exception as error:  # numpy and torch raise many kinds, and advise to run what is in the file
        reason = getattr(error, "strerror", None) or "it is damaged, or holds more than numbers"
        raise PdiffError(f"{path}: cannot be read ({reason}). Give a file with one matrix.") from None
    if isinstance(values, Mapping):
        values = chosen(path, values, key)
    shape, kind = getattr(values, "shape", None), getattr(values, "dtype", type(values).__name__)
    known_to_torch = isinstance(kind, np.dtype) and kind.kind == "f" and kind.itemsize <= 8
    floating = values.is_floating_point() if isinstance(values, Tensor) else known_to_torch
    if not floating or len(shape) != 2 or 0 in shape:
        got = f"{kind} of shape {tuple(shape)}" if shape is not None else kind
        raise PdiffError(
            f"{path}: got {got}, expected a matrix (N, P) of floating-point numbers, 16 to 64 bits. Name another file."
        )
    if str(kind).endswith("64"):
        say(f"{path.name}: float64, taken as float32")
    return values


def chosen(path: Path, values: Mapping[str, Any], key: str | None) -> Any:
    """Return the only matrix in a mapping, or the one that `checkpoints.key` names."""
    found = [name for name, value in values.items() if isinstance(value, Tensor) and value.ndim == 2]
    if key is None and len(found) == 1:
        return values[found[0]]
    if key in values:
        return values[key]
    got = f"got key {key!r}" if key is not None else f"holds {len(found)} matrices"
    raise PdiffError(f"{path}: {got}. Set checkpoints.key. {known(str(key), map(str, values))}")


def offset_of(path: Path, values: Tensor | np.ndarray) -> int | None:
    """Return where float32 rows begin in a file, one behind the other, little-endian; None where they do not lie so."""
    if not isinstance(values, Tensor):
        plain = values.dtype == np.dtype("<f4") and values.flags.c_contiguous and isinstance(values, np.memmap)
        return values.offset if plain else None
    if values.dtype != torch.float32 or not values.is_contiguous() or not zipfile.is_zipfile(path):
        return None
    size = values.untyped_storage().nbytes()
    with zipfile.ZipFile(path) as archive:
        order = [archive.read(info) for info in archive.infolist() if info.filename.endswith("/byteorder")]
        records = [info for info in archive.infolist() if "/data/" in info.filename and info.file_size == size]
    if len(records) != 1 or records[0].compress_type != zipfile.ZIP_STORED or order not in ([], [b"little"]):
        return None
    with open(path, "rb") as file:  # the header before the record says how long it is itself
        file.seek(records[0].header_offset)
        header = file.read(30)
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return records[0].header_offset + 30 + name + extra + 4 * values.storage_offset()


def beside(path: Path, name: str) -> Path:
    """Return a file that is named from here, or else from the folder of another."""
    return Path(name) if os.path.isfile(name) else path.parent / name


def without_bad_rows(zoo: Zoo, values: Tensor | np.ndarray) -> Zoo:
    """Return the zoo without the rows that hold NaN or infinity, and say how many these are."""
    good = []
    for place in row_slices(values.shape):
        rows = values[place]
        good.append((rows if isinstance(rows, Tensor) else unwritten(rows)).isfinite().all(1))
    kept = torch.cat(good).nonzero().flatten().tolist()
    if len(kept) < len(values):
        say(f"checkpoints: left out {len(values) - len(kept)} of {len(values)} rows, which hold NaN or infinity")
    return zoo.take(kept)
