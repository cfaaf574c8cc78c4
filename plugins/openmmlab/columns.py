"""Conditions from a table of images: lighting, weather, camera; each is about the images of some values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pdiff_plugins.images.class_sets import class_sets, count_sets
from pdiff_plugins.openmmlab.conditions import CONDITIONS, SPLITS, Kind
from pdiff_plugins.openmmlab.image_table import find_images, read_table
from torch import Tensor
from torch.utils.data import Dataset

from pdiff import Conditions, PdiffError


@CONDITIONS.register_module(name="columns")
class Columns(Kind):
    """Values of columns of a csv: the number in a column of numbers, a bit for each value in a column of texts.

    Args:
        seed: of the run.
        file: csv with a row for each image.
        columns: name of the column, or names of several.
        image: name of the column with the images, paths or ends of paths (`night/7.png`); null: the first.
        subsets: of one column of texts, how many sets of its values to draw, or the sets themselves; null: a condition
            for each row of values that is there.
        size: the fewest and the most values of a set that is drawn; null: from 1 to all.
    """

    def __init__(
        self,
        seed: int,
        file: str,
        columns: str | list,
        image: str | None = None,
        subsets: int | list | None = None,
        size: list | None = None,
    ):
        self.file, self.columns = file, columns if isinstance(columns, list) else [columns]
        self.cells = read_table(file, self.columns, image)
        columns = zip(*self.cells.values(), strict=True)
        self.values = [distinct(file, *column) for column in zip(self.columns, columns, strict=True)]
        names = [name for column in zip(self.columns, self.values, strict=True) for name in names_of(*column)]
        self.features = torch.tensor([self.encode(cells) for cells in self.cells.values()])
        self.found: dict[Dataset, Tensor] = {}
        if subsets is not None:
            self.table = Conditions(names, self.sets(seed, subsets, size))
        elif size is None:
            self.table = Conditions(names, self.features.unique(dim=0))
        else:
            raise PdiffError(f"collect.conditions.size: got {size!r} without subsets, expected null. Leave it out.")

    def __len__(self) -> int:
        return len(self.table)

    def encode(self, cells: Sequence[str]) -> list[float]:
        """Return the C numbers of a row of cells."""
        return [
            number
            for cell, values in zip(cells, self.values, strict=True)
            for number in ([float(cell)] if values is None else [float(cell == value) for value in values])
        ]

    def sets(self, seed: int, subsets: int | list, size: list | None) -> Tensor:
        """Return sets of the values of one column of texts as bits `(M, C)`."""
        count_sets(subsets)
        if len(self.values) > 1 or self.values[0] is None:
            line = f"got {subsets!r} for {', '.join(self.columns)}, expected null, as only one column of texts has sets"
            raise PdiffError(f"collect.conditions.subsets: {line}. Leave it out, or name such a column.")
        return class_sets(self.values[0], seed, subsets, size).values

    def bind(self, datasets: Mapping[str, Dataset], counts: Mapping[str, Sequence[int]] | None = None) -> None:
        """Find the row of each image, and check that each split has images of every condition."""
        places = {name: place for place, name in enumerate(self.cells)}
        for split, names in find_images(self.file, self.cells, datasets).items():
            self.found[datasets[split]] = self.features[[places[name] for name in names]]
        for condition, values in zip(self.table, self.table.values, strict=True):
            for split in SPLITS:
                if not self.rows(datasets[split], values):
                    line = f"the condition {self.words(condition)} of {self.file} has no image in {split}"
                    rule = f"expected some in each of {', '.join(SPLITS)}"
                    remedy = "Take its rows out of the table, or give images"
                    raise PdiffError(f"collect.conditions: {line}, {rule}. {remedy}.")

    def words(self, condition: Mapping[str, float]) -> str:
        """Return a condition in words: the numbers of columns of numbers, and the bits that are 1."""
        numbers = [name for name, values in zip(self.columns, self.values, strict=True) if values is None]
        return ", ".join(f"{name}={value:g}" for name, value in condition.items() if value or name in numbers)

    def labels(self, values: Tensor) -> None:
        """Return None, for the classes are those of the data; raise a `PdiffError` for a set of no value."""
        place = 0
        for column, texts in zip(self.columns, self.values, strict=True):
            width = 1 if texts is None else len(texts)
            bits = values[place : place + width].tolist()
            if texts is not None and (1 not in bits or {*bits} - {0, 1}):
                line = f"condition: got {bits} for {column}, expected 1 for some of its values and 0 for the others"
                raise PdiffError(f"{line}. Name one of {', '.join(texts)}.")
            place += width

    def rows(self, dataset: Dataset, values: Tensor) -> list[int]:
        """Return the images whose numbers are those of a condition `(C,)`, and whose texts are among its own."""
        features, place = self.found[dataset], 0
        fits = torch.ones(len(features), dtype=torch.bool)
        for texts in self.values:
            width = 1 if texts is None else len(texts)
            own, asked = features[:, place : place + width], values[place : place + width]
            fits &= (own == asked).all(1) if texts is None else (own * asked).any(1)
            place += width
        return fits.nonzero().flatten().tolist()

    def facts(self) -> Mapping[str, Any]:
        """Say what a network is measured on."""
        return {"images": f"those of a condition ({', '.join(self.columns)})"}


def distinct(file: str, column: str, cells: Sequence[str]) -> list[str] | None:
    """Return the distinct texts of a column, in order; None where all are numbers."""
    numbers = numbers_of(cells)
    if numbers is None:
        if numbers_of([cell.replace(",", ".") for cell in cells]) is not None:
            odd = next(cell for cell in cells if "," in cell)
            line = f"{file} has {odd!r} for {column!r}, expected a point in a number. Write it so"
            raise PdiffError(f"collect.conditions.file: {line}.")
        return sorted(set(cells))
    odd = next((cell for cell, number in zip(cells, numbers, strict=True) if not math.isfinite(number)), None)
    if odd is not None:
        raise PdiffError(f"collect.conditions.file: {file} has {odd} for {column!r}, expected finite numbers. Mend it.")
    return None


def numbers_of(cells: Sequence[str]) -> list[float] | None:
    """Return the numbers that some cells are; None where one is none."""
    try:
        return list(map(float, cells))
    except ValueError:
        return None


def names_of(column: str, values: Sequence[str] | None) -> list[str]:
    """Return the names of the numbers that a column becomes."""
    return [column] if values is None else [f"{column}.{value}" for value in values]
