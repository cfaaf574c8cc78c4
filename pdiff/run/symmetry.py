"""Declared symmetries: how the network for one condition becomes, without any training, the one for another.

Two conditions that a symmetry turns into each other are one piece of news. They belong on one side of the split.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.registry import Registry
from torch import Tensor

from pdiff.runtime.errors import PdiffError, known
from pdiff.runtime.registry import build
from pdiff.weights.conditions import Conditions
from pdiff.weights.layout import Layout

SYMMETRIES = Registry("symmetry", scope="pdiff", locations=["pdiff.run.symmetry"])


@dataclass(frozen=True)
class Symmetry:
    """A map of conditions, its own inverse, and what it does to the parameters.

    Attributes:
        name: as in the config.
        condition: from values of conditions `(M, C)` to those of their images.
        vector: from vectors `(M, P)`, each for its condition, to vectors for the images of these.
    """

    name: str
    condition: Callable[[Tensor], Tensor]
    vector: Callable[[Tensor], Tensor]

    def image(self, conditions: Conditions) -> Conditions:
        """Return what the symmetry turns conditions into."""
        return Conditions(conditions.names, self.condition(conditions.values))


@SYMMETRIES.register_module(name="complement")
def complement(layout: Layout, swap: Sequence[str] = ()) -> Symmetry:
    """Return the symmetry of a subset and its complement: every bit is turned round, and two outputs change places.

    Args:
        layout: of a vector.
        swap: selected tensors whose first axis is the two outputs.
    """
    entries = {entry.name: entry for entry in layout}
    for name in swap:
        if name not in entries:
            raise PdiffError(f"fit.symmetry.swap: got {name!r}, which is not selected. {known(name, entries)}")
        if not entries[name].shape or entries[name].shape[0] != 2:
            shape = entries[name].shape
            raise PdiffError(f"fit.symmetry.swap: got {name!r} of shape {shape}, expected two rows, one an output.")

    def swapped(vectors: Tensor) -> Tensor:
        vectors = vectors.clone()
        for name in swap:
            place = entries[name].slice
            vectors[:, place] = vectors[:, place].unflatten(1, (2, -1)).flip(1).flatten(1)
        return vectors

    def turned(values: Tensor) -> Tensor:
        if not ((values == 0) | (values == 1)).all():
            raise PdiffError(
                "fit.symmetry: got type 'complement' for conditions with other numbers than 0 and 1, expected bits. "
                "Leave it out."
            )
        return 1 - values

    return Symmetry("complement", turned, swapped)


def build_symmetry(cfg: Mapping[str, Any] | None, layout: Layout) -> Symmetry | None:
    """Return the symmetry that a config section describes; None without one."""
    return None if cfg is None else build(SYMMETRIES, cfg, "fit.symmetry", {"layout": layout})
