"""One run of a sweep: what it is told apart by, its config, and the collection that it takes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
