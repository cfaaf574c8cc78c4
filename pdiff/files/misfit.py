"""Error lines of files that do not fit a network: what is in the file, and what would make it fit."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pdiff.files.naming import listed
from pdiff.files.nesting import children, is_optimizer
from pdiff.files.stored import Found, Stored
from pdiff.files.unpickling import Shell
from pdiff.runtime.errors import PdiffError


def is_array(value: Any) -> bool:
    """Say whether a value is an array of numpy."""
    return isinstance(value, Shell) and value.NAME.startswith("numpy.")


def no_tensors(content: Any, file: str) -> PdiffError:
    """Return the error of a file without a state dict, by what is in it instead."""
    if isinstance(content, Stored):
        return PdiffError(f"{file}: holds a single tensor without a name. Save a state dict: tensors by name.")
    within = [content, *(value for _, value in children(content))]
    if any(is_optimizer(value) for value in within):
        words = "holds the state of an optimizer, and no network"
        return PdiffError(f"{file}: {words}. Give the file of the network that was saved with it.")
    if any(is_array(item) for value in within for _, item in children(value)):
        way = "torch.save({name: torch.from_numpy(array) for name, array in content.items()}, 'new.pth')"
        return PdiffError(f"{file}: holds arrays of numpy, and no tensors. Turn them into tensors: {way}.")
    keys = [key for key, _ in children(content)]
    held = f"only {listed(keys)}" if keys else "nothing that has a name"
    return PdiffError(f"{file}: holds no state dict, but {held}. Give a file with the tensors of the network.")


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
    pattern = re.escape(".".join([*gone, ""])) if gone else ""
    return ("" if start else "^") + pattern, ".".join([*come, ""]) if come else ""


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
    pattern, replacement = rule(near, name)
    turned = [re.sub(pattern, replacement, one.name) for one in found]
    fit = sum(new in state and new != one.name for one, new in zip(found, turned, strict=True))
    if name not in turned or fit < 1:
        return ""
    if pattern.startswith("^") and not replacement:
        option = f"{where}.prefix={near[: len(near) - len(name)]}"
    else:
        option = f"{where}.rename: {{{pattern!r}: {replacement!r}}}"
    return f"{option} would fit {fit} of its names."


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
    near = closest(names[0], tuple(state[names[0]].shape), found)
    more = f" and {len(names) - 1} more of the network's tensors" if len(names) > 1 else ""
    todo = remedy(names[0], near.name, found, state, where) or f"Look at {where}.key, prefix and rename."
    return PdiffError(f"{file}: lacks {names[0]!r}{more}; it has {near.path!r}. {todo} {otherwise}".rstrip())
