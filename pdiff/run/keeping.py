"""Vectors that are dear to make: kept in the evaluation once they are made, for whoever comes later.

How long they took lies among the logs: nothing that is computed depends on it.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from pdiff.runtime.storage import read_json, read_tensors, write_json, write_tensors


def log_of(path: Path) -> Path:
    """Return the file that says how long what a file keeps took."""
    return path.parent / "logs" / f"{path.stem}.json"


def write_kept(path: Path, tensors: dict[str, Tensor], seconds: float) -> None:
    """Keep tensors, `vectors` among them; those that say what these were made of are read by `read_kept`.

    Seconds that nobody knows, NaN, are not kept.
    """
    if math.isfinite(seconds):
        write_json(log_of(path), {"seconds": seconds})
    write_tensors(path, tensors)


def read_kept(path: Path, fits: Callable[[Mapping[str, Tensor]], bool]) -> tuple[Tensor, float] | None:
    """Return the kept vectors and their seconds, NaN where the log is gone; None where there are none that fit.

    Args:
        path: the file.
        fits: says of the tensors in it whether they are of what is asked for.
    """
    kept = read_tensors(path) if path.exists() else {}
    if not kept or not fits(kept):
        return None
    log = log_of(path)
    return kept["vectors"], read_json(log)["seconds"] if log.exists() else math.nan
