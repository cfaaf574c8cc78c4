"""Error lines of files that do not fit a network: what is in the file, and what would make it fit."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pdiff.files.kinds import JOIN
from pdiff.files.naming import listed
from pdiff.files.nesting import children, is_optimizer
from pdiff.files.stored import Found, Stored
from pdiff.files.unpickling import Shell
from pdiff.runtime.errors import PdiffError

PART_NAME = re.compile(r"-\d+-of-\d+\.\w+$")
PART = "It is a part of a network: join the parts, and give the file that you get: "


def is_array(value: Any) -> bool:
    """Say whether a value is an array of numpy."""
    return isinstance(value, Shell) and value.NAME.startswith("numpy.")


def no_tensors(content: Any, file: str) -> PdiffError:
    """Return the error of a file without a state dict, by what is in it instead."""
    if isinstance(content, Stored):
        return PdiffError(f"{file}: holds a single tensor without a name. Save a state dict: tensors by name.")
    within = [content, *(value for _, value in children(content))]
    within += [value for inner in within for _, value in children(inner)]
    if any(is_optimizer(value) for value in within):
        words = "holds the state of an optimizer, and no network"
        return PdiffError(f"{file}: {words}. Give the file of the network that was saved with it.")
    if any(is_array(item) for value in within for _, item in children(value)):
        way = "torch.save({name: torch.from_numpy(array) for name, array in content.items()}, 'new.pth')"
        return PdiffError(f"{file}: holds arrays of numpy, and no tensors. Turn them into tensors: {way}.")
    keys = [key for key, _ in children(content)]
    held = f"but {listed(keys)}" if keys else "and nothing that has a name"
    return PdiffError(f"{file}: holds no state dict, {held}. Give a file with the tensors of the network.")


def closest(name: str, shape: tuple[int, ...], found: Sequence[Found]) -> Found:
    """Return the tensor whose name resembles another one most; those of the shape, and of the last part, come first."""
    ending = name.rpartition(".")[2]
    kin = [one for one in found if one.tensor.shape == shape] or list(found)
    kin = [one for one in kin if one.name.rpartition(".")[2] == ending] or kin
    near = difflib.get_close_matches(name, [one.name for one in kin], n=1, cutoff=0)
    return next(one for one in kin if one.name == near[0]) if near else kin[0]


def rule(old: str, new: str) -> tuple[str, str]:
    """Return the regular expression, and what takes its place, that turn a dotted name into another one."""
    a, b = old.split("."), new.split(".")
    end = 0
    while end < min(len(a), len(b)) and a[-1 - end] == b[-1 - end]:
        end += 1
    start = 0
    while start < min(len(a), len(b)) - end and a[start] == b[start]:
        start += 1
    gone, come = a[start : len(a) - end], b[start : len(b) - end]
    if start and not (gone and come):  # an insertion needs something to stand behind
        gone, come, start = [a[start - 1], *gone], [b[start - 1], *come], start - 1
    dot = [""] if end else []
    pattern = re.escape(".".join([*gone, *dot])) if gone else ""
    return ("" if start else "^") + pattern + ("" if end else "$"), ".".join([*come, *dot]) if come else ""


def remedy(name: str, near: str, found: Sequence[Found], state: Mapping[str, Tensor], where: str) -> str:
    """Return what to set for a tensor that a file seems to have by another name, or an empty text.

    Args:
        name: the network's.
        near: the file's.
        found: tensors of the file.
        state: the network's.
        where: the section of the config.
    """
    if near in state:
        return ""
    glued = near.endswith(name) and near[: -len(name)]  # `net_conv1.weight`
    pattern, replacement = (f"^{re.escape(glued)}", "") if glued else rule(near, name)
    turned = [re.sub(pattern, replacement, one.name) for one in found]
    fit = [
        new
        for one, new in zip(found, turned, strict=True)
        if new != one.name and new in state and tuple(state[new].shape) == one.tensor.shape
    ]
    if name not in fit:
        return ""
    if pattern.startswith("^") and not replacement:
        option = f"{where}.prefix={near[: len(near) - len(name)]!r}"
    else:
        option = f"{where}.rename: {{{pattern!r}: {replacement!r}}}"
    return f"{option} would fit {len(fit)} of its names."


def lacking(
    names: Sequence[str], found: Sequence[Found], state: Mapping[str, Tensor], file: str, where: str, otherwise: str
) -> PdiffError:
    """Return the error of a file without some tensors of the network, by the names that it has instead.

    Args:
        names: those that are missing.
        found: tensors of the file that have no name of the network; all of them where there is no such one.
        state: the network's.
        file: its path.
        where: the section of the config with the options.
        otherwise: what to do if no option helps.
    """
    near = closest(names[0], tuple(state[names[0]].shape) if names[0] in state else (), found)
    more = f" and {len(names) - 1} more of the network's tensors" if len(names) > 1 else ""
    todo = PART + JOIN if PART_NAME.search(file) else remedy(names[0], near.name, found, state, where)
    if not todo and near.name not in state:
        todo = f"Look at {where}.key, prefix and rename."
    if not todo and otherwise.startswith("Or "):
        otherwise = otherwise[3].upper() + otherwise[4:]
    words = " ".join(filter(None, [todo, otherwise]))
    return PdiffError(f"{file}: lacks {names[0]!r}{more}; it has {near.path!r}. {words}".rstrip())
