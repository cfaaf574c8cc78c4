"""Faces whose names are imported when they are first asked for, so that importing the face costs next to nothing."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(face: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        face: its dotted name.
        names: which it offers, and the module of each.
    """

    def getter(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {face!r} has no attribute {name!r}")
        return getattr(import_module(names[name]), name)

    return getter
