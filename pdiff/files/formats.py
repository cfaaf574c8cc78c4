"""What the files of a population are (`checkpoints.format`): each format finds the members of a zoo."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.registry import Registry
from torch import Tensor

from pdiff.files.finding import distinct, find_checkpoints
from pdiff.files.reader import Reader

FORMATS = Registry("format", scope="pdiff", locations=["pdiff.files.formats"])


@dataclass(frozen=True)
class Member:
    """One network of a zoo.

    Attributes:
        origin: where it comes from: a path below the zoo's folder.
        columns: what the zoo says of it: numbers and texts by name.
        read: returns its tensors by the network's names, a part of the network where the file holds no more.
    """

    origin: str
    columns: Mapping[str, float | str]
    read: Callable[[], dict[str, Tensor]]


@FORMATS.register_module(name="files")
def files(pattern: str, reader: Reader) -> Sequence[Member]:
    """Find one state dict in each file.

    Args:
        pattern: a folder or a glob.
        reader: of the files.
    """
    paths = distinct(find_checkpoints(pattern), reader)
    folder = os.path.commonpath([os.path.abspath(path.parent) for path in paths])

    def member(path: Path) -> Member:
        return Member(Path(os.path.abspath(path)).relative_to(folder).as_posix(), {}, lambda: reader.read(path))

    return [member(path) for path in paths]
