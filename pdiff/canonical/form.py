"""The canonical form of a population: one network for all that differ by the order or the scale of their units."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from pdiff.canonical.applying import flat, permute, scale, views
from pdiff.canonical.balance import balance, balancing, rescaled
from pdiff.canonical.matching import Matcher
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.seeding import generator
from pdiff.runtime.storage import read_json, read_tensors, write_json, write_tensors
from pdiff.weights.layout import Layout
from pdiff.weights.units import Gain, Group, Place, Symmetries
from pdiff.weights.vectors import Rows, row_slices

KINDS = ("permutation", "permutation+scale")


@dataclass(frozen=True)
class Form:
    """Brings networks of one layout into canonical form.

    Attributes:
        kind: `permutation`, or `permutation+scale`, which balances the scale of the units before.
        layout: of the vectors.
        symmetries: the units that may change places or be scaled.
        reference: `(P,)` float32, the vector onto which the units are matched.
    """

    kind: str
    layout: Layout
    symmetries: Symmetries
    reference: Tensor

    @classmethod
    def fit(
        cls,
        kind: str,
        layout: Layout,
        symmetries: Symmetries,
        vectors: Tensor | Rows,
        representatives: Sequence[int],
    ) -> "Form":
        """Return the form whose reference is the average of networks that are matched onto the medoid of them.

        The medoid is the one nearest to the average after all were matched onto the first. One network after another
        is in memory.

        Args:
            kind: one of `KINDS`.
            layout: of the vectors.
            symmetries: the units.
            vectors: `(N, P)`.
            representatives: rows, one for each training.
        """
        form = cls(kind, layout, symmetries, vectors[representatives[0]])
        networks = _Balanced(form, vectors, representatives)
        first = [form._matcher.match(own, networks[0]) for own in networks]
        centre = _mean(map(form._reordered, networks, first))
        distances = [(form._reordered(*pair).double() - centre).norm() for pair in zip(networks, first, strict=True)]
        medoid = networks[int(torch.stack(distances).argmin())]
        found = (form._reordered(own, form._matcher.match(own, medoid)) for own in networks)
        return cls(kind, layout, symmetries, _mean(found).float())

    @cached_property
    def _matcher(self) -> Matcher:
        return Matcher(self.layout, self.symmetries.groups)

    @property
    def gains(self) -> tuple[Gain, ...]:
        """The units that are scaled."""
        return self.symmetries.gains if self.kind == KINDS[1] else ()

    def balanced(self, vectors: Tensor) -> Tensor:
        """Return vectors `(M, P)` whose units have a scale of their own choice no longer, if this form says so."""
        return balance(self.layout, self.gains, vectors)

    def permutations(self, vector: Tensor, onto: Tensor | None = None) -> list[Tensor]:
        """Return the permutations, `(n,)` int64 for each group, that bring a vector `(P,)` onto the reference.

        Args:
            vector: the network, in whichever order and scale.
            onto: another vector `(P,)` in place of the reference, balanced.
        """
        return self._matcher.match(self.balanced(vector[None])[0], self.reference if onto is None else onto)

    def apply(self, vectors: Tensor, permutations: Sequence[Tensor] | None = None) -> Tensor:
        """Return vectors `(M, P)` in canonical form.

        Args:
            vectors: the networks.
            permutations: of all of them, as of one training; default: those of each network by itself.
        """
        balanced = self.balanced(vectors)
        if permutations is not None:
            return self._permuted(balanced, permutations)
        return self.onto(balanced, self.reference.expand_as(vectors))

    def onto(self, vectors: Tensor, targets: Tensor) -> Tensor:
        """Return vectors `(M, P)`, each in the order of units that is nearest to its target `(M, P)`; all balanced."""
        found = torch.empty_like(vectors)
        for row, (own, target) in enumerate(zip(vectors, targets, strict=True)):
            found[row] = self._reordered(own, self._matcher.match(own, target))
        return found

    def shuffled(self, vector: Tensor) -> Tensor:
        """Return a vector `(P,)` no unit of which is where it was, or as large where they are scaled."""
        rng = generator(0, "shuffled")
        rings = [torch.randperm(group.size, generator=rng) for group in self.symmetries.groups]
        orders = [torch.empty_like(ring).scatter_(0, ring, ring.roll(1)) for ring in rings]
        factors = [torch.rand(gain.size, generator=rng) + 0.5 for gain in self.gains]
        tensors = permute(views(self.layout, vector), self.symmetries.groups, orders)
        return flat(self.layout, scale(tensors, self.gains, factors), 0)

    def _reordered(self, vector: Tensor, permutations: Sequence[Tensor]) -> Tensor:
        return self._permuted(vector[None], permutations)[0]

    def _permuted(self, vectors: Tensor, permutations: Sequence[Tensor]) -> Tensor:
        tensors = permute(views(self.layout, vectors), self.symmetries.groups, permutations, 1)
        return flat(self.layout, tensors, 1)

    def save(self, folder: Path) -> None:
        """Write `form.safetensors` and, as the last, `form.json` into a folder."""
        entries = {"reference": self.reference}
        units = {"groups": [], "gains": []}
        for kind, found in units.items():
            for number, own in enumerate(getattr(self.symmetries, kind)):
                sides = {side: getattr(own, side) for side in SIDES[kind]}
                for side, places in sides.items():
                    entries |= {f"{kind}.{number}.{side}.{p}": place.entries for p, place in enumerate(places)}
                named = {side: [[place.tensor, place.axis] for place in places] for side, places in sides.items()}
                found.append({"name": own.name, "size": own.size, **named})
        write_tensors(Path(folder) / "form.safetensors", entries)
        record = {"kind": self.kind, "layout": self.layout.fingerprint(), **units, "notes": self.symmetries.notes}
        write_json(Path(folder) / "form.json", record)

    @classmethod
    def load(cls, folder: Path, layout: Layout) -> "Form":
        """Return the form that `save` wrote.

        Raises:
            PdiffError: a file is missing, corrupt, or of another layout.
        """
        record, entries = read_json(Path(folder) / "form.json"), read_tensors(Path(folder) / "form.safetensors")
        if record["layout"] != layout.fingerprint():
            raise PdiffError(f"{folder}: got the canonical form of another selection. Fit again.")
        found = {}
        for kind, sides in SIDES.items():
            found[kind] = []
            for number, own in enumerate(record[kind]):
                places = {
                    side: tuple(
                        Place(tensor, axis, entries[f"{kind}.{number}.{side}.{p}"])
                        for p, (tensor, axis) in enumerate(own[side])
                    )
                    for side in sides
                }
                found[kind].append(UNITS[kind](own["name"], own["size"], **places))
        symmetries = Symmetries(tuple(found["groups"]), tuple(found["gains"]), tuple(record["notes"]))
        return cls(record["kind"], layout, symmetries, entries["reference"])


SIDES = {"groups": ("places",), "gains": ("made", "read")}
UNITS = {"groups": Group, "gains": Gain}


class _Balanced:
    """Some of many vectors, balanced one by one as they are asked for, by factors that are found once."""

    def __init__(self, form: Form, vectors: Tensor | Rows, rows: Sequence[int]):
        self.form, self.vectors, self.rows = form, vectors, list(rows)
        chosen = (self.rows[place] for place in row_slices((len(rows), vectors.shape[1])))
        found = [balancing(form.layout, form.gains, vectors[own]) for own in chosen]
        self.factors = [torch.cat(parts) for parts in zip(*found, strict=True)]

    def __getitem__(self, number: int) -> Tensor:
        vector = self.vectors[self.rows[number]]
        factors = [own[number : number + 1] for own in self.factors]
        return rescaled(self.form.layout, self.form.gains, vector[None], factors)[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[number] for number in range(len(self.rows)))


def _mean(vectors: Iterable[Tensor]) -> Tensor:
    """Return the average `(P,)` of vectors that come one by one, in double precision."""
    total, count = 0.0, 0
    for vector in vectors:
        total, count = total + vector.double(), count + 1
    return total / count
