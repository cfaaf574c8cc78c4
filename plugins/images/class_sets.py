"""Conditions that are sets of classes, a bit for each class: drawn at random, or named."""

import random
from collections.abc import Sequence
from math import comb
from typing import Any

import torch

from pdiff import Conditions, PdiffError, derive_seed, known

PREFIX = "classes."
SUBSETS, SIZE = "collect.conditions.subsets", "collect.conditions.size"


def count_sets(subsets: Any) -> int:
    """Return how many sets a setting asks for; raise a `PdiffError` unless it is a number or lists of class names."""
    named = isinstance(subsets, list | tuple)
    if named and subsets and all(isinstance(classes, list | tuple) for classes in subsets):
        return len(subsets)
    if named or isinstance(subsets, bool) or not isinstance(subsets, int) or subsets < 1:
        got = list(subsets) if named else subsets
        line = f"{SUBSETS}: got {got!r}, expected how many sets to draw, or a list of lists of class names."
        raise PdiffError(f"{line} Write 120, or [[cat], [cat, dog]].")
    return subsets


def class_sets(names: Sequence[str], seed: int, subsets: int | list, size: list | None = None) -> Conditions:
    """Return sets of classes as conditions `(M, C)` named `classes.<name>`.

    Args:
        names: of the C classes.
        seed: of the run.
        subsets: how many to draw, each at most once, all sets of these sizes equally likely; they come sorted by size.
            Or the sets themselves, lists of class names, which keep their order.
        size: the fewest and the most classes of a drawn set; default: from 1 to all.

    Raises:
        PdiffError: there are not so many sets, or one that is named is empty, is there twice or has an unknown class.
    """
    count, names = count_sets(subsets), [str(name) for name in names]
    if isinstance(subsets, int):
        chosen = draw_sets(len(names), seed, count, size)
    elif size is None:
        chosen = named_sets(names, subsets)
    else:
        raise PdiffError(f"{SIZE}: got {size!r} beside sets that are named, expected null. Leave it out.")
    bits = torch.zeros(count, len(names))
    for row, places in enumerate(chosen):
        bits[row, places] = 1
    return Conditions([f"{PREFIX}{name}" for name in names], bits)


def draw_sets(classes: int, seed: int, count: int, size: Any) -> list[list[int]]:
    """Return sets drawn without replacement, each in order, the small ones first."""
    least, most = sizes(classes, size)
    ways = {number: comb(classes, number) for number in range(least, most + 1)}
    total = sum(ways.values())
    if count > total:
        line = f"{SUBSETS}: got {count}, but of {classes} classes there are {total} sets of {least} to {most}."
        raise PdiffError(f"{line} Ask for at most {total}.")
    rng, drawn = random.Random(derive_seed(seed, "class sets")), set()
    while len(drawn) < count:
        rest = rng.randrange(total)
        for number, several in ways.items():
            if rest < several:
                drawn.add(tuple(sorted(rng.sample(range(classes), number))))
                break
            rest -= several
    return [list(places) for places in sorted(drawn, key=lambda places: (len(places), places))]


def sizes(classes: int, size: Any) -> tuple[int, int]:
    """Return the fewest and the most classes of a set."""
    if size is None:
        return 1, classes
    integers = isinstance(size, list | tuple) and len(size) == 2 and all(type(number) is int for number in size)
    if not integers or not 1 <= size[0] <= size[1] <= classes:
        rule = f"expected the fewest and the most classes of a set, two integers from 1 to {classes} in order"
        raise PdiffError(f"{SIZE}: got {size!r}, {rule}. Change it.")
    return size[0], size[1]


def named_sets(names: Sequence[str], subsets: Sequence[Sequence[Any]]) -> list[list[int]]:
    """Return the places of the classes of each set; a number stands for the class of that name."""
    chosen: list[list[int]] = []
    for row, classes in enumerate(subsets):
        where = f"{SUBSETS}[{row}]"
        if not classes:
            raise PdiffError(f"{where}: got an empty set, expected some classes. Leave it out.")
        for name in map(str, classes):
            if name not in names:
                raise PdiffError(f"{where}: got the class {name!r}. {known(name, names)}")
        places = sorted({names.index(str(name)) for name in classes})
        if len(places) < len(classes):
            raise PdiffError(f"{where}: got {list(classes)!r}, expected each class once. Leave one out.")
        if places in chosen:
            raise PdiffError(f"{where}: got the set of number {chosen.index(places)} again. Leave one of them out.")
        chosen.append(places)
    return chosen


def members(names: Sequence[str], conditions: Conditions) -> list[list[int]]:
    """Return for each condition the places of its classes in `names`, in order.

    Raises:
        PdiffError: the conditions have other names, a value that is neither 0 nor 1, or one is of no class.
    """
    expected = tuple(f"{PREFIX}{name}" for name in names)
    if conditions.names != expected:
        got = ", ".join(conditions.names)
        raise PdiffError(f"condition: got the names {got}, expected {', '.join(expected)}. Give a bit for each class.")
    if not conditions.binary:
        odd = next(value for value in conditions.values.flatten().tolist() if value not in (0, 1))
        raise PdiffError(f"condition: got {odd:g} for a class, expected 0 or 1. Say which classes are in the set.")
    found = [row.nonzero().flatten().tolist() for row in conditions.values]
    if [] in found:
        raise PdiffError(f"condition: got the set of no class, expected some of {', '.join(names)}. Name one.")
    return found
