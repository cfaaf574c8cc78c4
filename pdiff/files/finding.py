"""Which files a folder or a glob means, in natural order, each network once."""

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pdiff.files.folders import ADAPTER
from pdiff.files.kinds import kind_of, unreadable
from pdiff.files.naming import listed
from pdiff.files.paths import below_common_folder, natural
from pdiff.files.values import same
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.processes import is_main
from pdiff.runtime.progress import progress, say

if TYPE_CHECKING:
    from pdiff.files.reader import Reader

# Of the files in a folder; a file or glob that is named is taken at its word.
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".chkpt", ".bin", ".th", ".tar", ".pkl", ".model", ".weights")


def find_checkpoints(pattern: str) -> list[Path]:
    """Return the files that a path or a glob names, numbers in their paths in numerical order; links lead to one file.

    Of a folder these are the files with the suffix of a checkpoint, or, without such, those that are checkpoints by
    their bytes; hidden files are left out.

    Raises:
        PdiffError: there is none, or a link leads nowhere.
    """
    if os.path.isdir(pattern):  # which, unlike a Path, answers for any text
        paths = in_folder(Path(pattern))
    elif os.path.isfile(pattern):
        paths = [Path(pattern)]
    else:
        paths = [Path(found) for found in glob.glob(pattern, recursive=True)]
    broken = [path for path in paths if path.is_symlink() and not path.exists()]
    if broken:
        raise PdiffError(f"{broken[0]}: {unreadable(broken[0], OSError())}")
    found = [path for path in paths if path.is_file()]
    if not found:
        raise PdiffError(f"checkpoints.files: got {pattern!r}, {nothing(pattern, paths)}")
    own: dict[Path, Path] = {}
    for path in sorted(found, key=lambda path: (path.is_symlink(), natural(path))):
        own.setdefault(path.resolve(), path)
    tell([path for path in found if path not in own.values()], "lead to others of these files")
    return sorted(own.values(), key=natural)


def in_folder(folder: Path) -> list[Path]:
    """Return the files of a folder that are checkpoints by their suffix, or else by their bytes."""
    seen = [path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir()]
    return [path for path in seen if path.name.lower().endswith(SUFFIXES)] or [p for p in seen if is_checkpoint(p)]


def is_checkpoint(path: Path) -> bool:
    """Say whether a file is a checkpoint by its bytes."""
    try:
        kind_of(path)
    except PdiffError:
        return False
    return True


def nothing(pattern: str, paths: Sequence[Path]) -> str:
    """Return why a pattern names no file, and what to do."""
    if os.path.isdir(pattern):
        return f"a folder without a checkpoint ({', '.join(SUFFIXES)}). {below(Path(pattern))}"
    if paths:
        return f"which matches folders alone. Name the files in them: {pattern.rstrip('/')}/*.pth."
    literal = re.sub(r"\[", "[[]", pattern)
    if "[" in pattern and glob.glob(literal, recursive=True):
        return f"in which brackets mean one letter of several. Write {literal!r} for a path with brackets."
    if "," in pattern and any(glob.glob(part.strip()) for part in pattern.split(",")):
        return "which is several paths. Give one glob for all, or a folder."
    if pattern != pattern.strip() and glob.glob(pattern.strip()):
        return "which has blanks at an end. Take them away."
    return "which matches no file. Check the path, and quote a glob for the shell."


def below(folder: Path) -> str:
    """Return what to do about a folder without checkpoints, by what lies below it."""
    for inner, _, names in os.walk(folder):
        if ADAPTER in names:
            return "It holds adapters of peft: checkpoints.format=peft."
        suffix = next((end for name in sorted(names) for end in SUFFIXES if name.lower().endswith(end)), None)
        if suffix and Path(inner) != folder:
            return f"Name those in the folders below it by a glob: {folder}/**/*{suffix}."
    return "Check the path."


def tell(paths: Sequence[Path], reason: str) -> None:
    """Say which files are not counted."""
    if paths and is_main():
        say(f"checkpoints.files: {listed(below_common_folder(sorted(paths, key=natural)))} {reason}, and count once")


def serial(path: Path) -> str:
    """Return what the names of a series have in common: a name without its numbers."""
    return re.sub(r"\d+", "", path.name)


def distinct(paths: Sequence[Path], reader: "Reader") -> list[Path]:
    """Return the files without those whose tensors of the network are all the same as another's.

    Of such files the one stays that is of the longest series: `epoch_9.pth`, not `best.pth`.

    Args:
        paths: the files.
        reader: of them.
    """
    if len(paths) < 2:
        return list(paths)
    series = Counter(map(serial, paths))
    first: dict[frozenset, Path] = {}
    copies = []
    with progress("compare checkpoints", len(paths)) as advance:
        for path in sorted(paths, key=lambda path: (-series[serial(path)], natural(path))):
            marks = frozenset((name, one.tensor.mark()) for name, one in reader.find(path).placed.items())
            if first.setdefault(marks, path) != path and are_same(path, first[marks], reader):
                copies.append(path)
            advance()
    tell(copies, "have the same tensors as others of these files")
    return [path for path in paths if path not in copies]


def are_same(path: Path, other: Path, reader: "Reader") -> bool:
    """Say whether two files have the same tensors."""
    a, b = (reader.read(one) for one in (path, other))
    return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
