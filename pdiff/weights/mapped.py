"""Rows of float32, one behind the other, in a file that may hold more than them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pdiff.weights.vectors import row_slices

FLOAT32 = np.dtype("<f4")
AT_ONCE = 2**22  # values that are read at once: 16 MiB


@dataclass(frozen=True)
class Mapped:
    """Where `(N, P)` little-endian float32 values lie.

    Attributes:
        path: of the file.
        offset: of the first byte.
        shape: N and P.
    """

    path: Path
    offset: int
    shape: tuple[int, int]

    @property
    def end(self) -> int:
        """The byte behind the last one."""
        return self.offset + FLOAT32.itemsize * self.shape[0] * self.shape[1]

    def array(self) -> np.ndarray:
        """Return the rows as a read-only memory map."""
        if self.shape[0] == 0:
            return np.empty(self.shape, np.float32)
        return np.memmap(self.path, FLOAT32, "r", self.offset, self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place) -> np.ndarray:
        return self.array()[place]

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.rows()

    def rows(self) -> Iterator[np.ndarray]:
        """Yield row after row, a few of which at a time are in memory, and none of the map."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            for place in row_slices(self.shape, max(1, AT_ONCE // max(1, self.shape[1]))):
                count = place.stop - place.start
                yield from np.fromfile(file, FLOAT32, count * self.shape[1]).reshape(count, self.shape[1])

    def to_json(self) -> dict[str, Any]:
        """Return this as a JSON object."""
        return {"path": str(self.path.absolute()), "offset": self.offset, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Mapped":
        """Return what `to_json` wrote."""
        return cls(Path(record["path"]), record["offset"], tuple(record["shape"]))
