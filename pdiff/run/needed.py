"""Which of the sources of a config are evaluated: those that every comparison needs, and those of `evaluate.only`."""

from collections.abc import Sequence

NEEDED = {"sources": ("trained", "generated"), "conditional": ("oracle", "generated")}  # by every comparison


def is_evaluated(name: str, only: Sequence[str] | None) -> bool:
    """Say whether a source is evaluated.

    Args:
        name: of the source.
        only: those that are evaluated beside the needed ones; None for all.
    """
    return only is None or name in only or any(name in needed for needed in NEEDED.values())
