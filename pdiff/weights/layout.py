"""The bijection between a selection of named tensors and one flat float32 vector.

What must stay positive is in the vector as its logarithm (`pdiff.weights.roles`), so that it is one to rounding there.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pdiff.runtime.delivery import to_host
from pdiff.runtime.errors import PdiffError
from pdiff.weights.memory import memory_of
from pdiff.weights.roles import code_of, decode, encode

# Every value of these types is a float32 value too, so that the way into the vector loses nothing.
EXACT = (torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int8, torch.int16)
COUNTERS = (torch.int32, torch.int64)
LARGEST_EXACT_INTEGER = 2**24


@dataclass(frozen=True)
class Entry:
    """One tensor of a layout.

    Attributes:
        name: of the tensor.
        shape: its own.
        dtype: its own.
        offset: the place of its first value in the vector.
        code: `log` where the vector holds its logarithm; see `pdiff.weights.roles`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int
    code: str = ""

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def slice(self) -> slice:
        """The entry's place in the vector."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Layout:
    """Names, shapes, dtypes and offsets of a selection."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], names: Iterable[str] | None = None) -> "Layout":
        """Return the layout of the tensors called `names`, in that order (default: all of `tensors`).

        What shares its memory with one before it, as tied parameters of a network do, is no further tensor.

        Raises:
            PdiffError: a name is missing, or a dtype has values that float32 cannot hold.
        """
        entries, offset, known = [], 0, {}
        for name in tensors if names is None else names:
            if name not in tensors:
                raise PdiffError(f"selection: got {name!r}, which the network does not have. Check the selector.")
            tensor = tensors[name]
            if memory_of(tensor) in known:
                continue
            known[memory_of(tensor)] = tensor  # as long as it is kept, no other can have its memory
            if tensor.dtype not in EXACT + COUNTERS:
                raise PdiffError(
                    f"{name}: got dtype {tensor.dtype}, which float32 cannot hold exactly. "
                    "Cast the network to float32 or leave this tensor out of the selection."
                )
            entries.append(Entry(name, tuple(tensor.shape), tensor.dtype, offset, code_of(name, tensor)))
            offset += tensor.numel()
        return cls(tuple(entries))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the selected tensors, in order."""
        return tuple(entry.name for entry in self.entries)

    @property
    def size(self) -> int:
        """P, the length of a vector."""
        return sum(entry.size for entry in self.entries)

    def flatten(self, tensors: Mapping[str, Tensor], origin: str = "selection") -> Tensor:
        """Return the selected tensors as one vector, float32 `(P,)` on the CPU.

        Args:
            tensors: at least the tensors of this layout.
            origin: where they come from, for the error line.

        Raises:
            PdiffError: a tensor is missing, has another shape, or values that float32 cannot hold; or is a variance
                and holds negative values.
        """
        vector = torch.empty(self.size, dtype=torch.float32)
        found = to_host([self._fitting(entry, tensors, origin) for entry in self.entries])
        for entry, tensor in zip(self.entries, found, strict=True):
            self._check_values(entry, tensor, origin)
            vector[entry.slice] = (encode(tensor) if entry.code else tensor).reshape(-1)
        return vector

    def _fitting(self, entry: Entry, tensors: Mapping[str, Tensor], origin: str) -> Tensor:
        if entry.name not in tensors:
            raise PdiffError(f"{origin}: lacks {entry.name!r}. Check the file, the prefix and the selector.")
        tensor = tensors[entry.name].detach()
        if tuple(tensor.shape) != entry.shape:
            raise PdiffError(
                f"{origin}: {entry.name!r} has shape {tuple(tensor.shape)}, expected {entry.shape}. "
                "All checkpoints must be of one network."
            )
        if tensor.dtype not in EXACT + COUNTERS:
            raise PdiffError(f"{origin}: {entry.name!r} is {tensor.dtype}, which float32 cannot hold exactly. Cast it.")
        return tensor

    def _check_values(self, entry: Entry, tensor: Tensor, origin: str) -> None:
        largest = LARGEST_EXACT_INTEGER
        if tensor.dtype in COUNTERS and ((tensor > largest) | (tensor < -largest)).any():
            raise PdiffError(f"{origin}: {entry.name!r} holds integers above 2**24. Leave it out of the selection.")
        if entry.code and (tensor < 0).any():
            raise PdiffError(
                f"{origin}: {entry.name!r} holds {tensor.min().item():.3g}, expected no negative value, as it is a "
                "running variance. Take another file, or leave it out of the selection."
            )

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the tensors that a vector `(P,)` stands for, in their own shapes and dtypes.

        Integer tensors take the nearest integer that their dtype holds, since generated values lie between and
        beyond integers; what the vector holds the logarithm of takes the nearest positive number.

        Raises:
            PdiffError: the vector has another length than P.
        """
        if vector.shape != (self.size,):
            raise PdiffError(f"vector: got shape {tuple(vector.shape)}, expected ({self.size},), the layout's length.")
        return {entry.name: _restored(vector[entry.slice].reshape(entry.shape), entry) for entry in self.entries}

    def unflatten_many(self, vectors: Tensor) -> dict[str, Tensor]:
        """Return the stacked tensors `(n, ...)` that vectors `(n, P)` stand for; gradients pass, but through integers.

        Raises:
            PdiffError: the vectors have another length than P.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.size:
            raise PdiffError(f"vectors: got shape {tuple(vectors.shape)}, expected (n, {self.size}). Give vectors.")
        return {e.name: _restored(vectors[:, e.slice].reshape(len(vectors), *e.shape), e) for e in self.entries}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def to_json(self) -> list[dict]:
        """Return the layout as JSON-ready records."""
        return [
            {
                "name": e.name,
                "shape": list(e.shape),
                "dtype": str(e.dtype).removeprefix("torch."),
                "offset": e.offset,
                **({"code": e.code} if e.code else {}),
            }
            for e in self.entries
        ]

    @classmethod
    def from_json(cls, records: list[dict]) -> "Layout":
        """Return the layout that `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError, AttributeError or RuntimeError: the records are no layout.
        """
        layout = cls.of(
            {r["name"]: torch.empty(r["shape"], dtype=getattr(torch, r["dtype"]), device="meta") for r in records}
        )
        codes = zip(layout, (r.get("code", "") for r in records), strict=True)
        layout = cls(tuple(replace(entry, code=code) for entry, code in codes))  # of old ones, variances as they are
        if layout.to_json() != records or not {entry.code for entry in layout} <= {"", "log"}:
            raise ValueError("shapes and offsets do not fit together")
        return layout

    def fingerprint(self) -> str:
        """Return a short hash: two layouts with the same fingerprint are the same."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]


def _restored(tensor: Tensor, entry: Entry) -> Tensor:
    dtype = entry.dtype
    if entry.code:
        return decode(tensor, dtype)
    if dtype.is_floating_point:
        return tensor.to(dtype)
    if dtype == torch.bool:
        return tensor > 0.5
    limits, whole = torch.iinfo(dtype), tensor.double().round()
    return torch.where(whole < limits.max, whole.clamp(min=limits.min).to(dtype), limits.max)
