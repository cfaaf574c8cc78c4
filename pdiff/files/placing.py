"""Which tensors of a file are the network's: those below the prefix, of keys and names, that finds the most of them."""

import re
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from pdiff.files.naming import SURPLUS, unwrap
from pdiff.files.stored import Found
from pdiff.runtime.errors import PdiffError
from pdiff.weights.roles import is_counter

AVERAGES = {"ema", "swa", "avg", "average", "averaged", "averages", "polyak", "shadow"}


@dataclass(frozen=True)
class Fit:
    """What a file's names say once those that begin with a prefix are looked at without it.

    Attributes:
        prefix: keys of mappings, and what names begin with.
        placed: tensors by the network's names.
    """

    prefix: str
    placed: Mapping[str, Found]

    @cached_property
    def keys(self) -> str:
        """That part of the prefix that is keys of mappings."""
        keys = next(iter(self.placed.values())).keys
        return keys if self.prefix.startswith(f"{keys}.") else ""

    @property
    def beginning(self) -> str:
        """That part of the prefix which names begin with."""
        return self.prefix[len(self.keys) + 1 :] if self.keys else self.prefix

    @property
    def of_average(self) -> bool:
        """Whether the prefix speaks of an average of weights."""
        return not AVERAGES.isdisjoint(re.split(r"[^a-z]", re.sub(r"([A-Z]+)", r"_\1", self.prefix).lower()))

    def marks(self) -> dict[str, Hashable]:
        """Return what is the same for the same tensors under other keys or with another prefix."""
        return {name: one.tensor.mark() for name, one in self.placed.items()}

    def option(self, where: str, other: "Fit") -> str:
        """Return the option that chooses this and not the other one."""
        return f"{where}.key={self.keys}" if self.keys != other.keys else f"{where}.prefix={self.beginning!r}"

    def below(self, found: Sequence[Found]) -> Iterator[tuple[str, Found]]:
        """Yield those tensors of the same mappings whose names begin with the prefix, with the rest of their names."""
        keys = {one.keys for one in self.placed.values()}
        for one in found:
            if one.keys in keys and one.path.startswith(self.prefix):
                yield one.path[len(self.prefix) :], one


@dataclass(frozen=True)
class Placement:
    """Where a file has the network's tensors.

    Attributes:
        placed: tensors by the network's names.
        surplus: what stands beside them, by the name that it would have in the network.
        skipped: what tools are known to leave there.
        notes: what was found in the names.
    """

    placed: Mapping[str, Found]
    surplus: Mapping[str, Found]
    skipped: Sequence[str]
    notes: Sequence[str]


def fits(found: Sequence[Found], names: Mapping[str, str], shapes: Mapping[str, Tensor] | None) -> list[Fit]:
    """Return every prefix with which names in the file begin that the network has, and what it finds.

    Args:
        found: tensors of the file.
        names: the network's by what the file would call them.
        shapes: the network's tensors, whose shapes must be those in the file; None if shapes do not count.
    """
    placed: dict[str, dict[str, Found]] = defaultdict(dict)
    for one in found:
        path = one.path
        for start in (0, *(place + 1 for place, letter in enumerate(path) if letter == ".")):
            name = names.get(path[start:])
            if name is not None and (shapes is None or tuple(shapes[name].shape) == one.tensor.shape):
                placed[path[:start]].setdefault(name, one)
    return [Fit(prefix, tensors) for prefix, tensors in placed.items()]


def best(choices: Sequence[Fit], needed: Collection[str], first: Mapping[str, str]) -> tuple[list[Fit], float]:
    """Return the prefixes that find the most tensors of the network, averages last, and what share they find.

    Args:
        choices: prefixes and what they find.
        needed: first names of the tensors that a file must have to be of the network.
        first: the first name of the tensor of each name.
    """
    counts = [len({first[name] for name in fit.placed} & needed) for fit in choices]
    most = max(counts, default=0)
    most_of_them = [fit for fit, count in zip(choices, counts, strict=True) if count == most]
    return sorted(most_of_them, key=lambda fit: fit.of_average), most / max(len(needed), 1)


def is_known(name: str) -> bool:
    """Say whether tools are known to leave a tensor of this name beside a network's."""
    return SURPLUS.fullmatch(name) is not None


def is_sound(fit: Fit, share: float, found: Sequence[Found]) -> bool:
    """Say whether what a prefix finds is no accident: half of the network, or all that stands below the prefix."""
    placed = {id(one) for one in fit.placed.values()}
    return share >= 0.5 or not fit.beginning or all(id(one) in placed or is_known(n) for n, one in fit.below(found))


def choose(
    found: Sequence[Found], names: Mapping[str, str], state: Mapping[str, Tensor], first: Mapping[str, str]
) -> list[Fit]:
    """Return the prefix that fits the network, and those that find as much; none where none does."""
    needed = {first[name] for name in state if not is_counter(state[name])} or set(first.values())
    for shapes in (state, None):
        choices, share = best(fits(found, names, shapes), needed, first)
        if share and is_sound(choices[0], share, found):
            return choices
    return []


def place(
    found: Sequence[Found], state: Mapping[str, Tensor], first: Mapping[str, str], file: str, where: str
) -> Placement | None:
    """Return where a file has the network's tensors; None if it has nothing of it.

    Args:
        found: tensors of the file.
        state: the network's.
        first: the first name of the tensor of each of the network's names.
        file: for error lines.
        where: the section of the config with the options that they name.

    Raises:
        PdiffError: the network's names stand in several places.
    """
    bare, names, words = unwrap(found, state)
    choices = choose(bare, names, state, first)
    if not choices:
        return None
    chosen, *others = choices
    others = [fit for fit in others if fit.marks() != chosen.marks()]
    rivals = [fit for fit in others if fit.of_average == chosen.of_average]
    if rivals:
        options = [chosen.option(where, rivals[0]), *(fit.option(where, chosen) for fit in rivals)]
        raise PdiffError(f"{file}: holds {len(options)} networks that fit. Choose one: {', '.join(options)}.")
    chosen = next(fit for fit in fits(bare, names, None) if fit.prefix == chosen.prefix)  # of any shape
    placed = {id(one) for one in chosen.placed.values()}
    beside = {
        names.get(name, name): one
        for name, one in chosen.below(bare)
        if id(one) not in placed and not any(one.path.startswith(fit.prefix) for fit in others)
    }
    notes = [f"{word!r} is taken out of the names" for word in words]
    if chosen.beginning:
        notes.append(f"{chosen.beginning!r} is taken away from the names")
    if others:
        notes.append(f"averages of the weights are left out; {others[0].option(where, chosen)} takes them instead")
    surplus = {name: one for name, one in beside.items() if not is_known(name)}
    return Placement(chosen.placed, surplus, [name for name in beside if is_known(name)], notes)
