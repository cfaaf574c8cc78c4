"""One operation of a pass through a network, as the rules see it: axes in the place of tensors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pdiff.canonical.axes import Axis, length, pin, whole


@dataclass(frozen=True)
class Value:
    """A tensor somewhere in a pass.

    Attributes:
        axes: one for each dimension.
        parameter: the name of the network's tensor that it is, if it is one.
    """

    axes: tuple[Axis, ...]
    parameter: str | None = None


def pinned(like: Any, by: bool | str = True) -> Any:
    """Return values whose units keep their order for tensors in nested sequences; None for all else.

    Args:
        like: tensors; a size that depends on data counts as 0, which no other size is.
        by: the name of the tensor that they owe it to, if it is one.
    """
    if isinstance(like, Tensor):
        return Value(tuple(whole(size if isinstance(size, int) else 0, by) for size in like.shape))
    return [pinned(part, by) for part in like] if isinstance(like, list | tuple) else None


def fits(value: Any, like: Any) -> bool:
    """Say whether values have the shapes of tensors in nested sequences."""
    if isinstance(like, Tensor):
        return isinstance(value, Value) and list(map(length, value.axes)) == list(like.shape)
    if isinstance(like, list | tuple):
        return len(value) == len(like) and all(map(fits, value, like))
    return True


@dataclass(frozen=True)
class Call:
    """One operation.

    Attributes:
        name: without its overload and without the underscore of what is done in place.
        given: its arguments by their names in torch's schema, tensors as values; those left out have their default.
        result: what it returns, as tensors without memory.
        scale: whether units are scaled; else they are permuted.
        inplace: whether it writes into its first argument.
    """

    name: str
    given: dict[str, Any]
    result: Any
    scale: bool
    inplace: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.given.get(name)

    def values(self) -> Iterator[Value]:
        """Yield the tensors among the arguments."""
        yield from _values(list(self.given.values()))

    @property
    def first(self) -> Value:
        """The first tensor among the arguments."""
        return next(self.values())

    def pin(self) -> bool:
        """Pin all that the operation touches; say whether any of it was free."""
        return pin(*(axis for value in self.values() for axis in value.axes))

    def dimensions(self, dims: int | Sequence[int] | None, of: Value) -> list[int]:
        """Return dimensions counted from the first; all of them where none is named."""
        if dims is None or dims == []:
            return list(range(len(of.axes)))
        return [dim % len(of.axes) for dim in ([dims] if isinstance(dims, int) else dims)]


def _values(given: Any) -> Iterator[Value]:
    if isinstance(given, Value):
        yield given
    elif isinstance(given, list | tuple):
        for part in given:
            yield from _values(part)
