"""Conditions of checkpoint files (`checkpoints.conditions`): from a table, or from what the files are called."""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pdiff.files.paths import below_common_folder
from pdiff.runtime.errors import PdiffError, known
from pdiff.weights.conditions import check_condition

WHERE = "checkpoints.conditions"
LABELS = ("split", "group")  # texts, which stand in the provenance beside the condition
PADDED = re.compile(r"0\d+")  # digits that are no number as people write one: bits, most likely

# What a table's row, or a file's name, says: where it says so, for error lines, and numbers and labels by name.
Told = tuple[str, Mapping[str, Any]]


def read_conditions(
    source: str, files: Sequence[Path | str], kept: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Return what the provenance of each checkpoint says of its condition.

    Args:
        source: path of a table, `.csv` or `.json`, with a row for each file or glob; or a regular expression, whose
            named groups are found in the files' names. Both look at names, or at paths below the files' common folder
            where there is a slash in the name, glob or expression.
        files: the checkpoints.
        kept: numbers of those that are taken, N of them; default: all.

    Returns:
        N mappings: numbers by name under `condition`, and texts under `split` and `group` where there are any.

    Raises:
        PdiffError: the table cannot be read, a file has no row or several, a row no file, a value is no finite number,
            the expression does not match, or names differ.
    """
    paths, kept = below_common_folder(files), range(len(files)) if kept is None else kept
    if source.endswith((".csv", ".json")):
        return said(rows_of(Path(source), paths, kept))
    return said(groups_of(source, [paths[number] for number in kept]))


def conditions_of(names: Sequence[str], columns: Mapping[str, Sequence[Any]], origins: Sequence[str]) -> list[dict]:
    """Return what the provenance of each checkpoint says of its condition, which columns of the zoo hold.

    Args:
        names: of the columns; `split` and `group` are texts beside the condition.
        columns: N cells by column.
        origins: where each of the N checkpoints comes from, for error lines.
    """
    for name in names:
        if name not in columns:
            raise PdiffError(f"{WHERE}: got column {name!r}. {known(str(name), columns)}")
    cells = {name: [str(c) for c in columns[name]] if name in LABELS else columns[name] for name in names}
    rows = zip(*cells.values(), strict=True)
    return said([(f"{WHERE}, {o}", dict(zip(names, row, strict=True))) for o, row in zip(origins, rows, strict=True)])


def said(told: Sequence[Told]) -> list[dict[str, Any]]:
    """Return what was told of checkpoints as their provenance says it, once it is looked at."""
    first = told[0][1]
    for where, values in told:
        check_told(values, first, where)
    return [
        {"condition": {name: float(value) for name, value in values.items() if name not in LABELS}}
        | {name: values[name] for name in LABELS if name in values}
        for _, values in told
    ]


def check_told(values: Mapping[str, Any], first: Mapping[str, Any], where: str) -> None:
    """Raise a `PdiffError` unless a checkpoint's condition and labels are sound and named like the first one's."""
    names = [name for name in first if name not in LABELS]
    condition = {name: value for name, value in values.items() if name not in LABELS}
    check_condition(condition or None, names, where)
    for name in LABELS:
        if (name in values) != (name in first):
            raise PdiffError(f"{where}: {name!r} is given for some checkpoints. Give it for each, or for none.")
        if name in values and (not isinstance(values[name], str) or not values[name]):
            raise PdiffError(f"{where}: got {values[name]!r} for {name!r}, expected a text. Mend it.")


def rows_of(table: Path, paths: Sequence[str], kept: Sequence[int]) -> list[Told]:
    """Return the row of a table for each checkpoint that is taken.

    Args:
        table: the file.
        paths: of the checkpoints, below their common folder.
        kept: numbers of those that are taken.
    """
    found: list[Told | None] = [None] * len(paths)
    rows = list((csv_rows if table.suffix == ".csv" else json_rows)(table, read(table)))
    if not rows:
        raise PdiffError(f"{WHERE}: {table} holds no row. Write one for each checkpoint, or one for a glob.")
    places: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        for name in {path, path.rpartition("/")[2]}:
            places.setdefault(name, []).append(index)
    for where, pattern, values in rows:
        matched = places.get(pattern) or [index for index, path in enumerate(paths) if matches(path, pattern)]
        if not matched:
            words = f"matches none of the {len(paths)} checkpoints of checkpoints.files. Mend the name, or take it out."
            raise PdiffError(f"{where}: {pattern!r} {words}")
        for index in matched:
            if found[index] is not None:
                both = f"{found[index][0]} and {where.removeprefix(f'{table}, ')}"
                raise PdiffError(f"{both}: both match {paths[index]!r}. Leave one of them.")
            found[index] = (where, values)
    without = [paths[number] for number in kept if found[number] is None]
    if without:
        words = f"{WHERE}: {table} has no row for {without[0]!r}"
        raise PdiffError(f"{words} ({len(without)} of {len(kept)} checkpoints). Add it, or a glob that matches it.")
    return [found[number] for number in kept]


def matches(path: str, pattern: str) -> bool:
    """Say whether a glob matches a path, where it has a slash, or else the name at its end."""
    return fnmatchcase(path if "/" in pattern else path.rpartition("/")[2], pattern)


def read(table: Path) -> str:
    """Return the text of a table, without the mark that spreadsheets put before it."""
    try:
        return table.read_text(encoding="utf-8").removeprefix("\ufeff")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or no name that a file can have
        reason = getattr(error, "strerror", None) or error
        raise PdiffError(f"{WHERE}: got {str(table)!r}, which cannot be read ({reason}). Check the path.") from None


def csv_rows(table: Path, text: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield where each row of a CSV stands, its file name or glob, and its other cells, numbers as numbers."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if header[:1] != ["file"] or len(set(header)) != len(header):
            words = "expected 'file', then names that differ, with commas between"
            raise PdiffError(f"{table}: got the header {','.join(header)!r}, {words}. Mend it.")
        for cells in filter(None, reader):
            where = f"{table}, row {reader.line_num}"
            if len(cells) != len(header):
                raise PdiffError(f"{where}: got {len(cells)} cells, expected {len(header)} as in the header. Mend it.")
            pattern, *others = cells
            told = zip(header[1:], others, strict=True)
            yield where, pattern, {n: c if n in LABELS or PADDED.fullmatch(c) else as_number(c) for n, c in told}
    except csv.Error as error:
        raise PdiffError(f"{table}, row {reader.line_num}: is no CSV ({error}). Mend it.") from None


def json_rows(table: Path, text: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield where each entry of a JSON object stands, its file name or glob, and its values."""
    try:
        content = json.loads(text, object_pairs_hook=unique)
    except ValueError as error:
        raise PdiffError(f"{table}: is not valid JSON ({error}). Mend it.") from None
    if not isinstance(content, dict):
        words = 'expected an object, {"file name or glob": {"angle": 1.0}}'
        raise PdiffError(f"{table}: got {type(content).__name__}, {words}. Mend it.")
    for pattern, values in content.items():
        where = f"{table}, {pattern!r}"
        if not isinstance(values, dict):
            raise PdiffError(f"{where}: got {values!r}, expected numbers by name. Mend it.")
        yield where, pattern, values


def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of JSON's pairs; a name that is there twice raises a `ValueError`."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands in it twice")
    return found


def as_number(text: str) -> float | str:
    """Return a text as the number that it is; one that is none as it is."""
    try:
        return text if "_" in text else float(text)
    except ValueError:
        return text


def groups_of(expression: str, paths: Sequence[str]) -> list[Told]:
    """Return what the named groups of a regular expression find in the name of each checkpoint.

    A group of several digits that are 0 or 1, as many in every name, is that many numbers: `bits` becomes `bits0`,
    `bits1`, ...

    Args:
        expression: is searched in the name, or in the path where it has a slash.
        paths: of the checkpoints, below their common folder.
    """
    choice = "expected a .csv or .json file, or a regular expression with named groups: _angle(?P<angle>[0-9.]+)_"
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise PdiffError(f"{WHERE}: got {expression!r} ({error}), {choice}. Mend it.") from None
    if not compiled.groupindex:
        raise PdiffError(f"{WHERE}: got {expression!r}, {choice}. Mend it.")
    names = paths if "/" in expression else [path.rpartition("/")[2] for path in paths]
    found = [compiled.search(name) for name in names]
    without = [name for name, match in zip(names, found, strict=True) if match is None]
    if without:
        words = f"{WHERE}: {expression!r} does not match {without[0]!r}"
        raise PdiffError(f"{words} ({len(without)} of {len(names)} checkpoints). Mend it, or narrow checkpoints.files.")
    texts = [{group: text for group, text in match.groupdict().items() if text is not None} for match in found]
    bits = [g for g in compiled.groupindex if g not in LABELS and are_bits(g, [t[g] for t in texts if g in t])]
    return [(f"{WHERE}, {name!r}", numbers_of(text, bits)) for name, text in zip(names, texts, strict=True)]


def are_bits(group: str, texts: Sequence[str]) -> bool:
    """Say whether the texts of a group are bits: several digits that are 0 or 1, as many in each."""
    if not texts or not all(re.fullmatch("[01]+", text) for text in texts):
        return False
    shortest, longest = min(texts, key=len), max(texts, key=len)
    if len(shortest) != len(longest) and any(map(PADDED.fullmatch, texts)):
        words = f"group {group!r} is {shortest!r} in one name and {longest!r} in another"
        raise PdiffError(f"{WHERE}: {words}, expected as many digits in each. Mend the expression, or give a table.")
    return 1 < len(shortest) == len(longest)


def numbers_of(texts: Mapping[str, str], bits: Sequence[str]) -> dict[str, Any]:
    """Return what groups found as numbers, each digit of those that are bits as one; labels stay texts."""
    found: dict[str, Any] = {}
    for name, text in texts.items():
        if name in bits:
            found |= {f"{name}{place}": float(digit) for place, digit in enumerate(text)}
        else:
            found[name] = text if name in LABELS else as_number(text)
    return found
