"""Where the tensors of a checkpoint stand: in mappings within mappings, beside settings, logs and optimizers."""

from collections.abc import Iterator, Mapping
from typing import Any

from pdiff.files.stored import Found, Stored
from pdiff.runtime.errors import PdiffError, known

DEEPEST = 12  # levels of mappings and lists that are looked through


def is_optimizer(content: Any) -> bool:
    """Say whether a value is the state of an optimizer."""
    return isinstance(content, Mapping) and "param_groups" in content and "state" in content


def children(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a mapping, a list or a tuple holds, by its key or number."""
    if isinstance(content, Mapping):
        yield from ((str(key), value) for key, value in dict.items(content) if isinstance(key, str | int))
    if isinstance(content, list | tuple):
        yield from ((str(number), value) for number, value in enumerate(content))


def tensors(content: Any) -> list[Found]:
    """Return the tensors of a file's content, those of optimizers left out; what stands in it twice counts once."""
    found, seen = [], set()

    def look(value: Any, keys: tuple[str, ...]) -> None:
        if id(value) in seen or is_optimizer(value) or len(keys) > DEEPEST:
            return
        seen.add(id(value))
        for key, inner in children(value):
            if isinstance(inner, Stored):
                found.append(Found(".".join(keys), key, inner))
            else:
                look(inner, (*keys, key))

    look(content, ())
    return found


def inner(content: Any, key: str) -> Any:
    """Return what stands under a dotted key, of which a part may have dots itself; None where nothing does."""
    within = dict(children(content))
    if key in within:
        return within[key]
    for place in (place for place, letter in enumerate(key) if letter == "."):
        if key[:place] in within:
            found = inner(within[key[:place]], key[place + 1 :])
            if found is not None:
                return found
    return None


def select_key(content: Any, key: str | None, where: str) -> Any:
    """Return the part of a file's content that a key chooses, or all of it.

    Args:
        content: of a file.
        key: dotted; None for all.
        where: the file and the option, for error lines.

    Raises:
        PdiffError: nothing stands there, or no tensor does.
    """
    if key is None:
        return content
    found = inner(content, key)
    if not tensors(found):
        choices = dict.fromkeys(one.keys for one in tensors(content) if one.keys)
        what = "no tensor stands" if found is not None else "nothing stands"
        raise PdiffError(f"{where}: got {key!r}, where {what}. {known(key, choices)}")
    return found
