"""A condition as a user writes it: `angle=30`, or, for names that are a word and a number, `class=0,3,7`."""

import re
from collections.abc import Sequence

from pdiff.runtime.errors import PdiffError, known
from pdiff.weights.conditions import Conditions, check_condition

WHERE = "--condition"


def read_condition(texts: Sequence[str], seen: Conditions) -> dict[str, float]:
    """Return the condition that some texts `KEY=VALUE` mean.

    Args:
        texts: a number for each name; or, where names are a word and a number and all values 0 or 1, the word and a
            list of numbers: those names are 1, the others of the word 0.
        seen: conditions that the engine knows.

    Raises:
        PdiffError: a key is unknown or given twice, a value is no finite number, or a name is left out.
    """
    condition: dict[str, float] = {}
    for text in texts:
        key, equal, value = text.partition("=")
        if not equal:
            raise PdiffError(f"{WHERE}: got {text!r}, expected KEY=VALUE. {known('', seen.names)}")
        found = {key: number(key, value)} if key in seen.names else listed(key, value, seen)
        for name in found:
            if name in condition:
                raise PdiffError(f"{WHERE}: got {name!r} twice. Leave one out.")
        condition |= found
    check_condition(condition, seen.names, WHERE)
    return {name: condition[name] for name in seen.names}


def number(key: str, value: str) -> float:
    """Return the number that a text is."""
    try:
        return float(value)
    except ValueError:
        raise PdiffError(f"{WHERE}: got {value!r} for {key!r}, expected a finite number. Mend it.") from None


def listed(word: str, value: str, seen: Conditions) -> dict[str, float]:
    """Return the bits of all names that are a word and a number, of which a text lists those that are 1."""
    bits = {name.removeprefix(word): name for name in seen.names if re.fullmatch(rf"{re.escape(word)}\d+", name)}
    if not bits or not seen.binary:
        words = sorted({name.rstrip("0123456789") for name in seen.names}) if seen.binary else []
        raise PdiffError(f"{WHERE}: got the name {word!r}. {known(word, [*words, *seen.names])}")
    chosen = [part.strip() for part in value.split(",") if part.strip()]
    for part in chosen:
        if part not in bits:
            raise PdiffError(f"{WHERE}: got {part!r} in {word}={value}. {known(part, bits)}")
    return {name: float(part in chosen) for part, name in bits.items()}
