"""Zoos that are folders: which there are, and what JSON files in them say."""

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pdiff.files.formats import Cell
from pdiff.files.paths import natural
from pdiff.runtime.errors import PdiffError


def folders_of(pattern: str) -> list[Path]:
    """Return the folders that a path or a glob names, and those below them, in natural order.

    Raises:
        PdiffError: there is none.
    """
    found = [Path(pattern)] if Path(pattern).is_dir() else [Path(path) for path in glob.glob(pattern, recursive=True)]
    tops = {path if path.is_dir() else path.parent for path in found}
    folders = {Path(folder) for top in tops for folder, _, _ in os.walk(top, followlinks=True)}
    if not folders:
        raise PdiffError(f"checkpoints.files: got {pattern!r}, expected a folder or a glob of folders. Check the path.")
    return sorted(folders, key=natural)


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Cell]]:
    """Yield numbers and texts by name, dots between the levels; lists are left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, int | float | str):
            yield f"{prefix}{name}", value
