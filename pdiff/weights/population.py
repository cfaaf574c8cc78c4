"""N vectors of one layout on disk: memory-mapped, appendable, atomic, with the provenance of each.

`vectors.f32` holds the rows (little-endian float32), `provenance.jsonl` one line per row with the row's
CRC-32. A row exists once its line is complete: bytes behind the last line are a torn write, and are ignored.
Rows that lie in a user's file as they would in `vectors.f32` are not copied: `vectors.json` says where they are.
"""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import explain_write_errors, read_json, read_text, write_bytes, write_json
from pdiff.weights.conditions import Conditions, check_condition
from pdiff.weights.layout import Layout
from pdiff.weights.mapped import Mapped
from pdiff.weights.vectors import Vectors, parts, row_slices, unwritten


class Population:
    """The vectors in `folder`, which `create` makes and `open` finds again."""

    def __init__(self, folder: Path, layout: Layout, provenance: list[dict], ends: list[int]):
        self.folder = Path(folder)
        self.layout = layout
        self.provenance = provenance
        self._ends = [0, *ends]  # where each line of provenance.jsonl ends, in bytes
        self._tensor: Tensor | None = None
        self._conditions: tuple[int, Conditions | None] | None = None  # of so many rows
        place = self.folder / "vectors.json"
        self.elsewhere = Mapped.from_json(read_json(place)) if place.exists() else None

    @classmethod
    def create(cls, folder: Path, layout: Layout) -> "Population":
        """Start an empty population in `folder`; what was there is dropped."""
        folder = Path(folder)
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "provenance.jsonl").write_bytes(b"")
            (folder / "vectors.f32").write_bytes(b"")
            (folder / "vectors.json").unlink(missing_ok=True)
        write_json(folder / "layout.json", layout.to_json())
        return cls(folder, layout, [], [])

    @classmethod
    def open(cls, folder: Path) -> "Population":
        """Open the population in `folder` and check every row against its checksum.

        Raises:
            PdiffError: a file is missing, truncated or changed; the line names it.
        """
        folder = Path(folder)
        try:
            layout = Layout.from_json(read_json(folder / "layout.json"))
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise PdiffError(f"{folder / 'layout.json'}: is no layout ({error!r}). Collect again.") from error
        population = cls(folder, layout, *_read_provenance(folder / "provenance.jsonl"))
        population.verify()
        return population

    def __len__(self) -> int:
        return len(self.provenance)

    @property
    def vectors_path(self) -> Path:
        """The file of the rows."""
        return self.elsewhere.path if self.elsewhere else self.folder / "vectors.f32"

    @property
    def mapped(self) -> Mapped:
        """Where the rows lie."""
        return Mapped(self.vectors_path, self.elsewhere.offset if self.elsewhere else 0, (len(self), self.layout.size))

    @property
    def vectors(self) -> np.ndarray:
        """The rows `(N, P)` as a read-only memory map, float32."""
        return self.mapped.array()

    def tensor(self) -> Tensor:
        """Return the rows `(N, P)`, float32, read from the file as needed; the tensor cannot be written to."""
        if self._tensor is None or len(self._tensor) != len(self):
            self._tensor = unwritten(self.vectors)
        return self._tensor

    @property
    def conditions(self) -> Conditions | None:
        """The condition of each row, as its provenance has it; None where no row has one.

        Raises:
            PdiffError: some rows have one and others none, or other names.
        """
        if self._conditions is None or self._conditions[0] != len(self):
            self._conditions = len(self), self._read_conditions()
        return self._conditions[1]

    def _read_conditions(self) -> Conditions | None:
        found = [record.get("condition") for record in self.provenance]
        if not any(found):
            return None
        first = next(condition for condition in found if condition)
        for row, condition in enumerate(found):
            check_condition(condition, tuple(first), f"{self.folder}: condition of row {row}")
        return Conditions.of(found)

    def append(self, vector: Tensor, provenance: Mapping[str, Any]) -> None:
        """Add one vector `(P,)` and its provenance; see `append_rows`."""
        if vector.shape != (self.layout.size,):
            raise PdiffError(f"population: got a vector {tuple(vector.shape)}, expected ({self.layout.size},).")
        self.append_rows(vector[None], [provenance])

    def append_rows(self, vectors: Tensor, provenance: Sequence[Mapping[str, Any]]) -> None:
        """Add vectors `(M, P)` and the provenance of each; on return they are on disk.

        A NaN is added too: the gate of the collection names it (pdiff/gates/population.py), and nothing is lost.

        Raises:
            PdiffError: the provenance is no JSON, or the disk is full; nothing is added then.
        """
        assert self.elsewhere is None, "a user's file is never written to"
        rows = np.ascontiguousarray(vectors.detach().cpu().to(torch.float32).numpy(), dtype="<f4")
        records = [{**own, "crc32": zlib.crc32(row)} for own, row in zip(provenance, rows, strict=True)]
        lines = [_line(record) for record in records]
        _write_at(self.vectors_path, len(self) * self.layout.size * 4, rows.data)
        self._add(records, lines)

    def refer(self, mapped: Mapped, provenance: Sequence[Mapping[str, Any]]) -> None:
        """Take rows that lie in another file `(N, P)`, and the provenance of each, into an empty population.

        Nothing is copied: the file must stay where and as it is, which `open` checks.
        """
        write_json(self.folder / "vectors.json", mapped.to_json())
        self.elsewhere = mapped
        records = [{**own, "crc32": zlib.crc32(row)} for own, row in zip(provenance, mapped.rows(), strict=True)]
        self._add(records, [_line(record) for record in records])

    def tell(self, told: Sequence[Mapping[str, Any]]) -> None:
        """Add something to the provenance of each row; on return it is on disk, or nothing of it is."""
        records = [{**record, **own} for record, own in zip(self.provenance, told, strict=True)]
        lines = [_line(record) for record in records]
        write_bytes(self.folder / "provenance.jsonl", b"".join(lines))
        self.provenance, self._ends = records, list(accumulate(map(len, lines), initial=0))

    def _add(self, records: Sequence[dict], lines: Sequence[bytes]) -> None:
        _write_at(self.folder / "provenance.jsonl", self._ends[-1], b"".join(lines))
        self.provenance += records
        self._ends += list(accumulate(map(len, lines), initial=self._ends[-1]))[1:]

    def extend(self, other: "Population") -> None:
        """Add all rows of another population of this layout, with their provenance; on return they are on disk."""
        begin, width = len(self), self.layout.size
        for place in row_slices(other.vectors.shape):
            rows = np.ascontiguousarray(other.vectors[place])
            _write_at(self.vectors_path, (begin + place.start) * width * 4, rows.data)
        self._add(other.provenance, [_line(record) for record in other.provenance])

    def truncate(self, length: int) -> None:
        """Forget every row from `length` on."""
        assert self.elsewhere is None, "a user's file is never written to"
        self.provenance = self.provenance[:length]
        self._ends = self._ends[: len(self) + 1]
        with explain_write_errors(self.folder):
            os.truncate(self.folder / "provenance.jsonl", self._ends[-1])
            os.truncate(self.vectors_path, len(self) * self.layout.size * 4)

    def verify(self) -> None:
        """Compare every row with its checksum.

        Raises:
            PdiffError: `vectors.f32` is shorter than its rows, or a row was changed.
        """
        place = self.mapped
        found = place.path.stat().st_size if place.path.exists() else 0
        remedy = "Put it back as it was, or collect again." if self.elsewhere else "Collect again."
        if found < place.end:
            raise PdiffError(f"{place.path}: got {found} bytes, expected {place.end}; the file is truncated. {remedy}")
        for row, (vector, record) in enumerate(zip(place.rows(), self.provenance, strict=True)):
            if zlib.crc32(vector) != record["crc32"]:
                raise PdiffError(f"{place.path}: row {row} differs from its checksum. {remedy}")


def write_population(folder: Path, layout: Layout, vectors: Vectors) -> None:
    """Write a population `(N, P)` at once, numbers as provenance; what was in `folder` is dropped."""
    population = Population.create(folder, layout)
    for part in parts(vectors):
        population.append_rows(part, [{"step": len(population) + step} for step in range(len(part))])


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(record, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise PdiffError(f"population: provenance {record} is no JSON ({error}). Use plain values.") from None


def _write_at(path: Path, offset: int, data: bytes) -> None:
    with explain_write_errors(path), open(path, "r+b") as file:
        file.truncate(offset)
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read_provenance(path: Path) -> tuple[list[dict], list[int]]:
    lines = read_text(path).split("\n")[:-1]
    try:
        records = json.loads(f"[{','.join(lines)}]")  # at once, so that a name that comes again is kept once
    except json.JSONDecodeError as error:
        raise PdiffError(f"{path}: is corrupt ({error}). Collect again.") from error
    whole = len(records) == len(lines) and all(isinstance(record, dict) and "crc32" in record for record in records)
    if not whole:
        raise PdiffError(f"{path}: is corrupt (a line without checksum). Collect again.")
    return records, list(accumulate(len(line.encode()) + 1 for line in lines))
