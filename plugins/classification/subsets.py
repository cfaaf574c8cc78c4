"""Conditions that are sets of classes: is the image of a class in the set, or not?

The protocol of Recurrent Parameter Generation (arXiv 2501.11587): networks for all sets of classes of CIFAR-10 as
positive class. Deviation: each has two outputs, and the metric is taken over all images, whatever the
set's size.
"""

import random
from collections.abc import Mapping
from typing import Any

import torch
from pdiff_plugins.classification.conditions import CONDITIONS, Kind
from pdiff_plugins.images.data import Split
from torch import Tensor

from pdiff import Conditions, PdiffError, derive_seed

LARGEST = 16  # so many classes have 65,534 sets
WIDEST = 60  # the sets of so many can be numbered


@CONDITIONS.register_module(name="subsets")
class Subsets(Kind):
    """Sets of classes, a bit for each class; neither the empty set nor that of all classes is one.

    Args:
        seed: of the run.
        classes: of the data.
        limit: how many of the sets, an even number: pairs of a set and its complement, drawn at random; default: all.
    """

    outputs = 2

    def __init__(self, seed: int, classes: int = 10, limit: int | None = None):
        if isinstance(classes, bool) or not 2 <= classes <= WIDEST:
            line = f"got {classes!r}, expected 2 to {WIDEST}. Give the number of classes of the data."
            raise PdiffError(f"task.conditions.classes: {line}")
        if limit is None and classes > LARGEST:
            raise PdiffError(f"task.conditions.limit: got null for {classes} classes, expected a number. Set it.")
        whole = 2**classes - 2
        if limit is not None and (isinstance(limit, bool) or limit % 2 or not 2 <= limit <= whole):
            raise PdiffError(
                f"task.conditions.limit: got {limit!r}, expected an even number from 2 to {whole}, as a set and its "
                "complement come together. Change it."
            )
        halves = range(1, 2 ** (classes - 1))  # one of each pair: that without the last class
        drawn = halves if limit is None else random.Random(derive_seed(seed, "subsets")).sample(halves, limit // 2)
        self.classes = classes
        self.codes = sorted(code for half in drawn for code in (half, 2**classes - 1 - half))

    def __len__(self) -> int:
        return len(self.codes)

    def table(self, train: Split) -> Conditions:
        """Return the bits of each set."""
        if train.classes != self.classes:
            raise PdiffError(
                f"task.conditions.classes: got {self.classes}, expected {train.classes}, that of the data. Change it."
            )
        bits = [[code >> place & 1 for place in range(self.classes)] for code in self.codes]
        return Conditions([f"class{place}" for place in range(self.classes)], torch.tensor(bits).float())

    def chance(self, classes: int) -> float:
        """Return the share of right answers of a coin."""
        return 0.5

    def facts(self, table: Conditions) -> Mapping[str, Any]:
        """Say what is asked, and what one answer to everything reaches."""
        share = table.values.mean(1)
        constant = torch.maximum(share, 1 - share)
        question = "is the image's class in the set?"
        words = f"the larger of the shares of classes in and not in it, {constant.mean():.2f} in the mean over the sets"
        return {"question": question, "one answer to all images": words}

    def labels(self, labels: Tensor, conditions: Tensor) -> Tensor:
        """Return 1 where an image's class is in the set, else 0 `(n, B)`."""
        return conditions[:, labels].long()

    def checked(self, conditions: Tensor) -> Tensor:
        """Refuse bits that are neither 0 nor 1."""
        if wrong := ((conditions != 0) & (conditions != 1)).nonzero().tolist():
            row, place = wrong[0]
            line = f"got {conditions[row, place].item():g} for class{place}, expected 0 or 1. Mend the condition."
            raise PdiffError(f"task.conditions: {line}")
        return conditions

    def measured(self, answers: Tensor, labels: Tensor) -> Mapping[str, float]:
        """Return for each class the share of its images that are said to be in the set."""
        inside = torch.zeros(self.classes).index_add(0, labels, (answers == 1).float())
        counts = labels.bincount(minlength=self.classes)
        shares = (inside / counts).tolist()
        return {f"class{place}": share for place, share in enumerate(shares) if counts[place]}
