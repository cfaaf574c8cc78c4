"""Axes of tensors as sums of products of atoms: which entries of which axes are the same units.

An axis is a concatenation of segments, and a segment the product of atoms, the outermost first: the axis of a flattened
map is (channels, rows, columns). An atom is replaced by others when it turns out to be the same units as these, or to
consist of smaller ones; whoever holds it sees that at the next `resolve`.
"""

import math
from collections.abc import Iterable, Sequence


class Atom:
    """Units that move together.

    Args:
        size: their number.
        pinned: whether they keep their order (or their scale); the name of the tensor they owe it to, if it is one.
    """

    def __init__(self, size: int, pinned: bool | str = False):
        self.size = size
        self.pinned = pinned
        self.inner = False  # whether it is repeated for every unit of another, so that a part of it is no range
        self.became: Axis | None = None

    def leaves(self) -> "Axis":
        """Return what the atom has become."""
        if self.became is None:
            return ((self,),)
        self.became = resolve(self.became)
        return self.became

    def replace(self, axis: "Axis") -> None:
        """Let other atoms stand for this one; they inherit what it may not."""
        for segment in axis:
            for place, atom in enumerate(segment):
                atom.pinned = atom.pinned or self.pinned
                atom.inner |= self.inner or place > 0
        self.became = axis


Segment = tuple[Atom, ...]
Axis = tuple[Segment, ...]
ONE: Axis = ((),)  # an axis of one entry


def whole(size: int, pinned: bool | str = False) -> Axis:
    """Return an axis of new units."""
    return ONE if size == 1 else ((Atom(size, pinned),),)


def resolve(axis: Axis) -> Axis:
    """Return an axis in the atoms that stand today."""
    found: list[Segment] = []
    for segment in axis:
        grown: list[Segment] = [()]
        for atom in segment:
            grown = [before + after for before in grown for after in atom.leaves()]
        found += grown
    return tuple(found)


def extent(segment: Segment) -> int:
    """Return the number of entries of a segment."""
    return math.prod(atom.size for atom in segment)


def length(axis: Axis) -> int:
    """Return the number of entries of an axis."""
    return sum(map(extent, axis))


def pin(*axes: Axis) -> bool:
    """Forbid all units of some axes to move; say whether any could until now."""
    atoms = [atom for axis in axes for segment in resolve(axis) for atom in segment]
    free = any(not atom.pinned for atom in atoms)
    for atom in atoms:
        atom.pinned = atom.pinned or True
    return free


def join(axes: Sequence[Axis]) -> Axis:
    """Return the product of axes, the outermost first, as flattening makes it."""
    first, *others = map(resolve, axes)
    if any(len(axis) > 1 for axis in others):  # what is concatenated within a unit is no range of the whole
        pin(*axes)
        return whole(math.prod(map(length, axes)), pinned=True)
    inner = tuple(atom for axis in others for segment in axis for atom in segment)
    joined = tuple(segment + inner for segment in first)
    for segment in joined:
        for atom in segment[1:]:
            atom.inner = True
    return joined


def unify(first: Axis, second: Axis) -> None:
    """Make two axes the same units; where their lengths, segments or factors do not fit, both are pinned."""
    if length(first) != length(second):
        pin(first, second)
        return
    while _refine(resolve(first), resolve(second)):
        pass


def _refine(first: Axis, second: Axis) -> bool:
    """Take one step towards the same atoms; say whether there may be another."""
    for one, other in zip(first, second, strict=False):
        if extent(one) != extent(other):
            if _cut(*sorted((one, other), key=extent)):
                return True
            pin(first, second)
            return False
        for x, y in zip(one, other, strict=False):
            if x is y:
                continue
            small, large = sorted((x, y), key=lambda atom: atom.size)
            if small.size == large.size:
                y.replace(((x,),))
            elif large.size % small.size == 0:
                large.replace(((Atom(small.size), Atom(large.size // small.size)),))
            else:
                pin(first, second)
                return False
            return True
    return False


def _cut(short: Segment, long: Segment) -> bool:
    """Cut the outermost atom of a segment, so that its first part is as long as another; say if that can be."""
    if not long:
        return False
    first, *others = long
    size, left = divmod(extent(short), extent(tuple(others)))
    if left or first.inner or not 0 < size < first.size:
        return False
    first.replace((*whole(size), *whole(first.size - size)))
    return True


def cut(axis: Axis, sizes: Iterable[int]) -> list[Axis]:
    """Return the parts of an axis with these numbers of entries, which sum to its length."""
    parts = [whole(size) if size else () for size in sizes]
    unify(axis, tuple(segment for part in parts for segment in part))
    return parts


def reshape(axes: Sequence[Axis], shape: Sequence[int]) -> tuple[Axis, ...]:
    """Return the axes of a reshaped tensor of at least one entry (entries in row-major order, as torch has them)."""
    old = [axis for axis in axes if length(axis) > 1]
    new = [size for size in shape if size > 1]
    made: list[Axis] = []
    while old:
        before, after = [old.pop(0)], [new.pop(0)]
        while (entries := math.prod(map(length, before))) != (wanted := math.prod(after)):
            if entries < wanted:
                before.append(old.pop(0))
            else:
                after.append(new.pop(0))
        joined = before[0] if len(before) == 1 else join(before)
        if len(after) > 1:
            parts = [whole(size) for size in after]
            unify(join(parts), joined)
            made += parts
        else:
            made.append(joined)
    left = iter(made)
    return tuple(next(left) if size > 1 else ONE for size in shape)
