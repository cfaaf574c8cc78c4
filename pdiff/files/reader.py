"""One file after another into the names, shapes and types of one network."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from pdiff.files.archives import read_content
from pdiff.files.misfit import lacking, no_tensors
from pdiff.files.naming import begin, check_distinct, listed, rename
from pdiff.files.nesting import select_key, tensors
from pdiff.files.placing import Placement, place
from pdiff.files.stored import Found
from pdiff.files.values import counters, loaded, of_type, through_hooks, tie, value
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.processes import is_main
from pdiff.runtime.progress import say
from pdiff.weights.roles import is_counter
from pdiff.weights.ties import first_names


class Reader:
    """Reads files into the names, shapes and types of one network; says once what it found in their names.

    No object in a file is built, and no code runs. Where the state dict stands, and what wrappers have put before the
    network's names, is found by what fits the network.

    Args:
        model: the network.
        where: the section of the config that names the file, for error lines and the options they name.
        key: where in a file the state dict stands, dots between levels; default: wherever the network's names fit.
        prefix: names in a file that do not begin with it are left out, and it is taken away.
        rename: regular expressions and what takes the place of their matches in names, one after another.
        cast: whether values may be rounded to the network's types.
    """

    def __init__(
        self,
        model: nn.Module,
        where: str = "checkpoints",
        key: str | None = None,
        prefix: str = "",
        rename: Mapping[str, str] | None = None,
        cast: bool = False,
    ):
        self.model, self.where = model, where
        self.key, self.prefix, self.rename, self.cast = key, prefix, rename or {}, cast
        if not isinstance(self.rename, Mapping) or not all(isinstance(text, str) for text in self.rename.values()):
            expected = "expected regular expressions and what takes the place of their matches, {'^stem': 'conv'}"
            raise PdiffError(f"{where}.rename: got {rename!r}, {expected}. Mend it.")
        self._first = first_names(model)
        self._told: set[str] = set()

    def read(self, path: Path, names: Iterable[str] | None = None, otherwise: str = "") -> dict[str, Tensor]:
        """Return tensors of a file by the network's names, in its shapes and types.

        Counters that the file lacks are the network's own.

        Args:
            path: the file.
            names: those of the network that are wanted, and must be there; default: all that are there.
            otherwise: what to do where one is not, beside looking at names.

        Raises:
            PdiffError: the file cannot be read, does not fit, or lacks a tensor that is wanted.
        """
        return self._read(Path(path), None if names is None else list(names), otherwise)[0]

    def load(self, path: Path) -> None:
        """Put a file into the network.

        Raises:
            PdiffError: the file cannot be read, lacks a tensor, or has one that the network lacks.
        """
        found, surplus = self._read(Path(path), list(self._state()), "Or give a file of this network.")
        if surplus:
            words = f"holds {listed(surplus)}, which the network does not have"
            raise PdiffError(f"{path}: {words}. Give a file of this network, or the network of this file.")
        self.model.load_state_dict(found, strict=False)  # what is no tensor stays the network's own

    def find(self, path: Path) -> Placement:
        """Return where a file has the network's tensors, whose values are not read."""
        return self._place(Path(path))[0]

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.model.state_dict().items() if isinstance(tensor, Tensor)}

    def _place(self, path: Path) -> tuple[Placement, list[Found]]:
        """Return where the network's tensors stand, and all that there are, by their names after the user's rules."""
        content = select_key(read_content(path), self.key, f"{path}: {self.where}.key")
        before = begin(tensors(content), self.prefix, f"{path}: {self.where}")
        if not before:
            raise no_tensors(content, str(path))
        found = rename(before, self.rename, f"{path}: {self.where}")
        check_distinct(found, before, f"{path}: {self.where}")
        placement = place(found, self._state(), self._first, str(path), self.where)
        if placement is None:
            own = self._state()
            raise lacking(list(own), found, own, str(path), self.where, "Or give a file of this network.")
        return placement, found

    def _read(self, path: Path, names: list[str] | None, otherwise: str) -> tuple[dict[str, Tensor], list[str]]:
        """Return the wanted tensors, and the names of those that the network does not have."""
        state, (placement, found) = self._state(), self._place(path)
        wanted = self._with_aliases(state if names is None else names)
        placed = {name: one for name, one in placement.placed.items() if name in wanted}
        values = {name: self._value(path, one, state[name]) for name, one in placed.items()}
        values = tie(values, placed, self._first, state, str(path))
        surplus = placement.surplus
        missing = {name for name in state if name not in placement.placed and not is_counter(state[name])}
        if missing and surplus:
            more = self._by_old_names(path, placement, self.cast or missing.isdisjoint(wanted))
            more = {name: tensor for name, tensor in more.items() if name in missing and name not in values}
            values |= {name: tensor for name, tensor in more.items() if name in wanted}
            surplus = {} if more else surplus
        values = {**counters(state, placement.placed), **values}
        lost = [name for name in names or () if name not in values]
        if lost:
            raise lacking(lost, list(surplus.values()) or found, state, str(path), self.where, otherwise)
        self._tell(path, placement, list(surplus))
        return {name: values[name] for name in (state if names is None else names) if name in values}, list(surplus)

    def _with_aliases(self, names: Iterable[str]) -> set[str]:
        """Return names with those of the same tensors."""
        firsts = {self._first[name] for name in names if name in self._first}
        return {name for name, first in self._first.items() if first in firsts}

    def _value(self, path: Path, one: Found, own: Tensor) -> Tensor:
        return value(one, own, str(path), self.cast, f"{self.where}.cast")

    def _by_old_names(self, path: Path, placement: Placement, cast: bool) -> dict[str, Tensor]:
        """Return what the network's own loading makes of a file whose names it does not have."""
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), None)
        given = {}
        for name, one in {**placement.surplus, **placement.placed}.items():
            if not one.tensor.kind:
                tensor, what = loaded(one, str(path)), f"{path}: {one.path!r}"
                floats = tensor.is_floating_point() and dtype is not None
                given[name] = of_type(tensor, dtype, what, cast, f"{self.where}.cast") if floats else tensor
        return through_hooks(copy.deepcopy(self.model), given)

    def _tell(self, path: Path, placement: Placement, surplus: list[str]) -> None:
        """Say what was found in the names, once."""
        skipped = [listed(list(placement.skipped))] if placement.skipped else []
        left = [listed(surplus)] if surplus else []
        notes = [
            *placement.notes,
            *(f"{names} left out: tools leave such beside a network's" for names in skipped),
            *(f"{names} left out: the network does not have them" for names in left),
        ]
        for note in notes:
            if note not in self._told and is_main():
                say(f"{self.where}: {path.name}: {note}")
            self._told.add(note)
