"""Names of runs from what they differ in: short, safe as names of files, each once."""

import re
from collections.abc import Iterable, Mapping

LONGEST = 120  # letters of a name
NOT_SAFE = re.compile(r"[^\w.+-]+")


def join(texts: Mapping[str, str]) -> str:
    """Return the texts of keys as one name: `latent=8,seed=1`."""
    return ",".join(f"{key}={NOT_SAFE.sub('_', text).strip('_')}" for key, text in texts.items())


def unique(name: str, taken: Iterable[str]) -> str:
    """Return a name that is not taken, on file systems that do not tell small letters from capitals too."""
    small, number, free = {other.casefold() for other in taken}, 1, name[:LONGEST]
    while free.casefold() in small:
        number += 1
        free = f"{name[:LONGEST]}~{number}"
    return free
