"""Values of varied keys in words of the command line: `KEY=a,b,c`."""

from collections.abc import Sequence
from typing import Any

from pdiff.run.config import read_option
from pdiff.runtime.errors import PdiffError

PAIRS = {"(": ")", "[": "]", "{": "}"}


def split_values(text: str) -> list[str]:
    """Return the parts of a text between commas, those inside brackets and quotes left out of account."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and (depth or not parts[-1].strip()):
            quote = letter  # one inside a word, as in `don't`, is a letter
        elif letter in PAIRS:
            depth += 1
        elif letter in PAIRS.values():
            depth -= 1
        elif letter == "," and depth <= 0:
            parts.append("")
            continue
        parts[-1] += letter
    return [part.strip() for part in parts]


def read_vary(words: Sequence[str]) -> dict[str, list[Any]]:
    """Return dotted keys and the values that words of `--vary` give them.

    Raises:
        PdiffError: a word gives no values, or a key is given twice.
    """
    found: dict[str, list[Any]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or "" in key.split("."):
            raise PdiffError(f"--vary: got {word!r}, expected KEY=a,b,c. Mend it.")
        if key in found:
            raise PdiffError(f"--vary: got {key!r} twice. Leave one out.")
        parts = split_values(text)
        if "" in parts:
            line = f"--vary: got {word!r}, with a value that is empty"
            raise PdiffError(f"{line}. Mend it: null is none, '' the empty text.")
        found[key] = [read_option(key, part) for part in parts]
    return found


def read_seeds(text: str) -> list[int]:
    """Return the seeds of `--seeds 0,1,2`; raise a `PdiffError` for one that is no integer."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise PdiffError(f"--seeds: got {text!r}, expected integers, as in 0,1,2. Mend it.") from None
