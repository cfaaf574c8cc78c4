"""Paths as people read them: below the folder that all share, numbers in numerical order."""

import os
import re
from collections.abc import Sequence
from pathlib import Path


def natural(path: Path | str) -> tuple[list[str | int], str]:
    """Return what to sort a path by, so that numbers come in numerical order."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], str(path)


def below_common_folder(paths: Sequence[Path]) -> list[str]:
    """Return each path below the folder that all share, with slashes."""
    absolute = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return [Path(os.path.relpath(path, folder)).as_posix() for path in absolute]
