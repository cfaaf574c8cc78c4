"""Files that are whole or absent: write aside, fsync, rename; checksums; safetensors and JSON only."""

import hashlib
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pdiff.runtime.delivery import to_host
from pdiff.runtime.errors import PdiffError

RESUME = "Make room or give another --work-dir, then run the same command with --resume."


@contextmanager
def explain_write_errors(path: Path, remedy: str = RESUME):
    """Turn an `OSError` of the block into one line that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise PdiffError(f"{path}: cannot be written ({error.strerror}). {remedy}") from error


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Replace `path` atomically by what the block writes: a reader sees the old file or the new one, never a part."""
    path = Path(path)
    aside = path.with_name(path.name + ".part")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
        fsync_folder(path.parent)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Write a folder that is whole or absent: the block fills a sibling, which then takes its name.

    A folder that another process has put there meanwhile stays as it is.
    """
    aside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.part")
    try:
        aside.mkdir(parents=True)
        yield aside
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` atomically."""
    with replaced(path) as aside:
        aside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8) atomically."""
    write_bytes(path, text.encode())


def finite_or_null(value: Any) -> Any:
    """Return a value that JSON can hold: None for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON, atomically. NaN is refused by raising `ValueError`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Replace `path` by a safetensors file atomically."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replaced(path) as aside:
        try:
            save_file(unshared(tensors), aside, metadata=metadata)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else 0
            raise OSError(code, os.strerror(code) if code else str(error)) from error


def unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors on the CPU, each contiguous and in a storage of its own, as safetensors wants them."""
    own, seen = {}, set()
    for name, tensor in zip(tensors, to_host([tensor.detach() for tensor in tensors.values()]), strict=True):
        found = tensor.contiguous()
        pointer = found.untyped_storage().data_ptr()
        own[name] = found.clone() if pointer in seen else found
        seen.add(pointer)
    return own


def write_rows(path: Path, name: str, shape: Sequence[int], parts: Iterable[torch.Tensor]) -> None:
    """Replace `path` by a safetensors file with one float32 tensor atomically, written part by part.

    Args:
        path: the file.
        name: of the tensor.
        shape: of the whole.
        parts: its values in their order.
    """
    size = 4 * torch.Size(shape).numel()
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}
    header = json.dumps({name: entry}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with replaced(path) as aside, open(aside, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for part in parts:
            file.write(part.detach().cpu().contiguous().numpy().astype("<f4", copy=False).data)
        if file.tell() != 8 + len(header) + size:
            raise ValueError(f"{path}: got {file.tell()} bytes, expected those of {tuple(shape)}")


def read_text(path: Path) -> str:
    """Return the text of `path`, or raise a `PdiffError` that names it."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PdiffError(f"{path}: cannot be read ({error}). Repeat the stage that writes it.") from error


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`, or raise a `PdiffError` that names it."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise PdiffError(f"{path}: is not valid JSON ({error}). Repeat the stage that writes it.") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file, or raise a `PdiffError` that names it."""
    return read_tensors_and_metadata(path)[0]


def read_tensors_and_metadata(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file, or raise a `PdiffError` that names it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise PdiffError(f"{path}: cannot be read ({error}). It is missing, truncated or corrupt.") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
