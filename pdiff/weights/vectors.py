"""Vectors `(M, P)` that need not fit into memory: read from a memory map, or computed, a few at a time.

A tensor (a memory-mapped one too), `Rows` and `Made` are all indexed by rows like the matrix they are; a tensor and
`Rows` by slices of columns too; some rows of `Joined` ones are `Joined` again. Whoever goes through all of them does it
part by part, or block of columns by block.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

VALUES = 2**26  # in one part: 256 MiB
CPU = torch.device("cpu")


def unwritten(array: np.ndarray) -> Tensor:
    """Return an array as a tensor without copying it, also where it is memory-mapped and must never be written to.

    What torch cannot look at is copied: an array that runs backwards, or whose bytes are in the other order.
    """
    if any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def brought(block: Tensor, device: torch.device) -> Tensor:
    """Return a block on a device. To a GPU it goes over page-locked memory, so that the host need not wait for it."""
    if device.type != "cuda" or block.device.type != "cpu":
        return block.to(device)
    return block.pin_memory().to(device, non_blocking=True)


class Rows:
    """Some rows of a tensor `(N, P)`, read when they are asked for.

    Args:
        vectors: the tensor, memory-mapped where it is large.
        rows: their numbers.
        device: where what is read is brought, a GPU that cannot hold them all say; default: they stay where they lie.
    """

    def __init__(self, vectors: Tensor, rows: Sequence[int] | Tensor, device: torch.device | None = None):
        self.vectors, self.rows = vectors, torch.as_tensor(rows, dtype=torch.long)
        self.shape, self.ndim = torch.Size([len(self.rows), *vectors.shape[1:]]), vectors.ndim
        self.dtype, self.device = vectors.dtype, device or vectors.device

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place) -> Tensor:
        rows, *columns = place if isinstance(place, tuple) else (place,)
        return brought(self.vectors[(self.rows[rows], *columns)], self.device)


    def some(self, rows: slice | Tensor) -> "Rows":
        """Return some of these rows, unread."""
        return Rows(self.vectors, self.rows[rows], self.device)


class Joined:
    """Vectors `(M, P)` of several places one behind another, each read when it is asked for.

    Args:
        parts: the vectors of each place `(m, P)`.
        places: of each row the number of its part, and of its row there `(M, 2)`; default: all, in order.
    """

    def __init__(self, parts: Sequence["Tensor | Rows | Joined"], places: Sequence[tuple[int, int]] | None = None):
        self.parts = parts
        if places is None:
            places = [(number, row) for number, part in enumerate(parts) for row in range(len(part))]
        self.places = places
        self.shape, self.ndim = torch.Size([len(places), *parts[0].shape[1:]]), parts[0].ndim
        self.dtype, self.device = parts[0].dtype, parts[0].device

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: int | slice | Sequence[int]) -> "Tensor | Joined":
        """Return one vector `(P,)`, or some of them."""
        if isinstance(rows, Integral) or (isinstance(rows, Tensor) and rows.ndim == 0):
            number, row = self.places[rows]
            return self.parts[number][row]
        numbers = range(len(self))[rows] if isinstance(rows, slice) else rows
        return Joined(self.parts, [self.places[number] for number in numbers])


class Made:
    """Vectors `(M, P)`, or groups `(M, K, P)`, that are computed at every pass, and are the same ones each time.

    Args:
        shape: of all of them.
        make: from a slice of the rows to these rows; it is called for one slice after another.
        rng: what `make` draws from; its state now is the one that every pass begins with.
        finish: from rows and their numbers to what takes their place, row by row, of those alone that are asked for;
            it may write into the rows. None: they are as they were made.
    """

    def __init__(
        self,
        shape: Sequence[int],
        make: Callable[[slice, torch.Generator], Tensor],
        rng: torch.Generator,
        finish: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        self.shape, self.ndim = torch.Size(shape), len(shape)
        self.make, self.state, self.finish = make, rng.get_state(), finish

    @classmethod
    def of(cls, vectors: "Vectors", finish: Callable[[Tensor, Tensor], Tensor]) -> "Made":
        """Return vectors, stored or made, of which each row that is asked for is finished."""
        if not isinstance(vectors, Made):
            return cls(vectors.shape, lambda rows, rng: vectors[rows], torch.Generator(), finish)
        rng = torch.Generator()
        rng.set_state(vectors.state)
        return cls(vectors.shape, vectors.make, rng, finish)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> Tensor:
        wanted = torch.arange(len(self))[rows]
        found = torch.empty(*wanted.shape, *self.shape[1:])
        for place, part in zip(row_slices(self.shape), self.raw(), strict=True):
            inside = (wanted >= place.start) & (wanted < place.stop)
            found[inside] = part[wanted[inside] - place.start]
            if not (wanted >= place.stop).any():
                break
        return self.finished(found.view(-1, *self.shape[1:]), wanted.view(-1)).view_as(found)

    def parts(self) -> Iterator[Tensor]:
        """Yield all rows, a few at a time."""
        made = zip(row_slices(self.shape), self.raw(), strict=True)
        return (self.finished(part, torch.arange(rows.start, rows.stop)) for rows, part in made)

    def raw(self) -> Iterator[Tensor]:
        """Yield all rows, a few at a time, not yet finished."""
        rng = torch.Generator()
        rng.set_state(self.state)
        return (self.make(rows, rng) for rows in row_slices(self.shape))

    def finished(self, rows: Tensor, numbers: Tensor) -> Tensor:
        """Return rows as they are given out."""
        return self.finish(rows.clone(), numbers) if self.finish else rows


Vectors = Tensor | Rows | Made


def row_slices(shape: Sequence[int], most: int | None = None, values: int | None = None) -> Iterator[slice]:
    """Yield the rows of `(M, ...)` in slices of at most `values` (default: `VALUES`), and `most` rows, or one."""
    count, size = shape[0], max(1, torch.Size(shape[1:]).numel())
    each = max(1, min((values or VALUES) // size, most or count))
    return (slice(start, min(start + each, count)) for start in range(0, count, each))


def parts(vectors: Vectors, most: int | None = None) -> Iterator[Tensor]:
    """Yield all vectors, a few at a time: at most `VALUES` values, and of those in storage at most `most` rows."""
    if isinstance(vectors, Made):
        return vectors.parts()
    return (vectors[rows] for rows in row_slices(vectors.shape, most))


def pieces(vectors: Vectors, rows: slice | None = None) -> Iterator[Tensor | Rows]:
    """Yield all vectors or some successive ones: those in storage unread and all at once, the made a few at a time."""
    rows = rows or slice(0, len(vectors))
    if not isinstance(vectors, Made):
        yield vectors.some(rows) if isinstance(vectors, Rows) else vectors[rows]
        return
    numbers = torch.arange(len(vectors))
    for place, part in zip(row_slices(vectors.shape), vectors.raw(), strict=True):
        inside = slice(max(rows.start - place.start, 0), rows.stop - place.start)
        if len(part[inside]):
            yield vectors.finished(part[inside], numbers[place][inside])
        if place.stop >= rows.stop:
            return


def moved(vectors: Tensor | Rows | Joined, rows: slice, device: torch.device) -> Tensor:
    """Return some of the vectors `(M, ...)` on a device, read from storage a few at a time."""
    found = torch.empty([len(range(len(vectors))[rows]), *vectors.shape[1:]], device=device)
    for part in row_slices(found.shape):
        block = vectors[rows.start + part.start : rows.start + part.stop]
        found[part] = brought(torch.stack(list(block)) if isinstance(block, Joined) else block, device)
    return found


def column_blocks(*vectors: Tensor | Rows) -> Iterator[slice]:
    """Yield the columns of `(N, P)`, or of several such, in slices of at most half of `VALUES` values in all."""
    each, size = max(1, VALUES // 2 // max(1, sum(map(len, vectors)))), vectors[0].shape[1]
    return (slice(start, min(start + each, size)) for start in range(0, size, each))


def along_columns(function: Callable[[Tensor], Tensor], vectors: Tensor | Rows) -> Tensor:
    """Return what a function makes of `(N, P)` column by column `(P,)`, block by block."""
    return torch.cat([function(vectors[:, place]) for place in column_blocks(vectors)])


def mean(vectors: Tensor | Rows) -> Tensor:
    """Return the average vector `(P,)`."""
    return along_columns(lambda block: block.mean(0), vectors)


class Deviations:
    """The standard deviation of each coordinate, in double precision, of vectors that come a few at a time."""

    def __init__(self):
        self.count = 0

    def add(self, part: Tensor) -> None:
        """Take in vectors `(M, P)`."""
        if not self.count:
            self.first = part[0].clone()
            self.total, self.squares = torch.zeros(2, len(self.first), dtype=torch.float64, device=part.device)
        for row in part:
            difference = (row - self.first).double()
            self.total += difference
            self.squares.addcmul_(difference, difference)
        self.count += len(part)

    def result(self) -> Tensor:
        """Return it `(P,)`; 0 for a single vector."""
        variance = (self.squares - self.total.square() / self.count) / max(self.count - 1, 1)
        return variance.clamp(min=0).sqrt()


def deviations(vectors: Vectors) -> Tensor:
    """Return the standard deviation of each coordinate `(P,)`, in double precision; 0 for a single vector."""
    found = Deviations()
    for part in parts(vectors):
        found.add(part)
    return found.result()


def relative_width(own: float, reference: float) -> float:
    """Return a mean standard deviation per coordinate over that of the trained vectors.

    1 means as wide as the trained ones, 0 a single point. Trained vectors that never differ give 1 when these
    do not differ either, else infinity.
    """
    if reference == 0:
        return 1.0 if own == 0 else float("inf")
    return own / reference
