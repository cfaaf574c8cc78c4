"""The one exception for what a user can mend, and the words that name close matches."""

import difflib
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from numbers import Integral
from types import NoneType, UnionType
from typing import Any, get_args

NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a text", list: "a list"}


class PdiffError(Exception):
    """A mistake that the user can mend: shown as one line, without a traceback."""


class UnknownKey(PdiffError):
    """A key of the config that nobody reads.

    Args:
        where: its section.
        key: its name.
        choices: the names that are read there.
    """

    def __init__(self, where: str, key: str, choices: Iterable[str]):
        super().__init__(f"{where}: got unknown key {key!r}. {known(key, choices)}")
        self.where = where
        self.key = key


def say(line: str) -> None:
    """Print a line to the standard error output."""
    print(line, file=sys.stderr)


def command(
    tell: Callable[[str], None] = say, after: str = ""
) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """Make a function return an exit code: 2 for what the user can mend, 130 for an interrupt, each told in one line.

    Args:
        tell: says the line.
        after: what to do after an interrupt, if there is anything to say of it.
    """

    def decorate(main: Callable[..., int | None]) -> Callable[..., int]:
        @wraps(main)
        def run(*args: Any, **kwargs: Any) -> int:
            try:
                return main(*args, **kwargs) or 0
            except PdiffError as error:
                tell(f"error: {error}")
                return 2
            except KeyboardInterrupt:
                tell(f"interrupted{after}")
                return 130

        return run

    return decorate


def known(name: str, choices: Iterable[str]) -> str:
    """Return the end of an error line: the closest of `choices` to `name`, then all of them.

    Args:
        name: the word that was not found.
        choices: the words that exist.
    """
    choices = sorted(map(str, choices))
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(choices) or 'none'}."


def check_positive(where: str, **values: Any) -> None:
    """Raise a `PdiffError` for a setting that is no integer above 0."""
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise PdiffError(f"{where}.{name}: got {value!r}, expected an integer from 1 on.")


def check_not_negative(where: str, **values: Any) -> None:
    """Raise a `PdiffError` for a setting that is no finite number from 0 on."""
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise PdiffError(f"{where}.{name}: got {value!r}, expected a finite number from 0 on.")


def check_share(where: str, **values: Any) -> None:
    """Raise a `PdiffError` for a setting that is no number from 0 to 1."""
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise PdiffError(f"{where}.{name}: got {value!r}, expected a number from 0 to 1.")


def check_type(value: Any, expected: Any, where: str) -> None:
    """Raise a `PdiffError` when a setting is not of its type; an integer is a number too, a bool is neither.

    Args:
        value: the setting.
        expected: one of `NAMES`, or one of them or None (`str | None`); any other type is not checked.
        where: the setting's place in the config.
    """
    if isinstance(expected, UnionType) and NoneType in get_args(expected) and len(get_args(expected)) == 2:
        if value is None:
            return
        (expected,) = set(get_args(expected)) - {NoneType}
    if expected not in NAMES:
        return
    allowed = (int, float) if expected is float else (expected,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and expected is not bool):
        advice = f" Write [{value}]." if expected is list and isinstance(value, str) else ""
        raise PdiffError(f"{where}: got {value!r}, expected {NAMES[expected]}.{advice}")


def check_section(section: Any, where: str) -> None:
    """Raise a `PdiffError` when the config has a plain value where keys with values belong."""
    if not isinstance(section, Mapping):
        raise PdiffError(f"{where}: got {section!r}, expected a section. Write keys with their values below it.")


def check_keys(section: Mapping[str, Any], choices: Iterable[str], where: str) -> None:
    """Raise a `PdiffError` when a config section has a key that is not among `choices`."""
    check_section(section, where)
    choices = list(choices)
    for key in section:
        if key not in choices:
            raise UnknownKey(where, key, choices)
