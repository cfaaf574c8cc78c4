"""N vectors of one layout on disk: memory-mapped, appendable, atomic, with the provenance of each.

`vectors.f32` holds the rows (little-endian float32), `provenance.jsonl` one line per row with the row's
CRC-32. A row exists once its line is complete: bytes behind the last line are a torn write, and are ignored.
"""

import json
import os
import zlib
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import explain_write_errors, read_json, read_text, write_json
from pdiff.weights.conditions import Conditions, check_condition
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Vectors, parts, row_slices, unwritten


class Population:
    """The vectors in `folder`, which `create` makes and `open` finds again."""

    def __init__(self, folder: Path, layout: Layout, provenance: list[dict], ends: list[int]):
        self.folder = Path(folder)
        self.layout = layout
        self.provenance = provenance
        self._ends = [0, *ends]  # where each line of provenance.jsonl ends, in bytes
        self._mapped: Tensor | None = None

    @classmethod
    def create(cls, folder: Path, layout: Layout) -> "Population":
        """Start an empty population in `folder`; what was there is dropped."""
        folder = Path(folder)
        with explain_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "provenance.jsonl").write_bytes(b"")
            (folder / "vectors.f32").write_bytes(b"")
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
        return self.folder / "vectors.f32"

    @property
    def vectors(self) -> np.ndarray:
        """The rows `(N, P)` as a read-only memory map, float32."""
        if len(self) == 0:
            return np.empty((0, self.layout.size), np.float32)
        return np.memmap(self.vectors_path, np.dtype("<f4"), "r", shape=(len(self), self.layout.size))

    def tensor(self) -> Tensor:
        """Return the rows `(N, P)`, float32, read from the file as needed; the tensor cannot be written to."""
        if self._mapped is None or len(self._mapped) != len(self):
            self._mapped = unwritten(self.vectors)
        return self._mapped

    @property
    def conditions(self) -> Conditions | None:
        """The condition of each row, as its provenance has it; None where no row has one.

        Raises:
            PdiffError: some rows have one and others none, or other names.
        """
        found = [record.get("condition") for record in self.provenance]
        if not any(found):
            return None
        first = next(condition for condition in found if condition)
        for row, condition in enumerate(found):
            check_condition(condition, tuple(first), f"{self.folder}: condition of row {row}")
        return Conditions.of(found)

    def append(self, vector: Tensor, provenance: Mapping[str, Any]) -> None:
        """Add one vector `(P,)` and its provenance; on return both are on disk.

        A NaN is added too: the gate of the collection names it (pdiff/gates/population.py), and nothing is lost.

        Raises:
            PdiffError: the vector has another length, the provenance is no JSON, or the disk is full; nothing is
                added then.
        """
        if vector.shape != (self.layout.size,):
            raise PdiffError(f"population: got a vector {tuple(vector.shape)}, expected ({self.layout.size},).")
        vector = vector.detach().cpu().to(torch.float32)
        data = vector.numpy().astype("<f4").tobytes()
        record = {**provenance, "crc32": zlib.crc32(data)}
        try:
            line = (json.dumps(record, allow_nan=False) + "\n").encode()
        except (TypeError, ValueError) as error:
            raise PdiffError(f"population: provenance {record} is no JSON ({error}). Use plain values.") from None
        _write_at(self.vectors_path, len(self) * len(data), data)
        _write_at(self.folder / "provenance.jsonl", self._ends[-1], line)
        self.provenance.append(record)
        self._ends.append(self._ends[-1] + len(line))

    def extend(self, other: "Population") -> None:
        """Add all rows of another population of this layout, with their provenance; on return they are on disk."""
        begin, width = len(self), self.layout.size
        for place in row_slices(other.vectors.shape):
            rows = np.ascontiguousarray(other.vectors[place])
            _write_at(self.vectors_path, (begin + place.start) * width * 4, rows.data)
        lines = [(json.dumps(record) + "\n").encode() for record in other.provenance]
        _write_at(self.folder / "provenance.jsonl", self._ends[-1], b"".join(lines))
        self.provenance += other.provenance
        self._ends += list(accumulate(map(len, lines), initial=self._ends[-1]))[1:]

    def truncate(self, length: int) -> None:
        """Forget every row from `length` on."""
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
        expected = len(self) * self.layout.size * 4
        found = self.vectors_path.stat().st_size if self.vectors_path.exists() else 0
        if found < expected:
            raise PdiffError(
                f"{self.vectors_path}: got {found} bytes, expected {expected}; the file is truncated. Collect again."
            )
        for row, (vector, record) in enumerate(zip(self.vectors, self.provenance, strict=True)):
            if zlib.crc32(vector.tobytes()) != record["crc32"]:
                raise PdiffError(f"{self.vectors_path}: row {row} differs from its checksum. Collect again.")


def write_population(folder: Path, layout: Layout, vectors: Vectors) -> None:
    """Write a population `(N, P)` at once, numbers as provenance; what was in `folder` is dropped."""
    population, sums = Population.create(folder, layout), []
    for part in parts(vectors):
        rows = np.ascontiguousarray(part.numpy(), dtype="<f4")
        _write_at(population.vectors_path, len(sums) * layout.size * 4, rows.data)
        sums += [zlib.crc32(row.tobytes()) for row in rows]
    lines = (json.dumps({"step": step, "crc32": crc32}) + "\n" for step, crc32 in enumerate(sums))
    _write_at(population.folder / "provenance.jsonl", 0, "".join(lines).encode())


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
        records = [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise PdiffError(f"{path}: is corrupt ({error}). Collect again.") from error
    if not all(isinstance(record, dict) and "crc32" in record for record in records):
        raise PdiffError(f"{path}: is corrupt (a line without checksum). Collect again.")
    return records, list(accumulate(len(line.encode()) + 1 for line in lines))
