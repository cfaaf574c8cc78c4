"""Sources that are made of the candidates of another one, which they name under `of`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pdiff.runtime.errors import PdiffError, check_positive, known

if TYPE_CHECKING:
    from pdiff.run.run import Run

MEMBERS = 16  # of an average of a few, or of an ensemble
OF_ANOTHER = ("refined", "ensemble_of")  # types of sources with `of`
ENSEMBLES = ("ensemble", "generated_ensemble", "ensemble_of")  # types of sources of several networks each

Table = Mapping[str, Mapping[str, Any]]


def chain(table: Table, name: str) -> list[str]:
    """Return a source, the one that it is made of, and so on to the first that is made of no other, or to a circle."""
    found = [name]
    while name in table and table[name]["type"] in OF_ANOTHER:
        name = table[name].get("of")
        if name in found:
            return [*found, name]
        found.append(name)
    return found


def root(table: Table, name: str) -> str:
    """Return the type of the source whose candidates a source of another's begins with; else its own type."""
    return table[chain(table, name)[-1]]["type"]


def check_of(where: str, table: Table, names: Sequence[str], name: str) -> None:
    """Raise a `PdiffError` unless what a source is made of is another source of its table, of one network each.

    Args:
        where: its place in the config.
        table: of sources.
        names: of those that the run can have.
        name: of the source.
    """
    of = table[name]["of"]
    if of not in names:
        raise PdiffError(f"{where}.of: got {of!r}. {known(of, [other for other in names if other != name])}")
    found = chain(table, name)
    if name in found[1:]:
        line = f"got {of!r}, and {' of '.join(found)} has no beginning, expected a source that is not made of this one"
        raise PdiffError(f"{where}.of: {line}. Name another.")
    if table[of]["type"] in ENSEMBLES:
        line = f"got {of!r}, which are several networks each, expected a source of single ones"
        raise PdiffError(f"{where}.of: {line}. Name another.")


def count_of(run: "Run", table: Table, name: str, checkpoints: int | None = None) -> int | None:
    """Return how many candidates a source of a run without conditions has.

    As its settings say, all trained, one soup, or the default; None for all trained where nobody knows their number.
    """
    default = {"trained": checkpoints, "generated": run.config.generate.num, "soup": 1}
    num = table[name].get("num") or default.get(table[name]["type"], run.config.evaluate.num)
    if table[name]["type"] in ENSEMBLES:
        return table[name].get("num") or 1
    if table[name]["type"] != "refined" or num is None:
        return num
    most = count_of(run, table, table[name]["of"], checkpoints)
    return num if most is None else min(num, most)


def check_members_of(run: "Run", where: str, table: Table, name: str) -> None:
    """Raise a `PdiffError` for ensembles of more members than the source that they are drawn from has candidates."""
    members, of = table[name].get("members", MEMBERS), table[name]["of"]
    check_positive(where, members=members)
    count = count_of(run, table, of)
    if count is not None and members > count:
        raise too_many(where, members, count, of)


def too_many(where: str, members: int, count: int, of: str) -> PdiffError:
    """Return the error of an ensemble with more members than there are candidates."""
    line = f"got {members}, expected at most {count}, the candidates of {of}"
    return PdiffError(f"{where}.members: {line}. Lower it, or let {of} have more.")
