"""Names in a file as the user asks for them, without what known tools wrap them in."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from pdiff.files.stored import Found
from pdiff.runtime.errors import PdiffError

# What wrappers put into names: DataParallel, torch.compile, FSDP, activation checkpoints; peft's name of an adapter.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "default")
# What tools leave in state dicts: averages' counters, thop's counts, mmengine's preprocessing, mmdet's old averages.
SURPLUS = re.compile(
    r"(n_averaged|steps?|epoch|iter|iteration|global_step|num_updates|decay|temperature_step)"
    r"|(.*\.)?(total_ops|total_params|num_batches_tracked|_extra_state|position_ids|inv_freq|_float_tensor)"
    r"|data_preprocessor\..*|ema_\w+"
)
SHOWN = 8  # names in a line


def begin(found: Sequence[Found], prefix: str, where: str) -> list[Found]:
    """Return the tensors whose names begin with a prefix, without it.

    Raises:
        PdiffError: none does; the line has the prefixes that there are.
    """
    if not prefix:
        return list(found)
    for path in (False, True):
        chosen = [one for one in found if (one.path if path else one.name).startswith(prefix)]
        if chosen:
            names = [(one.path if path else one.name).removeprefix(prefix) for one in chosen]
            keys = ["" if path else one.keys for one in chosen]
            return [Found(k, n, one.tensor, one.origin) for k, n, one in zip(keys, names, chosen, strict=True)]
    names = [one.name for one in found]
    first = list(dict.fromkeys(f"{name.partition('.')[0]}." for name in names if "." in name))
    which = f"They begin with: {listed(first)}." if first else f"They are: {listed(names)}."
    raise PdiffError(f"{where}.prefix: got {prefix!r}, with which no name in the file begins. {which}")


def rename(found: Sequence[Found], rules: Mapping[str, str], where: str) -> list[Found]:
    """Return the tensors by their names after each rule, a regular expression and what takes its matches' place.

    Raises:
        PdiffError: a rule cannot be read, matches no name, or makes one name of two.
    """
    for pattern, replacement in rules.items():
        try:
            names = [re.subn(pattern, replacement, one.name) for one in found]
        except (re.error, IndexError, TypeError) as error:
            raise PdiffError(f"{where}.rename: got {pattern!r}: {replacement!r} ({error}). Mend it.") from None
        if found and not any(count for _, count in names):
            shown = listed([one.name for one in found])
            raise PdiffError(f"{where}.rename: got {pattern!r}, which matches no name in the file: {shown}. Mend it.")
        found = [one.renamed(name) for one, (name, _) in zip(found, names, strict=True)]
    return list(found)


def check_distinct(found: Sequence[Found], before: Sequence[Found], where: str) -> None:
    """Raise a `PdiffError` where rules have made one name of two.

    Args:
        found: the tensors by their new names.
        before: the same ones by those in the file.
        where: the file and the section.
    """
    seen: dict[str, str] = {}
    for one, old in zip(found, before, strict=True):
        other = seen.setdefault(one.path, old.path)
        if other != old.path:
            both = f"{other!r} and {old.path!r} both become {one.name!r}"
            raise PdiffError(f"{where}.rename: {both}. Mend it, or choose one by the prefix.")


def listed(names: Sequence[str]) -> str:
    """Return the first of several names, for a line."""
    return ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def without(name: str, words: Collection[str]) -> str:
    """Return a dotted name without some of its parts."""
    return ".".join(part for part in name.split(".") if part not in words)


def parts(names: Iterable[str]) -> set[str]:
    """Return the parts between dots that names have."""
    return {part for name in names for part in name.split(".")}


def unwrap(found: Sequence[Found], own: Iterable[str]) -> tuple[list[Found], dict[str, str], list[str]]:
    """Take wrappers' words out of names where either the file or the network has them, and not both.

    Args:
        found: tensors of the file.
        own: the network's names.

    Returns:
        the tensors; the network's names by what they are without such words; the words taken from the file's.
    """
    own = list(own)
    ours, theirs = parts(own), parts(one.name for one in found)
    extra = [word for word in WRAPPERS if word in theirs and word not in ours]
    lacking = [word for word in WRAPPERS if word in ours and word not in theirs]
    short = {without(name, lacking): name for name in own}
    bare = [one.renamed(without(one.name, extra)) for one in found]
    names = short if len(short) == len(own) else {name: name for name in own}
    if len({one.path for one in bare}) < len(found):
        return list(found), names, []
    return bare, names, extra
