"""Files that are whole or absent: write aside, fsync, rename; checksums; safetensors and JSON only."""

import hashlib
import json
import math
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pdiff.errors import PdiffError


@contextmanager
def explain_write_errors(path: Path):
    """Turn an `OSError` of the block into one line that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise PdiffError(
            f"{path}: cannot be written ({error.strerror}). "
            "Make room or give another --work-dir, then run the same command with --resume."
        ) from error


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data` atomically: a reader sees the old file or the new one, never a part."""
    path = Path(path)
    aside = path.with_name(path.name + ".part")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        fsync_folder(path.parent)


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
    from safetensors.torch import save

    # Shared or strided storage cannot be written as it is, so each tensor becomes its own block.
    own = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    write_bytes(path, save(own, metadata=metadata))


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
