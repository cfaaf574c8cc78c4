"""Which vectors the engine was fitted to, and which it has not seen."""

from typing import TYPE_CHECKING

from torch import Tensor

from pdiff.runtime.storage import read_json
from pdiff.weights.vectors import Rows

if TYPE_CHECKING:
    from pdiff.run.run import Run


def without(vectors: Tensor, rows: list[int]) -> Rows:
    """Return all other rows."""
    dropped = set(rows)
    return Rows(vectors, [row for row in range(len(vectors)) if row not in dropped])


def split_population(run: "Run") -> tuple[Rows, Rows]:
    """Return the vectors that the engine was fitted to `(N - H, P)`, and the held-out ones `(H, P)`."""
    rows = read_json(run.directory.folder("fit") / "heldout.json")["rows"]
    vectors = run.population.tensor()
    return without(vectors, rows), Rows(vectors, rows)
