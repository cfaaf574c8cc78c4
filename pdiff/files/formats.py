"""What the files of a population are (`checkpoints.format`): each format finds the networks of a zoo.

A format is a function of `pattern` (`checkpoints.files`), `reader`, `names` of the selection if it wants them, and
its own settings.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmengine.registry import Registry
from torch import Tensor

from pdiff.weights.layout import Layout
from pdiff.weights.mapped import Mapped

FORMATS = Registry(
    "format", scope="pdiff", locations=[f"pdiff.files.{name}" for name in ("state_dicts", "ray", "matrix", "adapters")]
)

Cell = float | str | None  # what a zoo says of a network; None where it says nothing


@dataclass(frozen=True)
class Zoo:
    """The N networks that a format finds.

    Attributes:
        origins: where each comes from: a path below their common folder.
        read: from a network's number, names of tensors, and what to do where one is not there: those tensors; it raises
            a `PdiffError` where one is not there.
        columns: what the zoo says of each, N cells by column.
        lineage: which training each is of, where the format knows it.
        kept: what the run must keep of them, JSON values: an export may need it.
        blocks: from a layout and numbers of networks, their vectors `(M, P)`: for a zoo that holds them side by side.
        mapped: from a layout, where all vectors lie as a population has them; None where they do not.
    """

    origins: Sequence[str]
    read: Callable[[int, Sequence[str], str], dict[str, Tensor]]
    columns: Mapping[str, Sequence[Cell]] = field(default_factory=dict)
    lineage: Sequence[str] | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)
    blocks: Callable[[Layout, Sequence[int]], Tensor] | None = None
    mapped: Callable[[Layout], Mapped | None] | None = None

    def __len__(self) -> int:
        return len(self.origins)

    def take(self, rows: Sequence[int]) -> "Zoo":
        """Return some of the networks, in the order of `rows`."""
        if len(rows) == len(self) and all(row == place for place, row in enumerate(rows)):
            return self
        return replace(
            self,
            origins=[self.origins[row] for row in rows],
            read=lambda number, names, otherwise: self.read(rows[number], names, otherwise),
            columns={name: [cells[row] for row in rows] for name, cells in self.columns.items()},
            lineage=None if self.lineage is None else [self.lineage[row] for row in rows],
            blocks=self.blocks and (lambda layout, numbers: self.blocks(layout, [rows[n] for n in numbers])),
            mapped=None,
        )
