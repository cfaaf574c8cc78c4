"""Which tensors move together when the units of a layer change places, or are scaled.

The hidden units of a network (neurons, channels, attention heads) may be permuted, and behind a positively homogeneous
activation such as ReLU scaled, without a change of the function, if all tensors that touch them change along.
"""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Place:
    """Where the units of a group stand along one axis of a tensor.

    Attributes:
        tensor: its name.
        axis: of the tensor.
        entries: which entries of the axis belong to each unit, in the same order for every unit `(n, k)`; int64. Of a
            plain layer `[[0], [1], ...]`; of the inputs of a layer behind a flattened map of k pixels, k for each.
    """

    tensor: str
    axis: int
    entries: Tensor


@dataclass(frozen=True)
class Group:
    """n units that may change places, and all places where they stand.

    Attributes:
        name: for people: the tensor that first makes the units.
        size: n.
        places: where the units stand; all are selected.
    """

    name: str
    size: int
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Gain:
    """n units, each of which may be multiplied by a positive number where it is made, divided by it where it is read.

    Attributes:
        name: for people: the tensor that makes the units.
        size: n.
        made: places that are multiplied.
        read: places that are divided.
    """

    name: str
    size: int
    made: tuple[Place, ...]
    read: tuple[Place, ...]


@dataclass(frozen=True)
class Symmetries:
    """What may change in a selection without a change of the function.

    Attributes:
        groups: in the order of a forward pass.
        gains: in the order of a forward pass.
        notes: why units that might have been free are not, one line each, for whoever wonders.
    """

    groups: tuple[Group, ...]
    gains: tuple[Gain, ...] = ()
    notes: tuple[str, ...] = field(default=())
