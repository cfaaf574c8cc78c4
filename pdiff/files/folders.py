"""Zoos that are folders: which there are, and what JSON files in them say."""

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pdiff.files.formats import Cell
from pdiff.files.paths import natural
from pdiff.runtime.errors import PdiffError

ADAPTER = "adapter_config.json"  # in the folder of an adapter of peft


def folders_of(pattern: str) -> list[Path]:
    """Return the folders that a path or a glob names, and those below them, in natural order.

    Raises:
        PdiffError: there is none.
    """
    found = [Path(pattern)] if os.path.isdir(pattern) else [Path(path) for path in glob.glob(pattern, recursive=True)]
    tops = sorted({path if path.is_dir() else path.parent for path in found}, key=natural)
    folders = list(below(tops))
    if not folders:
        raise PdiffError(f"checkpoints.files: got {pattern!r}, expected a folder or a glob of folders. Check the path.")
    return sorted(folders, key=natural)


def below(tops: Iterable[Path]) -> Iterator[Path]:
    """Yield folders and those below them, each once: links may lead back to one that is above them."""
    seen = set()
    for top in tops:
        for folder, inner, _ in os.walk(top, followlinks=True):
            inner.sort(key=lambda name, folder=folder: (os.path.islink(os.path.join(folder, name)), name))
            if os.path.realpath(folder) in seen:
                inner.clear()
                continue
            seen.add(os.path.realpath(folder))
            yield Path(folder)


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Cell]]:
    """Yield numbers and texts by name, dots between the levels; lists are left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        elif value is None or isinstance(value, int | float | str):
            yield f"{prefix}{name}", value


def object_in(text: str) -> dict[str, Any]:
    """Return the JSON object in a text; raise a `ValueError` where there is none."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found
