"""Values of a file as the network has them: its shapes, its types, one value for the names of one tensor."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pdiff.files.stored import Found
from pdiff.runtime.errors import PdiffError
from pdiff.weights.memory import viewed
from pdiff.weights.roles import is_counter


def kind_of_number(dtype: torch.dtype) -> str:
    """Return what a type's values are: floating, complex or whole numbers."""
    return "floating" if dtype.is_floating_point else "complex" if dtype.is_complex else "whole"


def same(a: Tensor, b: Tensor) -> bool:
    """Say whether two tensors have the same values, not-a-number where the other has it."""
    if torch.equal(a, b):
        return True
    return a.shape == b.shape and a.is_floating_point() and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def of_type(tensor: Tensor, dtype: torch.dtype, what: str, cast: bool, option: str) -> Tensor:
    """Return a tensor in another type.

    Args:
        tensor: of any type.
        dtype: the network's.
        what: file and name, for error lines.
        cast: whether values may be rounded.
        option: that would allow it.

    Raises:
        PdiffError: the type does not have the tensor's values.
    """
    if tensor.dtype == dtype:
        return tensor
    kinds = kind_of_number(tensor.dtype), kind_of_number(dtype)
    found, expected = (str(t).removeprefix("torch.") for t in (tensor.dtype, dtype))
    if kinds[0] != kinds[1] and tensor.ndim:
        quantized = " It may be quantized: give the checkpoint before that." if kinds == ("whole", "floating") else ""
        raise PdiffError(f"{what} is {found}, expected {kinds[1]} numbers like the network's {expected}.{quantized}")
    turned = tensor.to(dtype)
    wide = torch.float64 if kinds == ("floating", "floating") else tensor.dtype
    if same(turned.to(wide), tensor.to(wide)):
        return turned
    if kinds != ("floating", "floating"):
        raise PdiffError(f"{what} is {found}, with values that the network's {expected} does not have. Mend the file.")
    if not torch.equal(turned.isfinite(), tensor.isfinite()):
        raise PdiffError(f"{what} is {found}, with values beyond the network's {expected}. Take a network in {found}.")
    if not cast:
        what = f"{what} is {found}, with values that the network's {expected} does not have"
        raise PdiffError(f"{what}. Set {option}=true to round them.")
    return turned


def loaded(found: Found, file: str) -> Tensor:
    """Return a tensor of a file, or raise a `PdiffError` where its values are not there."""
    try:
        return found.tensor.load()
    except Exception as error:  # of the file, of its format, of torch
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PdiffError(f"{file}: {found.path!r} cannot be read ({reason}): the file is damaged or corrupt.") from None


def value(found: Found, own: Tensor, file: str, cast: bool, option: str) -> Tensor:
    """Return a tensor of a file in the network's shape and type.

    Raises:
        PdiffError: it is sparse or the like, has another shape, or values that the network's type does not have.
    """
    stored, what = found.tensor, f"{file}: {found.path!r}"
    if stored.kind:
        raise PdiffError(f"{what} is {stored.kind}, expected a plain tensor. Save it as one.")
    shape = tuple(own.shape)
    if stored.shape != shape and (stored.shape, shape) != ((1,), ()):
        words = f"{what} has the shape {stored.shape}, expected {shape}"
        raise PdiffError(f"{words} as the network has it. Give a file of this network, or the network of the file.")
    return of_type(loaded(found, file).reshape(shape), own.dtype, what, cast, option)


def tie(
    values: Mapping[str, Tensor],
    placed: Mapping[str, Found],
    first: Mapping[str, str],
    own: Mapping[str, Tensor],
    file: str,
) -> dict[str, Tensor]:
    """Return the values with those of every name that a tensor has beside the one in the file.

    Args:
        values: tensors by the network's names.
        placed: where they stand in the file.
        first: the first name of the tensor of each name of the network.
        own: the network's tensors, of which a tied one may be a view of another, transposed say.
        file: for the error line.

    Raises:
        PdiffError: the file has two values for one tensor.
    """
    given: dict[str, str] = {}
    for name, tensor in values.items():
        other = given.setdefault(first[name], name)
        if name in placed and other in placed and not same(viewed(values[other], own[other], own[name]), tensor):
            both = f"{placed[other].path!r} and {placed[name].path!r}"
            raise PdiffError(f"{file}: {both} differ, but are one tensor in the network. Give a file of this network.")
    sources = {name: given[one] for name, one in first.items() if one in given}
    return {name: viewed(values[source], own[source], own[name]) for name, source in sources.items()}


def counters(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's own counters where the file has others of a module's tensors, but not these."""
    modules = {name.rpartition(".")[0] for name in values}
    return {
        name: tensor.detach().clone()
        for name, tensor in state.items()
        if name not in values and is_counter(tensor) and (name.rpartition(".")[0] in modules or not modules)
    }


def through_hooks(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a network makes of tensors with names that only its own loading knows, by its present names.

    Args:
        network: a copy, which is loaded.
        tensors: of the file.
    """
    try:
        missing = set(network.load_state_dict(dict(tensors), strict=False).missing_keys)
    except RuntimeError:  # shapes that do not fit
        return {}
    return {name: tensor.clone() for name, tensor in network.state_dict().items() if name not in missing}
