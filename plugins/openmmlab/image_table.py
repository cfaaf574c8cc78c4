"""A csv with a row for each image, which is found by the end of its path."""

import csv
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from pdiff import PdiffError, known

FILE = "collect.conditions.file"


def read_table(file: str, columns: Sequence[Any], image: str | None) -> dict[str, tuple[str, ...]]:
    """Return the cells of some columns by the name of their image, in the order of the file.

    Args:
        file: path of the csv, whose first row has the names of its columns.
        columns: which ones.
        image: the column with the names of the images; None: the first.

    Raises:
        PdiffError: it cannot be read, lacks a column or a cell, or says two things of one image.
    """
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)  # which refuses a quote that is never closed
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PdiffError(
            f"{FILE}: {file} cannot be read ({error}). Give a csv in UTF-8, a row for each image."
        ) from None
    lines = [(number, row) for number, row in lines if any(row)]
    if len(lines) < 2:
        raise PdiffError(f"{FILE}: {file} has no image, expected names of columns and a row for each image. Mend it.")
    (_, header), *lines = lines
    image = header[0] if image is None else image
    check_columns(file, header, columns, image)
    wanted, table = [header.index(name) for name in (image, *columns)], {}
    for number, row in lines:
        if any(row[len(header) :]):
            line = f"line {number}, has {len(row)} cells, expected {len(header)}. Quote a cell that has a comma"
            raise PdiffError(f"{FILE}: {file}, {line}.")
        cells = [row[place] if place < len(row) else "" for place in wanted]
        if "" in cells:
            lacking = header[wanted[cells.index("")]]
            raise PdiffError(f"{FILE}: {file}, line {number}, has no value for {lacking!r}. Fill it in.")
        name = os.path.normpath(cells[0].replace("\\", "/"))
        if table.setdefault(name, tuple(cells[1:])) != tuple(cells[1:]):
            line = f"line {number}, gives {cells[0]} other values than a line before"
            raise PdiffError(f"{FILE}: {file}, {line}. Keep one of them.")
    return table


def check_columns(file: str, header: Sequence[str], columns: Sequence[Any], image: str) -> None:
    """Raise a `PdiffError` unless a table has these columns once, and the names of the images are in another."""
    if len(header) == 1:
        line = f"{file} begins with {header[0]!r}, expected names of columns with commas between them"
        raise PdiffError(f"{FILE}: {line}. Write them into its first line.")
    if image not in header:
        raise PdiffError(f"collect.conditions.image: got {image!r}. {known(image, header)}")
    if not columns or len(set(map(str, columns))) < len(columns):
        raise PdiffError(
            f"collect.conditions.columns: got {list(columns)}, expected some columns, each once. Name them."
        )
    for name in columns:
        if name not in header or name == image:
            others = [other for other in header if other != image]
            raise PdiffError(f"collect.conditions.columns: got {name!r}. {known(name, others)}")
    for name in (image, *columns):
        if header.count(name) > 1:
            line = f"{file} has {header.count(name)} columns {name!r}, expected one. Give them names that differ"
            raise PdiffError(f"{FILE}: {line}.")


def find_images(file: str, table: Mapping[str, Any], datasets: Mapping[str, Dataset]) -> dict[str, list[str]]:
    """Return which row of a table each image of each data set has, by its name there.

    An image has the row whose name is its path, or the longest end of it: `night/7.png` rather than `7.png`.

    Raises:
        PdiffError: an image has no row, or two share one.
    """
    taken: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for split, dataset in datasets.items():
        paths = [image_file(dataset, index, split) for index in range(len(dataset))]
        names = {path: ending(path, table) for path in paths}
        missing = [path for path, name in names.items() if name is None]
        if missing:
            line = f"{file} lacks {len(missing)} of the {len(names)} images of {split}, the first is {missing[0]}"
            raise PdiffError(f"{FILE}: {line}. Add them, by name or by the end of the path.")
        for path, name in names.items():
            if taken.setdefault(name, path) != path:
                line = f"{file} has one row, {name}, for {taken[name]} and {path}"
                raise PdiffError(f"{FILE}: {line}. Write more of their paths.")
        found[split] = [names[path] for path in paths]
    return found


def image_file(dataset: Dataset, index: int, split: str) -> str:
    """Return the path of an image as the data set has it."""
    try:
        return os.path.normpath(dataset.get_data_info(index)["img_path"])
    except (AttributeError, NotImplementedError):
        line = f"the data set of {split} is a {type(dataset).__name__}, which mixes several images into one"
        raise PdiffError(f"collect.conditions: {line}. Give a pipeline without mixing.") from None


def ending(path: str, table: Mapping[str, Any]) -> str | None:
    """Return the longest end of a path that a table has a row for; None where there is none."""
    parts = path.split("/")
    return next((end for start in range(len(parts)) if (end := "/".join(parts[start:])) in table), None)
