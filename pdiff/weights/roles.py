"""What of a network's tensors is no free real number: what counts, and what is positive.

A counter says nothing of what a network does, and its values dwarf all others; so it is in no vector, and a network
keeps its own. A variance that is generated as a real number may come out negative, and its root is NaN; so a vector
holds its logarithm.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

POSITIVE = re.compile(r"(?:^|[._])(?:running|moving)_(?:var|variance|std)$")
FLOOR = 1e-5  # what normalisation layers add to a variance; that of a channel that is always 0 has no logarithm


def is_counter(tensor: Tensor) -> bool:
    """Say whether a tensor counts something, such as batches or averaged networks: one integer."""
    return tensor.numel() == 1 and not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def free_names(tensors: Mapping[str, Tensor], names: Iterable[str]) -> list[str]:
    """Return the names of those tensors that have a place in a vector: all but counters, and those that are missing."""
    return [name for name in names if name not in tensors or not is_counter(tensors[name])]


def code_of(name: str, tensor: Tensor) -> str:
    """Return how a vector holds a tensor: `log` for a running variance or deviation, by its name; else as it is."""
    return "log" if POSITIVE.search(name) and tensor.is_floating_point() else ""


def encode(tensor: Tensor) -> Tensor:
    """Return log(v + `FLOOR`) of values that are not negative, in double precision."""
    return (tensor.double() + FLOOR).log()


def decode(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the values whose `encode` is given, at least the smallest and at most the largest number of a dtype."""
    limits = torch.finfo(dtype)
    return (values.double().exp() - FLOOR).clamp(limits.tiny, limits.max).to(dtype)
