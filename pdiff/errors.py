"""The one exception for what a user can mend, and the words that name close matches."""

import difflib
from collections.abc import Iterable


class PdiffError(Exception):
    """A mistake that the user can mend: shown as one line, without a traceback."""


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


def check_keys(section: Iterable[str], choices: Iterable[str], where: str) -> None:
    """Raise a `PdiffError` when a config section has a key that is not among `choices`."""
    choices = list(choices)
    for key in section:
        if key not in choices:
            raise PdiffError(f"{where}: got unknown key {key!r}. {known(key, choices)}")
