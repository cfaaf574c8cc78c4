"""One run of a sweep: what it is told apart by, its config, and the collection that it takes."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST = 120  # letters of a name
NOT_SAFE = re.compile(r"[^\w.+-]+")  # as the name of a file


@dataclass(frozen=True)
class Setting:
    """One run of a sweep.

    Attributes:
        name: of its directory.
        values: of every varied key, by dotted key; one that the run's config does not have is left out.
        seed: None where the config's own holds.
        config: the resolved config.
        collection: the name of the collection that it takes.
        ablations: the numbers of those that it is a part of.
    """

    name: str
    values: Mapping[str, Any]
    seed: int | None
    config: dict[str, Any]
    collection: str
    ablations: frozenset[int]


def as_text(value: Any) -> str:
    """Return plain values as a text that tells them apart."""
    return json.dumps(value, sort_keys=True, default=str)


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
