"""Which names of a network are one tensor: those of one memory, as the same parameter or as views of all of its values.

Everywhere else such a tensor goes by the first of its names.
"""

from collections.abc import Collection, Hashable, Iterable, Mapping
from itertools import product

from torch import Tensor, nn

from pdiff.runtime.errors import PdiffError
from pdiff.weights.memory import memory_of, share, viewed


def first_of_each(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return for every name the first name of its tensor, which is another for a tied one."""
    first: dict[Hashable, str] = {}
    return {name: first.setdefault(memory_of(tensor), name) for name, tensor in tensors.items()}


def first_names(model: nn.Module) -> dict[str, str]:
    """Return for every name of the state dict the first name of its tensor, which is another for a tied one."""
    return first_of_each(model.state_dict(keep_vars=True))


def state_names(model: nn.Module) -> list[str]:
    """Return every name of the state dict once, tied tensors under their first name."""
    return list(dict.fromkeys(first_names(model).values()))


def frozen_names(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Return the names of the state dict whose tensors are not among `names`, under whatever name."""
    first = first_names(model)
    selected = {first.get(name, name) for name in names}
    return [name for name in first if first[name] not in selected]


def equal(one: Tensor, other: Tensor) -> bool:
    """Say whether two tensors have the same shape and values, a NaN in both included."""
    if one.shape != other.shape:
        return False
    other = other.to(one.device)
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def merged(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return tensors by name, those of the network's tied tensors under the first of their names.

    Args:
        model: the network.
        tensors: some of its tensors, and others, which stay as they are.
        where: whose they are, for the error line.

    Raises:
        PdiffError: two names of one tensor have different values.
    """
    own = model.state_dict(keep_vars=True)
    first, found, source = first_of_each(own), {}, {}
    for name, tensor in tensors.items():
        kept = first.get(name, name)
        value = viewed(tensor, own[name], own[kept]) if kept != name else tensor
        if kept in found and not equal(found[kept], value):
            raise PdiffError(
                f"{where}: {source[kept]!r} and {name!r} differ, though they are one tensor of the network. "
                "Build the network without this tie, or give both the same values."
            )
        found.setdefault(kept, value)
        source.setdefault(kept, name)
    return found


def spread(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors, of which tied ones are there by their first names, with those under their other names too."""
    own = model.state_dict(keep_vars=True)
    aliases = {name: kept for name, kept in first_of_each(own).items() if name not in tensors and kept in tensors}
    return {**tensors, **{name: viewed(tensors[kept], own[kept], own[name]) for name, kept in aliases.items()}}


def partly_shared(model: nn.Module, names: Collection[str]) -> tuple[str, str] | None:
    """Return a selected tensor and the one, maybe itself, with which it shares a part of its memory; None without.

    Args:
        model: the network.
        names: the selection, by first names.
    """
    own, storages = model.state_dict(keep_vars=True), {}
    for name in dict.fromkeys(first_of_each(own).values()):
        if not isinstance(memory_of(own[name]), int):
            storages.setdefault(own[name].untyped_storage().data_ptr(), []).append(name)
    pairs = (pair for together in storages.values() for pair in product(together, together) if pair[0] in names)
    return next((pair for pair in pairs if share(own[pair[0]], own[pair[1]])), None)
