"""How far vectors lie from the trained ones that they are not akin to, whatever the order of their units.

Where the trained vectors are in canonical form, a distance is that to the nearest of a network's permuted copies. It is
looked for among the nearest few lineages: the candidate is brought into canonical form by itself, then into the order
of units that is nearest to each of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.weights.gram import MOST
from pdiff.weights.vectors import CPU, VALUES, Rows, brought, column_blocks

if TYPE_CHECKING:
    from pdiff.canonical.form import Form

LINEAGES = 4  # that a vector is brought into the order of, at most
MATCHED = 2**21  # values of all of these together: larger networks have fewer, and the largest keep the order they have
LARGEST = 1e18  # norm whose square float32 can hold; what has none has no order of units


@dataclass(frozen=True)
class Neighbours:
    """The trained vectors that others are held against.

    Attributes:
        trained: `(N, P)`.
        kin: number of what each of them is akin to `(N,)`: a vector that is one of them leaves these out.
        form: the canonical form that they are in; None where units keep their order.
        device: that computes distances, of vectors on the CPU.
    """

    trained: Tensor | Rows
    kin: NDArray
    form: "Form | None" = None
    device: torch.device = CPU

    @property
    def tried(self) -> int:
        """How many lineages a vector is brought into the order of; 0 where units keep theirs."""
        return 0 if self.form is None else min(LINEAGES, MATCHED // self.trained.shape[1])

    def distances(self, vectors: Tensor | Rows, kin: NDArray | None = None) -> Tensor:
        """Return each vector's distance `(M,)` to the nearest trained one.

        Args:
            vectors: `(M, P)`.
            kin: of each, where they are trained ones themselves `(M,)`; None for others.
        """
        if not self.tried and len(self.trained) <= MOST:  # unread, however long they are
            return self.table(vectors, kin).min(1).values
        return torch.cat([distance for _, distance in self.met(vectors, kin)])

    def aligned(self, vectors: Tensor | Rows, kin: NDArray | None = None) -> Tensor | Rows:
        """Return vectors `(M, P)`, each in the order of units that is nearest to a trained one; see `distances`."""
        return vectors if not self.tried else torch.cat([moved for moved, _ in self.met(vectors, kin)])

    def met(self, vectors: Tensor | Rows, kin: NDArray | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield vectors in the order of units that is nearest to a trained one, and their distance, a few at a time."""
        each = max(1, VALUES // 8 // max(self.trained.shape))
        for start in range(0, len(vectors), each):
            part, own = vectors[start : start + each], None if kin is None else kin[start : start + each]
            told = part.norm(dim=1) < LARGEST  # a NaN is not
            if not self.tried or not told.any():
                yield part, self.nearest(part, self.table(part, own))[1]
                continue
            if own is None:
                part = part.clone()
                part[told] = self.form.apply(part[told], None)
            yield self.turned(part, told, self.table(part, own))

    def table(self, part: Tensor | Rows, kin: NDArray | None) -> Tensor:
        """Return the distances `(m, N)` of vectors to the trained ones; infinite to those they are akin to."""
        table = distances(part, self.trained, self.device)
        return table if kin is None else table.masked_fill(torch.from_numpy(kin[:, None] == self.kin), torch.inf)

    def nearest(self, part: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Return which trained vector is the nearest to each `(m,)`, by a table, and its distance.

        In the table small distances are lost where there are many trained ones; see `distances`.
        """
        distance, rows = table.min(1)
        if len(self.trained) <= MOST:
            return rows, distance
        found = (part - self.trained[rows]).double().norm(dim=1).to(distance)
        return rows, torch.where(distance.isfinite(), found, distance)

    def turned(self, part: Tensor, told: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors `(m, P)` in the order that is nearest to one of the nearest lineages, and the distance.

        Args:
            part: vectors in canonical form.
            told: those that have an order of units `(m,)`.
            table: their distances to the trained ones `(m, N)`.
        """
        rows, nearest = self.nearest(part, table)
        best = part
        for _ in range(self.tried):
            own = told & table.gather(1, rows[:, None])[:, 0].isfinite()
            targets, moved = self.trained[rows], part.clone()
            moved[own] = self.form.onto(part[own], targets[own])
            distance = (moved - targets).double().norm(dim=1).to(nearest)
            closer = own & (distance < nearest)
            best, nearest = torch.where(closer[:, None], moved, best), torch.where(closer, distance, nearest)
            table = table.masked_fill(torch.from_numpy(self.kin[rows.numpy()][:, None] == self.kin), torch.inf)
            rows = table.argmin(1)
        return best, nearest


def distances(vectors: Tensor | Rows, trained: Tensor | Rows, device: torch.device = CPU) -> Tensor:
    """Return the Euclidean distances `(M, N)` of vectors `(M, P)` to trained ones `(N, P)`, summed over columns.

    Differences are formed before squaring: the usual expansion into products loses small distances. To more than `MOST`
    trained ones, where that takes too long, products are formed all the same, in double precision, of what is left
    without an average: less than about 1e-7 of the vectors' length is lost. A device computes them block by block; they
    come back to the CPU.
    """
    squares = torch.zeros(len(vectors), len(trained), dtype=torch.float64, device=device)
    for place in column_blocks(vectors, trained):
        own, other = brought(vectors[:, place], device), brought(trained[:, place], device)
        if len(trained) > MOST:
            squares += squared_by_products(own.double(), other.double())
        else:
            squares += torch.cdist(own, other, compute_mode="donot_use_mm_for_euclid_dist").double().square()
    return squares.clamp_(min=0).sqrt().to(vectors.dtype).cpu()


def squared_by_products(own: Tensor, other: Tensor) -> Tensor:
    """Return the squared distances `(M, N)` of `(M, C)` to `(N, C)`; those that vanish may come out below 0."""
    average = other.mean(0)
    own, other = own - average, other - average
    norms = own.square().sum(1, keepdim=True) + other.square().sum(1)
    return norms.addmm_(own, other.T, alpha=-2)
