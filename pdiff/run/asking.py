"""A condition as a user writes it: `angle=30`, or, of names that begin alike, `class=0,3,7` or `classes=person,car`."""

from collections.abc import Mapping, Sequence

from pdiff.runtime.errors import PdiffError, known
from pdiff.weights.conditions import Conditions, check_condition

WHERE = "--condition"


def read_condition(texts: Sequence[str], seen: Conditions) -> dict[str, float]:
    """Return the condition that some texts `KEY=VALUE` mean.

    Args:
        texts: a number for each name; or, where all values are 0 or 1 and names are a word and a number (`class3`), or
            a word, a dot and a rest (`classes.person`), the word and a list of the numbers or rests: those names are 1,
            the others of the word 0.
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
    """Return the bits of all names that begin with a word, of which a text lists those that are 1."""
    bits = {rest: name for name in seen.names for first, rest in [parts_of(name)] if first == word}
    if not bits or not seen.binary:
        words = sorted({parts_of(name)[0] for name in seen.names} - {""}) if seen.binary else []
        raise PdiffError(f"{WHERE}: got the name {word!r}. {known(word, [*words, *seen.names])}")
    chosen = [part.strip() for part in value.split(",") if part.strip()]
    for part in chosen:
        if part not in bits:
            line = f"{WHERE}: got {part!r} in {word}={value}. {known(part, bits)}"
            raise PdiffError(f"{line}{unlisted(bits)}")
    return {name: float(part in chosen) for part, name in bits.items()}


def parts_of(name: str) -> tuple[str, str]:
    """Return the word that a name begins with, and what follows it: behind a dot anything, else a number."""
    word, dot, rest = name.partition(".")
    if dot:
        return word, rest
    word = name.rstrip("0123456789")
    return word, name.removeprefix(word)


def unlisted(bits: Mapping[str, str]) -> str:
    """Return a sentence about a name that no list can hold; nothing where there is none."""
    split = [name for part, name in bits.items() if "," in part]
    return f" A name with a comma ({split[0]!r}) cannot be listed: give a number for each name." if split else ""
