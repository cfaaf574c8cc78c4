"""What a user hands to the engine: vectors and conditions of several kinds, looked at and brought where they belong."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdiff.runtime.errors import PdiffError, check_not_negative
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Made, Rows, Vectors, row_slices, unwritten

FLOAT = 4  # bytes
SHARE = 0.5  # of a GPU's free memory, for the population: weights, gradients and blocks need the rest


def as_vectors(where: str, rows: Any, expected: str) -> Vectors:
    """Return rows of real numbers as something that torch can look at, without copying them.

    Args:
        where: words for whose they are, in the error line.
        rows: a torch tensor, a numpy array, or what is in storage.
        expected: their shape, in words.

    Raises:
        PdiffError: they are something else, or no real numbers, or torch has no values of them.
    """
    if isinstance(rows, Rows | Made):
        return rows
    if isinstance(rows, np.ndarray) and rows.dtype.kind in "fiu" and rows.dtype.itemsize <= 8:
        return unwritten(rows)
    got = f"a {type(rows).__name__} of {rows.dtype}" if isinstance(rows, Tensor | np.ndarray) else type(rows).__name__
    if isinstance(rows, Tensor):
        whole = not rows.is_complex() and rows.dtype != torch.bool and not rows.is_quantized
        if whole and rows.layout == torch.strided and not rows.is_meta:
            return rows.detach()
        got += "" if rows.layout == torch.strided and not rows.is_meta else f" ({rows.layout}, on {rows.device})"
    raise PdiffError(f"{where}: got {got}, expected {expected} as a torch tensor or a numpy array.")


def finite(where: str, parts: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yield rows `(m, W)`, a few at a time; raise a `PdiffError` that names one with a NaN."""
    first = 0
    for rows in parts:
        for row in rows.isfinite().all(1).logical_not().nonzero()[:1]:
            number = first + row.item()
            raise PdiffError(f"{where}: got NaN or infinity in row {number}, expected finite numbers. Leave it out.")
        first += len(rows)
        yield rows


def as_it_came(method: Callable) -> Callable:
    """Let a method of tensors take a numpy array too, and return one then."""

    @wraps(method)
    def wrapped(self, rows: Vectors | np.ndarray, *args: Any, **kwargs: Any) -> Tensor | np.ndarray:
        found = method(self, as_vectors(method.__name__, rows, "rows (M, ...) of real numbers"), *args, **kwargs)
        return found.numpy() if isinstance(rows, np.ndarray) else found

    return wrapped


def check_width(what: str, rows: Vectors, width: int, whose: str) -> None:
    """Raise a `PdiffError` unless there are rows `(M, width)`, at least one."""
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise PdiffError(f"{what}: got shape {tuple(rows.shape)}, expected (M, {width}), {whose}.")


def on_device(vectors: Tensor | np.ndarray | Rows, device: torch.device) -> Tensor | Rows:
    """Return vectors as float32 on a device; on the CPU nothing is copied that need not be.

    Those that would take more than `SHARE` of what is free of a GPU stay on the host, and only what is looked at is
    brought there, a block at a time: the numbers are the same.
    """
    if isinstance(vectors, Rows):
        if device.type == "cpu":
            return vectors
        return copied(vectors, device) if fits(vectors, device) else Rows(vectors.vectors, vectors.rows, device)
    vectors = as_vectors("population", vectors, "vectors (N, P)")
    if vectors.device == device or fits(vectors, device):
        return vectors.to(device, torch.float32)
    return Rows(vectors.to(torch.float32), range(len(vectors)), device)


def fits(vectors: Tensor | Rows, device: torch.device) -> bool:
    """Say whether vectors as float32 take no more than `SHARE` of what is free of a device; of a CPU they may."""
    if device.type != "cuda":
        return True
    return FLOAT * vectors.shape.numel() <= SHARE * torch.cuda.mem_get_info(device)[0]


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


def check_conditions(where: str, conditions: Any, count: int, size: int | None = None) -> Tensor:
    """Return conditions `(count, C)` as float32.

    Args:
        where: words for whose they are, in error lines.
        conditions: a torch tensor or a numpy array.
        count: of the vectors that they belong to.
        size: C of the engine, 0 where it takes none; None for any.

    Raises:
        PdiffError: they are of another type or shape, not finite, or of an engine that takes none.
    """
    if size == 0:
        raise PdiffError(f"{where}: got some, but the engine was fitted without. Leave them out, or fit with them.")
    expected = f"({count}, {size or 'C'})"
    given = as_vectors(where, conditions, expected)
    if given.ndim != 2 or len(given) != count or not given.shape[1] or size not in (None, given.shape[1]):
        raise PdiffError(f"{where}: got shape {tuple(given.shape)}, expected {expected}, a row for each vector.")
    given = given.to(torch.float32)
    for row in given.isfinite().all(1).logical_not().nonzero()[:1]:
        raise PdiffError(f"{where}: got NaN or infinity in row {row.item()}, expected finite numbers. Mend it.")
    return given


def check_groups(where: str, groups: Any, count: int) -> np.ndarray:
    """Return what belongs together of `count` vectors, a label for each `(count,)`; None for each on its own.

    Raises:
        PdiffError: there are not as many labels as vectors.
    """
    labels = np.arange(count) if groups is None else np.asarray(groups)
    if labels.shape != (count,):
        raise PdiffError(f"{where}: got shape {labels.shape}, expected ({count},), a label for each vector.")
    return labels


def check_wanted(where: str, conditions: Any, count: int, size: int, guidance: float, dropout: float) -> Tensor | None:
    """Return the conditions `(count, C)` that vectors are to be drawn for; None where they are to be drawn for none.

    Args:
        where: words for what draws, in error lines.
        conditions: as they were given; None for none.
        count: of the vectors.
        size: C of the engine; 0 where it takes none.
        guidance: the weight of the condition.
        dropout: the share of conditions that was dropped in the training.

    Raises:
        PdiffError: they are not what the engine was fitted to, or it did not learn what is asked for.
    """
    check_not_negative(where, guidance=guidance)
    if conditions is None and guidance != 1:
        raise PdiffError(f"{where}.guidance: got {guidance} without conditions, expected 1. Give conditions.")
    if size and not dropout and (conditions is None or guidance != 1):
        got = "conditions: got none" if conditions is None else f"guidance: got {guidance}, expected 1"
        line = "engine.condition_dropout is 0, so that nothing was learnt without conditions. Raise it and fit again."
        raise PdiffError(f"{where}.{got}: {line}")
    return None if conditions is None else check_conditions(f"{where}.conditions", conditions, count, size)
