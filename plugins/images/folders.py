"""Folders of images, one for each class: what in them is an image, and which label a class has."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pdiff_plugins.images.decoding import Decoder
from PIL import Image

from pdiff import PdiffError, known

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".pgm", ".pbm", ".pnm", ".bmp", ".tif", ".tiff", ".webp"),
    *(".gif", ".jp2", ".avif"),
)
# What systems, archives and network storage put into folders, in lower case; and all that begins with a dot.
HIDDEN = (
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("lost+found", "@eadir", "@__thumb", "@recycle", "@tmp", "#recycle", "#snapshot", "__pycache__"),
)
WHERE = "task.data.path"
MOST = 3  # names in a line
ORDERS = ("name", "number")


@dataclass(frozen=True)
class Part:
    """The images of one part of an image folder, `train/` say.

    Attributes:
        folder: the part.
        files: paths of the images by class, both in the order of their names.
        hidden: hidden files and folders that were left out.
        others: files that were left out as their suffix is no image's, or as they stand in no class folder.
        nested: folders with images below the class folders.
    """

    folder: Path
    files: dict[str, list[str]] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)


class Images:
    """Images of a part with their labels, decoded when they are asked for; the part is read only once.

    Args:
        part: the files.
        classes: names of the classes, in the order of the labels.
        decoder: reads a file.
    """

    def __init__(self, part: Part, classes: Sequence[str], decoder: Decoder):
        self.samples = [(path, label) for label, name in enumerate(classes) for path in part.files[name]]
        self.decoder = decoder

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.samples[index]
        return self.decoder.read(path), label


def is_hidden(name: str) -> bool:
    """Say whether a file or folder is one that a system made, and no data."""
    return name.startswith(".") or name.lower() in HIDDEN


def listed(names: Sequence[str], most: int = MOST) -> str:
    """Return the first names with commas between, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def find_images(folder: Path) -> Part:
    """Return the images below the class folders of a part.

    Raises:
        PdiffError: there is no class folder, or one without images.
    """
    part = Part(folder)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if is_hidden(entry.name):
            part.hidden.append(f"{folder.name}/{entry.name}")
        elif entry.is_dir():
            part.files[entry.name] = list(images_below(entry.path, part))
        else:
            part.others.append(f"{folder.name}/{entry.name}")
    if not part.files:
        line = f"{WHERE}: got no folder in {folder}, expected one for each class."
        raise PdiffError(f"{line} Put the images of each class into a folder of its own, right below it.")
    empty = [name for name, files in part.files.items() if not files]
    if empty:
        line = f"{WHERE}: the class folders without an image in {folder} are {listed(empty)} (images end in"
        raise PdiffError(f"{line} {', '.join(SUFFIXES)}). Take them away, or put images into them.")
    return part


def images_below(folder: str, part: Part) -> Iterator[str]:
    """Yield the images in a class folder and the folders below it, in order, and note in `part` what is none."""
    found, seen = [], {os.path.realpath(folder)}
    for root, folders, files in os.walk(folder, followlinks=True):
        hidden = [name for name in (*folders, *files) if is_hidden(name)]
        part.hidden.extend(os.path.relpath(os.path.join(root, name), part.folder.parent) for name in hidden)
        folders[:] = [name for name in folders if not is_hidden(name)]
        for path in (os.path.join(root, name) for name in folders):
            check_once(path, seen)
        found.append((root, [name for name in files if not is_hidden(name)]))
    for root, files in sorted(found):
        images = sorted(name for name in files if name.lower().endswith(SUFFIXES))
        others = sorted({*files} - {*images})
        part.others.extend(os.path.relpath(os.path.join(root, name), part.folder.parent) for name in others)
        if images and root != folder:
            part.nested.append(os.path.relpath(root, part.folder.parent))
        yield from (os.path.join(root, name) for name in images)


def check_once(path: str, seen: set[str]) -> None:
    """Add a folder to those of a class, or raise a `PdiffError` where it is there by a link: its images count twice."""
    real = os.path.realpath(path)
    if real in seen:
        line = f"{WHERE}: got {path}, a link to {real}, whose images belong to the class already."
        raise PdiffError(f"{line} Take the link away.")
    seen.add(real)


def check_classes(one: Part, other: Part) -> None:
    """Raise a `PdiffError` that names the classes which only one of two parts has."""
    alone = [(part, sorted({*part.files} - {*rest.files})) for part, rest in ((one, other), (other, one))]
    found = [f"{listed(names)} in {part.folder.name}/ alone" for part, names in alone if names]
    if found:
        line = f"{WHERE}: got the classes {' and '.join(found)}, expected the same in both."
        raise PdiffError(f"{line} Give both the same class folders.")


def by_number(name: str) -> list[tuple[int, int, str]]:
    """Return what sorts names by the numbers in them, as numbers: 2 before 10, `fold2` before `fold10`."""
    return [(0, int(text), "") if text.isdecimal() else (1, 0, text) for text in re.findall(r"\d+|\D+", name)]


def ordered(names: Sequence[str], order: str | Sequence) -> list[str]:
    """Return the names of the classes in the order of their labels.

    Args:
        names: of the class folders.
        order: `name`, `number`, or the names themselves.
    """
    if order in ORDERS:
        return sorted(names, key=by_number if order == "number" else None)
    if not isinstance(order, list | tuple):
        raise PdiffError(f"task.data.order: got {order!r}. {known(order, ORDERS)} Or list the classes.")
    order = [str(name) for name in order]
    wrong = [name for name in order if name not in names or order.count(name) > 1]
    missing = [name for name in names if name not in order]
    if wrong or missing:
        problem = (
            f"got {wrong[0]!r}, which is no class folder or stands there twice" if wrong else f"lacks {missing[0]!r}"
        )
        raise PdiffError(f"task.data.order: {problem}, expected each of {listed(sorted(names), 20)} once.")
    return order


def notes(parts: Sequence[Part], classes: Sequence[str], order: str | Sequence, decoder: Decoder) -> Iterator[str]:
    """Yield in a few words each what a user may not expect of an image folder."""
    hidden, others, nested = ([path for part in parts for path in part.hidden], [], [])
    for part in parts:
        others += part.others
        nested += part.nested
    if order != "name" or list(classes) != sorted(classes, key=by_number):
        hint = "; task.data.order=number puts 2 before 10" if order == "name" else ""
        kind = f"by {order}" if isinstance(order, str) else "as given"
        yield f"the labels 0, 1, 2, ... are the classes {listed(classes, 12)}, {kind}{hint}"
    alike = Counter(name.strip().casefold() for name in classes)
    twins = [name for name in classes if alike[name.strip().casefold()] > 1]
    if twins:
        yield f"the classes {listed(twins, 12)} differ in capital letters or blanks alone"
    if hidden:
        yield f"{len(hidden)} hidden files and folders are left out ({listed(hidden)})"
    if others:
        yield f"{len(others)} files that are no images of a class are left out ({listed(others)})"
    if nested:
        yield f"images in {len(nested)} folders below class folders belong to the class ({listed(nested)})"
    found = decoder.notes()
    if found:
        count = sum(len(files) for part in parts for files in part.files.values())
        yield f"of {count} images {', '.join(found)}"
