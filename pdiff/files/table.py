"""Tables of what is known of networks: CSV, plain or compressed, a row for each."""

import bz2
import csv
import gzip
import lzma
import re
import zlib
from pathlib import Path
from typing import IO

from pdiff.files.formats import Cell
from pdiff.runtime.errors import PdiffError

OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
MISSING = ("", "nan", "NaN", "NAN", "None", "null", "NA", "N/A")
PADDED = re.compile(r"-?0\d+")  # an identifier, not a number
REMEMBERED = 10_000  # texts
WHOLE = re.compile(r"[+-]?\d{1,18}")


def read_table(path: Path, where: str) -> dict[str, list[Cell]]:
    """Return the columns of a table; a column without a name, as pandas writes its row numbers, is left out.

    Args:
        path: `.csv`, or `.tsv` with tabs, and behind it `.gz`, `.xz` or `.bz2` where it is compressed.
        where: what names the file in the config, for error lines.

    Raises:
        PdiffError: it cannot be read, two columns have one name, or a row has more or fewer cells than the header.
    """
    try:
        with opened(path) as file:
            return columns_of(file, path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise PdiffError(f"{where}: got {str(path)!r}, which cannot be read ({reason}). Check the path.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise PdiffError(f"{where}: got {str(path)!r}, which is no CSV ({error}). Mend it.") from None


def opened(path: Path) -> IO[str]:
    """Open the text of a file, whether compressed or not; the mark that spreadsheets put before it is left out."""
    return OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8-sig", newline="")


def columns_of(file: IO[str], path: Path) -> dict[str, list[Cell]]:
    """Return the columns of a table that is open."""
    reader = csv.reader(file, delimiter="\t" if ".tsv" in path.suffixes else ",", strict=True)
    header = next(reader, [])
    if len(set(header)) != len(header) or not any(header):
        raise PdiffError(f"{path}: got the header {','.join(header)!r}, expected names that differ. Mend it.")
    columns: list[list[Cell]] = [[] for _ in header]
    known: dict[str, Cell] = {}  # a text that comes again is read once, and kept once
    for cells in filter(None, reader):
        if len(cells) != len(header):
            got = f"{path}, row {reader.line_num}: got {len(cells)} cells"
            raise PdiffError(f"{got}, expected {len(header)} as in the header. Mend it.")
        for column, text in zip(columns, cells, strict=True):
            cell = known[text] if text in known else as_cell(text)
            if len(known) < REMEMBERED:
                known[text] = cell
            column.append(cell)
    return {name: column for name, column in zip(header, columns, strict=True) if name}


def as_cell(text: str) -> Cell:
    """Return a text as the number that it is; as None where it says that there is nothing; else as it is."""
    if text in MISSING:
        return None
    if text in ("True", "False", "true", "false"):
        return text.lower() == "true"
    if PADDED.fullmatch(text) or "_" in text:
        return text
    try:
        return int(text) if WHOLE.fullmatch(text) else float(text)
    except ValueError:
        return text
