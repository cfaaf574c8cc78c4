"""The order of a network's units in which it is nearest to another: weight matching (Git Re-Basin, arXiv 2209.04836).

Coordinate descent over the groups of units, each step a linear assignment. The paper starts from the order in which
the units come, and looks at the layers in a random order. Here neither counts, so that a network and its permuted
copy end as the same: a first sweep in the order of the pass compares by those tensors alone whose other units are
matched already; the descent starts there, and takes the groups as they come.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pdiff.canonical.applying import moved, views
from pdiff.weights.layout import Layout
from pdiff.weights.units import Group, Place

SWEEPS = 100
LEAST = 1e-3  # share by which an order must be better: far above rounding, and what it leaves changes no average

Spot = tuple[int, int]  # number of a group, and of one of its places


class Matcher:
    """Finds the order of the units for networks of one layout.

    Args:
        layout: of the vectors.
        groups: the units.
    """

    def __init__(self, layout: Layout, groups: Sequence[Group]):
        self.layout, self.groups = layout, groups
        spots = [(g, p) for g, group in enumerate(groups) for p in range(len(group.places))]
        along: dict[str, list[Spot]] = {}
        for spot in spots:
            along.setdefault(self.place(spot).tensor, []).append(spot)
        self.across = {s: [other for other in along[self.place(s).tensor] if self._meet(s, other)] for s in spots}
        shapes = {entry.name: entry.shape for entry in layout}
        self.plain = {spot for spot in spots if _is_plain(self.place(spot), shapes[self.place(spot).tensor])}

    def rows(self, spot: Spot, tensor: Tensor) -> Tensor:
        """Return what each unit has at a place `(n, ...)`."""
        place = self.place(spot)
        units = tensor.movedim(place.axis, 0)
        return (units if spot in self.plain else units[place.entries]).reshape(self.groups[spot[0]].size, -1)

    def place(self, spot: Spot) -> Place:
        """Return a place."""
        return self.groups[spot[0]].places[spot[1]]

    def _meet(self, spot: Spot, other: Spot) -> bool:
        """Say whether the units at one place stand across those at another of the same tensor."""
        own, its = self.place(spot), self.place(other)
        if spot == other:
            return False
        return own.axis != its.axis or bool(torch.isin(own.entries, its.entries).any())

    def match(self, own: Tensor, onto: Tensor) -> list[Tensor]:
        """Return the permutations, `(n,)` for each group, that bring a vector `(P,)` nearest to another; int64."""
        search = _Search(self, own, onto)
        search.sweep()
        search.descend()
        return search.permutations


class _Search:
    """A network on its way to another: its tensors in the present order, and the gains of each place `(n, n)`."""

    def __init__(self, matcher: Matcher, own: Tensor, onto: Tensor):
        self.matcher, self.groups = matcher, matcher.groups
        self.own, self.onto = views(matcher.layout, own), views(matcher.layout, onto)
        self.permutations = [torch.arange(group.size) for group in self.groups]
        self.gains: dict[Spot, Tensor] = {}
        self.targets: dict[Spot, Tensor] = {}

    def sweep(self) -> None:
        """Match group after group by what is comparable already."""
        unmatched = set(range(len(self.groups)))
        for g in range(len(self.groups)):
            self._move(g, _assigned(self._first_gain(g, unmatched)))
            unmatched.discard(g)

    def descend(self) -> None:
        """Match group after group by all that touches it, until nothing changes."""
        waiting = set(range(len(self.groups)))
        for _ in range(SWEEPS):
            for g in sorted(waiting):
                waiting.discard(g)
                order = self._better(g)
                if order is not None:
                    self._move(g, order)
                    waiting |= {h for p in range(len(self.groups[g].places)) for h, _ in self.matcher.across[g, p]}
            if not waiting:
                break

    def _better(self, g: int) -> Tensor | None:
        """Return an order of a group's units that gains something, if there is one."""
        gain = sum(self._gain((g, p)) for p in range(len(self.groups[g].places)))
        order = _assigned(gain)
        more = gain.gather(1, order[:, None]).sum() - gain.trace()
        return order if more > LEAST * torch.maximum(gain.trace().abs(), gain.abs().max()) else None

    def _gain(self, spot: Spot) -> Tensor:
        if spot not in self.gains:
            if spot not in self.targets:
                self.targets[spot] = self.matcher.rows(spot, self.onto[self.matcher.place(spot).tensor])
            own = self.matcher.rows(spot, self.own[self.matcher.place(spot).tensor])
            self.gains[spot] = self.targets[spot] @ own.T
        return self.gains[spot]

    def _first_gain(self, g: int, unmatched: set[int]) -> Tensor:
        spots = [(g, p) for p in range(len(self.groups[g].places))]
        across = {spot: [other for other in self.matcher.across[spot] if other[0] in unmatched] for spot in spots}
        known = [spot for spot in spots if not across[spot]]
        if any(self.own[self.matcher.place(spot).tensor].ndim > 1 for spot in known):
            return sum(map(self._gain, known))
        return sum(self._sorted_gain(spot, across[spot]) for spot in spots)

    def _sorted_gain(self, spot: Spot, across: list[Spot]) -> Tensor:
        place = self.matcher.place(spot)
        own, onto = self.own[place.tensor], self.onto[place.tensor]
        for other in across:
            own, onto = (_sorted(self.matcher.place(other), tensor) for tensor in (own, onto))
        return self.matcher.rows(spot, onto) @ self.matcher.rows(spot, own).T

    def _move(self, g: int, order: Tensor) -> None:
        self.permutations[g] = self.permutations[g][order]
        for p, place in enumerate(self.groups[g].places):
            self.own[place.tensor] = moved(place, self.own[place.tensor], order)
            if (g, p) in self.gains:
                self.gains[g, p] = self.gains[g, p][:, order]
        for p in range(len(self.groups[g].places)):
            for other in self.matcher.across[g, p]:
                self.gains.pop(other, None)


def _is_plain(place: Place, shape: Sequence[int]) -> bool:
    """Say whether the units are the entries of the axis, one each and in their order."""
    return torch.equal(place.entries, torch.arange(shape[place.axis])[:, None])


def _sorted(place: Place, tensor: Tensor) -> Tensor:
    """Return a tensor whose values are sorted along the units of a place, which no order of them changes."""
    found, entries = tensor.movedim(place.axis, 0).clone(), place.entries
    found[entries] = found[entries].sort(0).values
    return found.movedim(0, place.axis)


def _assigned(gain: Tensor) -> Tensor:
    """Return which column goes to each row `(n,)` so that the sum of the gains `(n, n)` is largest."""
    from scipy.optimize import linear_sum_assignment

    usable = gain.double().nan_to_num(0.0, 0.0, 0.0)  # of a network that is no longer finite, any order will do
    return torch.from_numpy(linear_sum_assignment(usable.numpy(), maximize=True)[1])
