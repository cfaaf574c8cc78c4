"""The content of a checkpoint file: nested mappings and lists with tensors that are not read yet."""

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pdiff.files.kinds import AGAIN, kind_of
from pdiff.files.nesting import children
from pdiff.files.stored import Stored, digest
from pdiff.files.unpickling import Shell, Unpickler
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_tensors_and_metadata

LOCAL_HEADER = 30  # bytes of a zip record's own header before its name


def read_bytes(file: BinaryIO, size: int) -> bytearray:
    """Return the next bytes of a file."""
    if size > Path(file.name).stat().st_size:
        raise ValueError(f"{size} bytes in a smaller file")
    values = bytearray(size)
    if file.readinto(values) != size:
        raise ValueError("its values are cut short")
    return values


def as_tensor(values: bytearray) -> Tensor:
    """Return bytes as a tensor, uint8 `(bytes,)`."""
    return torch.frombuffer(values, dtype=torch.uint8) if values else torch.empty(0, dtype=torch.uint8)


def start_of(path: Path, record: zipfile.ZipInfo) -> int:
    """Return where in a zip archive the bytes of a record begin: behind its header, which says how long it is."""
    with open(path, "rb") as file:
        file.seek(record.header_offset)
        name, extra = struct.unpack("<HH", file.read(LOCAL_HEADER)[26:])
    return record.header_offset + LOCAL_HEADER + name + extra


def read_record(path: Path, record: zipfile.ZipInfo) -> bytearray:
    """Return what a record of a zip archive holds.

    What is not compressed is read by its place: zipfile refuses a checksum that torch was told to leave out.
    """
    if record.compress_type != zipfile.ZIP_STORED:
        with zipfile.ZipFile(path) as archive:
            return bytearray(archive.read(record))
    with open(path, "rb") as file:
        file.seek(start_of(path, record))
        return read_bytes(file, record.file_size)


class ZipValues:
    """The storages of a file that `torch.save` wrote as a zip archive.

    Args:
        path: the file.
        records: those of the archive, by name.
        folder: of the archive, in which the storages are.
    """

    def __init__(self, path: Path, records: Mapping[str, zipfile.ZipInfo], folder: str):
        self._path, self._folder, self._records = path, folder, records
        self.load = cache(self._load)

    def _record(self, key: str) -> zipfile.ZipInfo:
        return self._records[f"{self._folder}data/{key}"]

    def mark(self, key: str) -> tuple[int, int]:
        """Return checksum and size, which the archive's directory has."""
        return self._record(key).CRC, self._record(key).file_size

    def _load(self, key: str) -> Tensor:
        """Return the bytes of a storage, uint8 `(bytes,)`."""
        return as_tensor(read_record(self._path, self._record(key)))


def read_zip(path: Path, unknown: list[str]) -> Any:
    """Return the content of a file that `torch.save` wrote as a zip archive."""
    with zipfile.ZipFile(path) as archive:
        records = dict(archive.NameToInfo)
    pickled = next(name for name in records if name.endswith("/data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    order = records.get(f"{folder}byteorder")
    if order and read_record(path, order) != b"little":
        raise PdiffError(f"{path}: was written on a machine of the other byte order. Save it again on this one.")
    file = io.BytesIO(read_record(path, records[pickled]))
    return Unpickler(file, ZipValues(path, records, folder), unknown).load()


class LegacyValues:
    """The storages of a file that `torch.save` before 1.6, or on demand, wrote.

    Attributes:
        places: first byte and size of each storage, by its key.
    """

    def __init__(self, path: Path):
        self._path = path
        self.places: dict[str, tuple[int, int]] = {}
        self.load = cache(self._load)

    def mark(self, key: str) -> bytes:
        """Return a hash of a storage's bytes."""
        return digest(self.load(key))

    def _load(self, key: str) -> Tensor:
        """Return the bytes of a storage, uint8 `(bytes,)`."""
        start, size = self.places[key]
        with open(self._path, "rb") as file:
            file.seek(start)
            return as_tensor(read_bytes(file, size))


def read_legacy(path: Path, unknown: list[str]) -> Any:
    """Return the content of a file in the format of `torch.save` before 1.6: pickles, then storages one by one."""
    values = LegacyValues(path)
    with open(path, "rb") as file:
        for _ in range(3):  # a number, a version, sizes of types
            Unpickler(file, values, unknown).load()
        unpickler = Unpickler(file, values, unknown)
        content = unpickler.load()
        for key in map(str, Unpickler(file, values, unknown).load()):
            size = int.from_bytes(file.read(8), "little") * unpickler.dtypes[key].itemsize
            values.places[key] = file.tell(), size
            file.seek(size, 1)
        if file.tell() > path.stat().st_size:
            raise ValueError("its values are cut short")
    return content


def read_safetensors(path: Path, unknown: list[str]) -> Any:
    """Return the content of a safetensors file; names of one tensor that its metadata tells of have it too."""
    tensors, metadata = read_tensors_and_metadata(path)
    aliases = {name: tensors[kept] for name, kept in metadata.items() if kept in tensors and name not in tensors}
    return {name: Stored.of(tensor) for name, tensor in (tensors | aliases).items()}


def is_network(value: Any) -> bool:
    """Say whether a value is a network that was pickled whole."""
    return isinstance(value, Shell) and isinstance(value.state, dict) and "_parameters" in value.state


def foreign(path: Path, content: Any, unknown: Sequence[str]) -> PdiffError:
    """Return the error of a file with objects of classes that are not known, with what makes a state dict of it.

    Args:
        path: the file.
        content: what was read, the objects empty shells; None where reading failed.
        unknown: names of the classes.
    """
    items = {} if is_network(content) else dict(children(content))
    ways = [f"[{key!r}]" for key, value in items.items() if any(isinstance(t, Stored) for _, t in children(value))]
    networks = [f"[{key!r}].state_dict()" for key, value in items.items() if is_network(value)]
    if is_network(content):
        networks = [".state_dict()"]
    kind = "a network that was pickled whole" if networks and not ways else "objects that are no tensors"
    named = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
    way = f"torch.load('{path}', 'cpu', weights_only=False){[*ways, *networks, ''][0]}"
    return PdiffError(
        f"{path}: holds {kind} ({named}), and reading these could run code. Where you trust the file, keep its state "
        f"dict alone: python -c \"import torch; torch.save({way}, 'new.pth')\"."
    )


READERS = {"zip": read_zip, "legacy": read_legacy, "safetensors": read_safetensors}


def read_content(path: Path) -> Any:
    """Return what is in a checkpoint file, by its bytes, its tensors not read yet.

    Raises:
        PdiffError: the file is no checkpoint, is damaged, or holds objects that are neither tensors nor harmless.
    """
    kind, unknown = kind_of(path), []
    try:
        content = READERS[kind](path, unknown)
    except PdiffError:
        raise
    except Exception as error:  # whatever is wrong with the bytes, of which pickles make many kinds
        if unknown:
            raise foreign(path, None, unknown) from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PdiffError(f"{path}: cannot be read ({reason}): it is damaged or corrupt. {AGAIN}") from None
    if unknown:
        raise foreign(path, content, unknown)
    return content
