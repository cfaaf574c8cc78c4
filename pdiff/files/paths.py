"""Paths as people read them: below the folder that all share, numbers in numerical order."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from pdiff.runtime.errors import PdiffError


def natural(path: Path | str) -> tuple[list[str | int], str]:
    """Return what to sort a path by, so that numbers come in numerical order."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], str(path)


def below_common_folder(paths: Sequence[Path]) -> list[str]:
    """Return each path below the folder that all share, with slashes."""
    absolute = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return [Path(os.path.relpath(path, folder)).as_posix() for path in absolute]


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
