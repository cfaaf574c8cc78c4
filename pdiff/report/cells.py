"""The text of a figure in a table, and the column that shows it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

WIDTH = 118  # where no terminal says how wide it is

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of the table of sources.

    Attributes:
        title: its head.
        least: the narrowest terminal that shows it, in characters.
        cell: from a source's figures to its text.
        meaning: what it shows, in a phrase; empty where the caption says it otherwise.
    """

    title: str
    least: int
    cell: Callable[[Row], str]
    meaning: str = ""


def number(value: float | None, digits: int = 4) -> str:
    """Return a figure's text; nothing for one that does not exist."""
    return "" if value is None else f"{value:.{digits}f}"


def short(value: float | None) -> str:
    """Return a figure's text to three digits; nothing for one that does not exist."""
    return "" if value is None else f"{value:.3g}"


def percent(value: float | None, digits: int = 0) -> str:
    """Return a share's text; nothing for one that does not exist."""
    return "" if value is None else f"{100 * value:.{digits}f} %"


def signed(text: str) -> str:
    """Return a figure's text with its sign."""
    return text if text.startswith("-") or not text else f"+{text}"


def interval(ends: tuple[float, float] | None) -> str:
    """Return the text of an interval; nothing for one that does not exist."""
    return f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
