"""Which conditions the engine learns from (seen), which choose settings (select), and which are reported (unseen).

What belongs to one group stays on one side: equal conditions, those that a declared symmetry turns into each other,
and those that the provenance calls one `group`. Anything else would be a leak.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import Registry
from numpy.typing import NDArray
from torch import Tensor

from pdiff.run.symmetry import Symmetry, build_symmetry
from pdiff.runtime.errors import PdiffError, known
from pdiff.runtime.registry import build, prepare
from pdiff.runtime.seeding import generator
from pdiff.weights.conditions import Conditions, shown
from pdiff.weights.layout import Layout

if TYPE_CHECKING:
    from pdiff.run.run import Run

SEEN, SELECT, UNSEEN, LEFT_OUT = PARTS = ("seen", "select", "unseen", "left out")
FEWEST_SEEN = 3  # groups; a cross-validation has a fold for each of so few
FEWEST_UNSEEN = 2  # groups; of one there is no interval
SPLITS = Registry("split", scope="pdiff", locations=["pdiff.run.splits"])


@dataclass(frozen=True)
class Conditioned:
    """The rows of a population as a split sees them.

    Attributes:
        conditions: of each row `(N, C)`.
        groups: the number of each row's group `(N,)`, from 0 on.
        provenance: of each row.
    """

    conditions: Conditions
    groups: NDArray
    provenance: Sequence[Mapping[str, Any]]


def connected(conditions: Conditions, provenance: Sequence[Mapping[str, Any]], symmetry: Symmetry | None) -> NDArray:
    """Return the number of each row's group `(N,)`: what is equal, or an image, or of one `group`, is one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes: dict[Any, int] = {}
    images = symmetry.image(conditions).values.tolist() if symmetry else conditions.values.tolist()
    edges = []
    for row, (own, image) in enumerate(zip(conditions.values.tolist(), images, strict=True)):
        label = provenance[row].get("group")
        keys = [tuple(own), tuple(image), *([("group", repr(label))] if label is not None else [])]
        edges += [(row, nodes.setdefault(key, len(conditions) + len(nodes))) for key in keys]
    size, (first, second) = len(conditions) + len(nodes), np.array(edges).T
    graph = coo_array((np.ones(len(edges)), (first, second)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    return np.unique(labels[: len(conditions)], return_inverse=True)[1]


@SPLITS.register_module(name="random")
def random(rows: Conditioned, rng: torch.Generator, select: float = 0.05, unseen: float = 0.1) -> NDArray:
    """Draw whole groups.

    Args:
        select: share of the groups that choose.
        unseen: share of the groups that are reported; two at least.
    """
    count = int(rows.groups.max()) + 1
    first, second = shares(count, select=select, unseen=unseen)
    chosen, reported = draw(np.arange(count), rng, [first, max(second, FEWEST_UNSEEN)])
    return labelled(rows.groups, {SELECT: chosen, UNSEEN: reported})


@SPLITS.register_module(name="ball")
def ball(
    rows: Conditioned, rng: torch.Generator, radius: float = 1, select: float = 0.01, unseen: float = 0.02
) -> NDArray:
    """Draw whole groups, and leave out of the seen whatever lies within `radius` of them.

    Args:
        radius: largest distance to a drawn condition of what is left out: in bits, or in standard deviations.
        select: share of the groups that choose.
        unseen: share of the groups that are reported.
    """
    labels = random(rows, rng, select, unseen)
    drawn = np.isin(labels, [SELECT, UNSEEN])
    near = rows.conditions.distances(rows.conditions)[:, drawn].min(1) <= radius
    groups = np.unique(rows.groups[near & ~drawn])
    return np.where(np.isin(rows.groups, groups) & ~drawn, LEFT_OUT, labels)


@SPLITS.register_module(name="sum")
def by_sum(rows: Conditioned, rng: torch.Generator, seen: list, unseen: list, select: float = 0.3) -> NDArray:
    """Split by the sum of a condition's numbers: the size of a subset.

    Args:
        seen: sums that the engine learns from; what has no sum of either list is left out.
        unseen: sums that it does not.
        select: share of the groups of `unseen` that choose; the others are reported.
    """
    both = sorted(set(seen) & set(unseen))
    if both:
        raise PdiffError(f"fit.split: got the sum {both[0]} in seen and in unseen, expected it in one. Leave one out.")
    sums = rows.conditions.values.double().sum(1)
    first, second = (has_sum(sums, wanted, name) for name, wanted in (("seen", seen), ("unseen", unseen)))
    others = np.unique(rows.groups[second])
    (chosen,) = draw(others, rng, shares(len(others), select=select))
    labels = np.where(second, UNSEEN, np.where(first, SEEN, LEFT_OUT))
    return np.where(np.isin(rows.groups, chosen) & second, SELECT, labels)


def has_sum(sums: Tensor, wanted: Sequence[float], name: str) -> NDArray:
    """Return which of some sums `(N,)` are among those wanted, but for the rounding of float32."""
    for value in wanted:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PdiffError(f"fit.split.{name}: got {value!r} among the sums, expected a number. Mend it.")
    return torch.isclose(sums[:, None], torch.tensor(wanted).double(), rtol=0, atol=1e-5).any(1).numpy()


@SPLITS.register_module(name="given")
def given(rows: Conditioned) -> NDArray:
    """Take what the provenance of each checkpoint says under `split`: seen, select or unseen."""
    labels = [record.get("split") for record in rows.provenance]
    for row, label in enumerate(labels):
        if label not in PARTS:
            raise PdiffError(
                f"fit.split: checkpoint {row} is said to be {label!r} (provenance, 'split'). {known(str(label), PARTS)}"
            )
    return np.array(labels)


def shares(count: int, **parts: float) -> list[int]:
    """Return how many of `count` groups each share is, at least one; raise a `PdiffError` for shares that cannot be."""
    check_shares(**parts)
    return [max(1, round(share * count)) for share in parts.values()]


def check_shares(**parts: float) -> None:
    """Raise a `PdiffError` for shares of the conditions that cannot be."""
    for name, share in parts.items():
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise PdiffError(f"fit.split.{name}: got {share!r}, expected a share of the conditions between 0 and 1.")
    if sum(parts.values()) >= 1:
        raise PdiffError(f"fit.split: got {' and '.join(parts)} that leave nothing to be seen. Lower them.")


def draw(groups: NDArray, rng: torch.Generator, counts: Sequence[int]) -> list[NDArray]:
    """Return disjoint sets of groups, so many each."""
    order = groups[torch.randperm(len(groups), generator=rng).numpy()]
    return np.split(order, np.cumsum(counts))[: len(counts)]


def labelled(groups: NDArray, parts: Mapping[str, NDArray]) -> NDArray:
    """Return the part of each row `(N,)`: that which its group is in, else `seen`."""
    labels = np.full(len(groups), SEEN, dtype=object)
    for name, members in parts.items():
        labels[np.isin(groups, members)] = name
    return labels.astype(str)


def check_split(cfg: Mapping[str, Any]) -> None:
    """Raise a `PdiffError` for a section that describes no split, before there is a population."""
    call = prepare(SPLITS, cfg, "fit.split", {"rng": None}, rows=None)
    if call.func in (random, ball, by_sum):
        bound = signature(call.func).bind(*call.args, **call.keywords)
        bound.apply_defaults()
        settings = bound.arguments
        check_shares(**{name: settings[name] for name in ("select", "unseen") if not isinstance(settings[name], list)})


def choose_conditions(run: "Run") -> dict[str, Any]:
    """Return which checkpoints of the run are seen, select and unseen; see `split_conditions`."""
    population, settings = run.collected, run.config.fit
    symmetry = build_symmetry(settings.symmetry, population.layout)
    rng = generator(run.config.seed, "split")
    return split_conditions(settings.split, population.conditions, population.provenance, symmetry, rng)


def check_conditions(config: Config, layout: Layout, conditions: Conditions | None = None) -> None:
    """Raise a `PdiffError` for settings of conditions that cannot be, before there is a population.

    Args:
        config: of the run.
        layout: of a vector.
        conditions: of all checkpoints that there will be, where that is known.
    """
    check_split(config.fit.split)
    symmetry = build_symmetry(config.fit.symmetry, layout)
    if conditions is not None:
        nothing, rng = [{}] * len(conditions), generator(config.seed, "split")
        split_conditions(config.fit.split, conditions, nothing, symmetry, rng)
    guidance = config.generate.guidance
    if guidance != 1 and not config.engine.condition_dropout:
        raise PdiffError(
            f"generate.guidance: got {guidance}, expected 1 where engine.condition_dropout is 0, so that nothing is "
            "learnt without conditions. Raise engine.condition_dropout, or leave the guidance at 1."
        )


def split_conditions(
    cfg: Mapping[str, Any],
    conditions: Conditions,
    provenance: Sequence[Mapping[str, Any]],
    symmetry: Symmetry | None,
    rng: torch.Generator,
) -> dict[str, Any]:
    """Return which checkpoints are seen, select and unseen, as `heldout.json` has it.

    Args:
        cfg: the section `fit.split`.
        conditions: of each checkpoint `(N, C)`.
        provenance: of each checkpoint.
        symmetry: that the config declares.
        rng: of what is drawn.

    Returns:
        `select`, `unseen` and `gap` (left out) with their rows, `rows` (select and unseen), `groups` `(N,)`, `by` and
        `line`.

    Raises:
        PdiffError: a group stands in two parts, or a part has too few groups.
    """
    rows = Conditioned(conditions, connected(conditions, provenance, symmetry), provenance)
    labels = np.asarray(build(SPLITS, cfg, "fit.split", {"rng": rng}, rows=rows)).astype(str)
    if labels.shape != (len(conditions),) or not set(labels) <= set(PARTS):
        got = f"{labels.shape} of {', '.join(sorted(set(labels))[:5])}"
        line = f"fit.split: got {got} from {cfg['type']!r}, expected one of {', '.join(PARTS)} for each checkpoint."
        raise PdiffError(f"{line} Mend the split.")
    check_leaks(rows, labels)
    groups = {name: len(np.unique(rows.groups[labels == name])) for name in PARTS}
    check_sizes(groups)
    place = {name: np.flatnonzero(labels == name).tolist() for name in PARTS}
    line = ", ".join(f"{len(place[name])} checkpoints of {groups[name]} groups {name}" for name in PARTS if place[name])
    return {
        "rows": sorted(place[SELECT] + place[UNSEEN]),
        "gap": place[LEFT_OUT],
        "by": "conditions",
        "line": line,
        "select": place[SELECT],
        "unseen": place[UNSEEN],
        "groups": rows.groups.tolist(),
    }


def check_leaks(rows: Conditioned, labels: NDArray) -> None:
    """Raise a `PdiffError` where a group stands in two parts of the split."""
    first: dict[int, int] = {}
    for row, (group, label) in enumerate(zip(rows.groups.tolist(), labels, strict=True)):
        if label == LEFT_OUT:
            continue
        other = first.setdefault(group, row)
        if labels[other] == label:
            continue
        line = f"fit.split: checkpoint {other} is {labels[other]} and checkpoint {row} is {label}, but"
        raise PdiffError(f"{line} {why(rows, other, row)}, so that one would leak to the other. Put them on one side.")


def why(rows: Conditioned, first: int, second: int) -> str:
    """Return words for what makes two rows one group."""
    if torch.equal(rows.conditions.values[first], rows.conditions.values[second]):
        return f"their conditions are equal ({shown(rows.conditions[first])})"
    label = rows.provenance[first].get("group")
    if label is not None and label == rows.provenance[second].get("group"):
        return f"both are of the group {label!r}"
    return (
        f"{shown(rows.conditions[first])} and {shown(rows.conditions[second])} are joined by the symmetry of "
        "fit.symmetry, or by a group"
    )


def check_sizes(groups: Mapping[str, int]) -> None:
    """Raise a `PdiffError` where a part of the split has too few groups."""
    for name, least in ((SEEN, FEWEST_SEEN), (SELECT, 1), (UNSEEN, FEWEST_UNSEEN)):
        if groups[name] < least:
            raise PdiffError(
                f"fit.split: got {groups[name]} groups of conditions that are {name}, expected at least {least}. "
                "Take networks for more conditions, or change fit.split."
            )
