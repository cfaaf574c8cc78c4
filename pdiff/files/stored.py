"""A tensor in a file, and where it stands, before its values are read."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

# Of the classes that `torch.save` names, by what their names begin with.
DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
    "QInt8": torch.qint8,
    "QUInt8": torch.quint8,
    "QInt32": torch.qint32,
    "QUInt4x2": torch.quint4x2,
    "QUInt2x4": torch.quint2x4,
    "Untyped": torch.uint8,
}


def digest(tensor: Tensor) -> bytes:
    """Return a hash of a tensor's type and values."""
    values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(values, digest_size=16, key=str(tensor.dtype).encode()).digest()


class Values(Protocol):
    """The storages of a file."""

    def load(self, key: str) -> Tensor:
        """Return the bytes of a storage, uint8 `(bytes,)`."""

    def mark(self, key: str) -> Hashable:
        """Return what is the same for storages of the same bytes, and cheap to have."""


@dataclass(frozen=True)
class Storage:
    """Values in a file that one or several tensors are made of.

    Attributes:
        dtype: of the values; bytes where the tensors have types of their own.
        key: of the storage in the file.
        start: the first byte of those that are meant.
        size: number of bytes.
        values: those of the file.
    """

    dtype: torch.dtype
    key: str
    start: int
    size: int
    values: "Values"

    def __setstate__(self, state: Any) -> None:
        """Refuse to be changed by a pickle."""
        raise TypeError("a storage has no state")


@dataclass(frozen=True)
class Stored:
    """What is known of a tensor in a file.

    Attributes:
        dtype: of its values.
        shape: of the tensor.
        load: returns it.
        mark: returns what is the same for tensors with the same values that were written alike.
        place: the same for two tensors of one file that are one.
        kind: what it is where it is none that pdiff reads: sparse, quantized, ...; else empty.
    """

    dtype: torch.dtype | None
    shape: tuple[int, ...]
    load: Callable[[], Tensor]
    mark: Callable[[], Hashable]
    place: Hashable
    kind: str = ""

    def __setstate__(self, state: Any) -> None:
        """Take no state: attributes of tensors are left out, and a pickle changes nothing."""

    @classmethod
    def of(cls, tensor: Tensor) -> "Stored":
        """Return a tensor that has been read already."""
        return cls(tensor.dtype, tuple(tensor.shape), lambda: tensor, lambda: digest(tensor), id(tensor))


def view(
    storage: Storage, offset: int, shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype | None = None
) -> Stored:
    """Return the tensor that is a view of a storage.

    Args:
        storage: its values.
        offset: its first value's place among them.
        shape: its own.
        stride: steps between values, one for each dimension.
        dtype: of the values; default: the storage's.

    Raises:
        ValueError: it reaches beyond its storage, or is none.
    """
    if not isinstance(storage, Storage) or not all(isinstance(n, int) for n in (offset, *shape, *stride)):
        raise ValueError("a tensor without storage, or without shape")
    shape, stride, dtype = tuple(shape), tuple(stride), dtype or storage.dtype
    last = -1 if 0 in shape else offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if min((offset, *shape, *stride)) < 0 or (last + 1) * dtype.itemsize > storage.size:
        raise ValueError(f"a tensor of the shape {shape} in a storage of {storage.size} bytes")

    def load() -> Tensor:
        values = storage.values.load(storage.key)[storage.start :][: storage.size]
        return values.view(dtype).as_strided(shape, stride, offset)

    within = (storage.start, offset, shape, stride, dtype)
    return Stored(dtype, shape, load, lambda: (storage.values.mark(storage.key), *within), (storage.key, *within))


@dataclass(frozen=True)
class Found:
    """A tensor of a file.

    Attributes:
        keys: those of the mapping that it stands in, dots between them.
        name: its name there.
        tensor: itself.
        before: its path before it was renamed; empty where it was not.
    """

    keys: str
    name: str
    tensor: Stored
    before: str = ""

    @property
    def path(self) -> str:
        """Keys and name, dots between them."""
        return f"{self.keys}.{self.name}" if self.keys else self.name

    @property
    def origin(self) -> str:
        """Its path in the file, whatever it is called now."""
        return self.before or self.path

    def renamed(self, name: str) -> "Found":
        """Return the tensor under another name."""
        return replace(self, name=name, before=self.origin)
