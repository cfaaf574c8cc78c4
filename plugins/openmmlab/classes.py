"""Conditions that are sets of classes: those in the set are objects, and all others background."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pdiff_plugins.images.class_sets import class_sets, count_sets, members
from pdiff_plugins.openmmlab.conditions import CONDITIONS, IGNORED, SPLITS, Kind
from pdiff_plugins.openmmlab.wrapped import inside
from torch import Tensor
from torch.utils.data import Dataset

from pdiff import Conditions, PdiffError, known

BACKGROUND = "background"
WHERE = "collect.conditions.background"


@CONDITIONS.register_module(name="classes")
class Classes(Kind):
    """Sets of classes, a bit for each class: only those in the set are objects.

    Args:
        seed: of the run.
        subsets: how many sets to draw, or the sets themselves: lists of class names.
        size: the fewest and the most classes of a set that is drawn; null: from 1 to all.
        background: of segmentation, the class that all others become, which is in no set; null: the one that is called
            background.
    """

    def __init__(self, seed: int, subsets: int | list, size: list | None = None, background: str | None = None):
        self.seed, self.subsets, self.size, self.called = seed, subsets, size, background
        self.count = count_sets(subsets)
        self.places: list[int] = []
        self.names: list[str] = []

    def __len__(self) -> int:
        return self.count

    def bind(self, datasets: Mapping[str, Dataset], counts: Mapping[str, Sequence[int]] | None = None) -> None:
        """Draw the sets from the classes of the data, and check that each split has objects of all their classes."""
        metainfo = datasets["train"].metainfo
        classes = [str(name) for name in metainfo["classes"]]
        segmented = "reduce_zero_label" in metainfo  # which only data sets of label maps say
        if segmented:
            self.background = background_label(classes, self.called)
            check_ignored(datasets)
        elif self.called is not None:
            line = f"{WHERE}: got {self.called!r}, but detectors have no such class. Leave it out."
            raise PdiffError(line)
        else:
            counts = {name: count_objects(datasets[name], len(classes)) for name in SPLITS}
        self.places = [place for place in range(len(classes)) if place != self.background]
        self.names = [classes[place] for place in self.places]
        self.table = class_sets(self.names, self.seed, self.subsets, self.size)
        if counts is not None:
            self.check_objects(counts, "pixel in the label maps that were read" if segmented else "object")

    def check_objects(self, counts: Mapping[str, Sequence[int]], what: str) -> None:
        """Raise a `PdiffError` for a class of a set without objects in a split, where its AP or IoU is not defined."""
        for column in self.table.values.any(0).nonzero().flatten().tolist():
            for split in SPLITS:
                if not counts[split][self.places[column]]:
                    line = f"the class {self.names[column]!r} of a set has no {what} of {split}, expected some in each"
                    remedy = f"Name sets without it, or give {split} images that have it"
                    raise PdiffError(f"collect.conditions.subsets: {line} of {', '.join(SPLITS)}. {remedy}.")

    def labels(self, values: Tensor) -> list[int]:
        """Return the labels of a set `(C,)`."""
        (places,) = members(self.names, Conditions(self.table.names, values[None]))
        return [self.places[place] for place in places]

    def facts(self) -> Mapping[str, Any]:
        """Say what an object is."""
        return {"classes": self.names, "objects": "of a condition's classes; all others are background"}


def background_label(classes: Sequence[str], called: str | None) -> int:
    """Return the label of the class that all others become.

    Args:
        classes: of the data.
        called: its name; None: background, however it is capitalised.
    """
    if called is not None and called not in classes:
        raise PdiffError(f"{WHERE}: got {called!r}. {known(called, classes)}")
    found = [name for name in classes if name == called or (called is None and name.lower() == BACKGROUND)]
    if not found:
        line = f"{WHERE}: got null, but the data have no class called background ({', '.join(classes)})."
        raise PdiffError(f"{line} Name the class that all others become.")
    return classes.index(found[0])


def check_ignored(datasets: Mapping[str, Dataset]) -> None:
    """Raise a `PdiffError` where another label is ignored than the one that stays when others become background."""
    for name, dataset in datasets.items():
        for plain in inside(dataset):
            if plain.ignore_index != IGNORED:
                line = f"task.data: {name} ignores the label {plain.ignore_index}, expected {IGNORED} with conditions"
                raise PdiffError(f"{line}. Write it into the label maps, and leave ignore_index out.")


def count_objects(dataset: Dataset, classes: int) -> np.ndarray:
    """Return how many objects of each class `(classes,)` the images of a detector have, without those ignored."""
    found = [
        instance["bbox_label"]
        for plain in inside(dataset)
        for index in range(len(plain))
        for instance in plain.get_data_info(index)["instances"]
        if not instance["ignore_flag"]
    ]
    return np.bincount(np.array(found, dtype=int), minlength=classes)
