"""Units that change places, and units that are scaled: tensors of the same function."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pdiff.weights.layout import Layout
from pdiff.weights.units import Gain, Group, Place


def views(layout: Layout, vectors: Tensor) -> dict[str, Tensor]:
    """Return the tensors in vectors `(..., P)`, each `(..., *shape)` and sharing their memory, in the vector's code."""
    return {e.name: vectors[..., e.slice].unflatten(-1, e.shape or (1,)) for e in layout}


def flat(layout: Layout, tensors: Mapping[str, Tensor], lead: int) -> Tensor:
    """Return the vectors `(..., P)` that tensors with `lead` axes before their own are the `views` of."""
    return torch.cat([tensors[name].flatten(lead) for name in layout.names], lead)


def moved(place: Place, tensor: Tensor, permutation: Tensor, lead: int = 0) -> Tensor:
    """Return a tensor in which the units of one place have changed places; see `permute`."""
    order = torch.arange(tensor.shape[place.axis + lead])
    order[place.entries.flatten()] = place.entries[permutation].flatten()
    return tensor.index_select(place.axis + lead, order)


def permute(
    tensors: Mapping[str, Tensor], groups: Sequence[Group], permutations: Sequence[Tensor], lead: int = 0
) -> dict[str, Tensor]:
    """Return tensors whose units have changed places: unit i of each group is what unit `permutation[i]` was.

    Args:
        tensors: by name; those at no place are returned as they are.
        groups: the units.
        permutations: `(n,)` for each group.
        lead: number of axes that each tensor has before its own, as a stack of networks does.
    """
    tensors = dict(tensors)
    for group, permutation in zip(groups, permutations, strict=True):
        for place in group.places:
            tensors[place.tensor] = moved(place, tensors[place.tensor], permutation, lead)
    return tensors


def scaled(place: Place, tensor: Tensor, factors: Tensor, lead: int = 0) -> Tensor:
    """Return a tensor in which each unit of one place is multiplied by its factor `(n,)`, or `(M, n)` with a lead."""
    axis, size = place.axis + lead, tensor.shape[place.axis + lead]
    along = factors.new_ones(*factors.shape[:-1], size)
    along[..., place.entries.flatten()] = factors.repeat_interleave(place.entries.shape[1], -1)
    shape = [1] * tensor.ndim
    shape[: along.ndim - 1], shape[axis] = along.shape[:-1], size
    return tensor * along.reshape(shape)


def scale(
    tensors: Mapping[str, Tensor], gains: Sequence[Gain], factors: Sequence[Tensor], lead: int = 0
) -> dict[str, Tensor]:
    """Return tensors whose units are multiplied by their factors where they are made, and divided where they are read.

    Args:
        tensors: by name.
        gains: the units.
        factors: `(n,)` for each gain, above 0; with one leading axis also `(M, n)`.
        lead: number of axes that each tensor has before its own.
    """
    tensors = dict(tensors)
    for gain, own in zip(gains, factors, strict=True):
        for place in gain.made:
            tensors[place.tensor] = scaled(place, tensors[place.tensor], own, lead)
        for place in gain.read:
            tensors[place.tensor] = scaled(place, tensors[place.tensor], 1 / own, lead)
    return tensors
