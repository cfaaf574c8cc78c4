"""What a user hands to the engine: vectors of several kinds, looked at and brought to where they are needed."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdiff.runtime.errors import PdiffError
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Rows, Vectors, row_slices, unwritten


def as_it_came(method: Callable) -> Callable:
    """Let a method of tensors take a numpy array too, and return one then."""

    @wraps(method)
    def wrapped(self, rows: Vectors | np.ndarray, *args: Any, **kwargs: Any) -> Tensor | np.ndarray:
        if isinstance(rows, np.ndarray):
            return method(self, unwritten(rows), *args, **kwargs).numpy()
        return method(self, rows, *args, **kwargs)

    return wrapped


def check_width(what: str, rows: Vectors | np.ndarray, width: int, whose: str) -> None:
    """Raise a `PdiffError` unless there are rows `(M, width)`, at least one."""
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise PdiffError(f"{what}: got shape {tuple(rows.shape)}, expected (M, {width}), {whose}.")


def on_device(vectors: Tensor | np.ndarray | Rows, device: torch.device) -> Tensor | Rows:
    """Return vectors as float32 on a device; on the CPU nothing is copied that need not be."""
    if isinstance(vectors, Rows):
        return vectors if device.type == "cpu" else copied(vectors, device)
    if not isinstance(vectors, Tensor | np.ndarray):
        got = type(vectors).__name__
        raise PdiffError(f"population: got {got}, expected vectors (N, P) as a torch tensor or a numpy array.")
    vectors = unwritten(vectors) if isinstance(vectors, np.ndarray) else vectors.detach()
    return vectors.to(device, torch.float32)


def copied(vectors: Rows, device: torch.device) -> Tensor:
    """Return vectors on a device, a few of which at a time are in memory."""
    found = torch.empty(vectors.shape, device=device)
    for place in row_slices(vectors.shape):
        found[place] = vectors[place]
    return found


def check_vectors(vectors: Tensor | Rows, layout: Layout) -> None:
    """Raise a `PdiffError` unless `vectors` is a population `(N >= 2, P)` of finite numbers."""
    if vectors.ndim != 2 or vectors.shape[1] != layout.size or not layout.size:
        shape = tuple(vectors.shape)
        raise PdiffError(f"population: got shape {shape}, expected (N, {layout.size}), the layout's length.")
    if len(vectors) < 2:
        raise PdiffError(f"population: got {len(vectors)} vector, expected at least 2. Collect more checkpoints.")
    for number, vector in enumerate(vectors[row] for row in range(len(vectors))):
        if not torch.isfinite(vector).all():
            raise PdiffError(f"population: vector {number} holds NaN or infinity. Remove this checkpoint.")
