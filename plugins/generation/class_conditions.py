"""Conditions of image generation: sets of the classes that the images are to show (`collect.conditions`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from pdiff_plugins.generation.fid import least_images
from pdiff_plugins.images.class_sets import class_sets, count_sets
from pdiff_plugins.images.data import Split

from pdiff import Conditions, PdiffError, call, check_section

KIND = "classes"


def sets_of_classes(
    names: Sequence[str], seed: int, type: str, subsets: int | list, size: list | None = None
) -> Conditions:
    """Return the sets of classes that networks are made for.

    Args:
        names: of the classes.
        seed: of the run.
        type: `classes`, the one kind there is.
        subsets: how many sets to draw, or the sets themselves: lists of class names.
        size: the fewest and the most classes of a set that is drawn; null: from 1 to all.
    """
    if type != KIND:
        line = f"got {type!r}, expected {KIND!r}, as images have nothing else that they could be for. Change it."
        raise PdiffError(f"collect.conditions.type: {line}")
    return class_sets(names, seed, subsets, size)


def number_of_sets(conditions: Mapping[str, Any]) -> int:
    """Return how many sets of classes there are, from the config section alone."""
    check_section(conditions, "collect.conditions")
    return count_sets(conditions.get("subsets"))


def class_names(split: Split) -> list[str]:
    """Return the names of the classes, in the order of the labels: their numbers where the data have no names."""
    return list(split.names) or [str(label) for label in range(split.classes)]


def table_of(conditions: Mapping[str, Any], split: Split, seed: int) -> Conditions:
    """Return the sets of classes that the config section describes."""
    return call(sets_of_classes, conditions, "collect.conditions", names=class_names(split), seed=seed)


def check_images(sets: Sequence[Sequence[int]], splits: Mapping[str, Split]) -> None:
    """Raise a `PdiffError` for a set with a class of which a split has no image.

    Args:
        sets: the labels of each set's classes.
        splits: by name.
    """
    for name, split in splits.items():
        there = set(split.labels.tolist())
        for label in sorted({label for labels in sets for label in labels}):
            if label not in there:
                words = f"got a set with the class {class_names(split)[label]!r}, expected images of it in every split"
                raise PdiffError(f"collect.conditions: {words}, but {name} has none. Leave it out, or give some.")


def check_counts_of_sets(sets: Sequence[Sequence[int]], split: Split, name: str, size: int, groups: int) -> None:
    """Raise a `PdiffError` for a set with too few real images for the FID.

    Args:
        sets: the labels of each set's classes.
        split: real images.
        name: of the split.
        size: number of features F.
        groups: of the jackknife; 0 without it.
    """
    least, words = least_images(size, groups)
    counts = split.labels.bincount(minlength=split.classes)
    number, smallest = min(((int(counts[list(labels)].sum()), labels) for labels in sets), key=lambda pair: pair[0])
    if number < least:
        shown = " ".join(class_names(split)[label] for label in smallest)
        raise PdiffError(
            f"collect.conditions: the set {shown} has {number} real images in the split {name}, too few for the FID, "
            f"expected at least {least} for {words}. Lower task.features.size or task.groups, or raise the split's "
            "number of images or the least collect.conditions.size."
        )
