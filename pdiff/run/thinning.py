"""Fewer checkpoints for the fit than there are: evenly spaced, so that every lineage and every branch has its share."""

from collections.abc import Mapping
from typing import Any

from pdiff.run.heldout import rows_of, spaced
from pdiff.run.splits import FEWEST_SEEN
from pdiff.runtime.errors import PdiffError


def thin(record: Mapping[str, Any], size: int, num: int | None) -> dict[str, Any]:
    """Return the record of what is held out of `size` checkpoints, with those that the engine is not fitted to either.

    Args:
        record: as `heldout.json` has it.
        size: of the population.
        num: how many the engine is fitted to (`fit.num`); None for all that are not held out.

    Returns:
        The record; with `num` its `line` says so, and `spare` has the rows that are neither fitted nor held out.

    Raises:
        PdiffError: there are not so many, or they are for too few conditions.
    """
    if num is None:
        return dict(record)
    rows = rows_of(record, size)
    if num > len(rows):
        told = ("for seen conditions", "fit.split") if "groups" in record else ("that are not held out", "fit.heldout")
        line = f"got {num}, expected at most {len(rows)}, those {told[0]}"
        raise PdiffError(f"fit.num: {line}. Lower it, or {told[1]}.")
    fitted = [rows[place] for place in spaced(len(rows), num)]
    groups = {record["groups"][row] for row in fitted} if "groups" in record else None
    if groups is not None and len(groups) < FEWEST_SEEN:
        line = f"got {num}, which are for {len(groups)} groups of conditions, expected at least {FEWEST_SEEN}"
        raise PdiffError(f"fit.num: {line}. Raise it.")
    line = f"{record['line'].removesuffix('.')}; the engine is fitted to {num} of the other {len(rows)} (fit.num)"
    if groups is not None:
        line += f", for {len(groups)} groups of conditions"
    return {**record, "line": line, "spare": sorted({*rows} - {*fitted})}
