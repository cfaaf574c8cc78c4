"""Are the generated copies of what the engine was fitted to? A test, and controls that say whether it can tell here.

After Meehan, Chaudhuri and Dasgupta (2020, arXiv 2004.05675): a model copies when what it draws lies closer to its
training data than new data do. Two things differ from the paper, since steps of one fine-tuning are near to each other
and since averages are near to everything:

- New data are other branches, never other steps of a branch that was fitted. What is compared is not a distance but a
  ratio of two: that to the nearest vector of any branch over that to the nearest vector of the second nearest branch. A
  copy has a ratio near 0; a fresh branch, and an average of many, lies about as far from the one as from the other.
- The paper's cells are left out: a population has a handful of branches. Copying that few of the generated do shows in
  `share`.

Distances are of coordinates on the principal axes that hold 99 % of the fitted vectors' variance: noise on thousands of
coordinates, most of which never move in training, would otherwise hide the copy that it is added to.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdiff.analysis.neighbours import LARGEST, Neighbours, distances
from pdiff.analysis.references import coordinates_of
from pdiff.analysis.statistics import Difference, Values, contrast
from pdiff.runtime.seeding import generator, normal
from pdiff.weights.gram import MOST, axes_of_many, centred_gram, centred_products
from pdiff.weights.origin import COLLECTED, Origin
from pdiff.weights.vectors import CPU, Rows, Vectors, deviations, mean, parts, pieces, row_slices

if TYPE_CHECKING:
    from pdiff.canonical.form import Form

COPYING = 0.01  # one-sided; an accusation needs more than the usual 0.05
SUBSPACE = 0.99  # of the fitted vectors' variance
MOST_AXES = 1024  # of very many vectors
MOST_POINTS = 500  # about, fitted or held out, where they are very many or are brought into another order of units
FEWEST_FITTED = 3  # branches: each of them has two others to lie between
CLOSEST = 1e-3  # the smallest ratio: closer than that is a copy, however close
NOISE = 0.5  # of the distance at which fresh branches lie: noise that leaves a copy a copy


@dataclass(frozen=True)
class Control:
    """What the test says of vectors of which it is known whether they are copies.

    Attributes:
        p: one-sided, of being no closer to single branches than fresh branches are.
        as_expected: the test says what is known.
    """

    p: float
    as_expected: bool


@dataclass(frozen=True)
class Copying:
    """What came of the test.

    Attributes:
        statistic: t; negative where the generated are closer to single branches than fresh branches are.
        p: one-sided, of being no closer; None where nothing could be tested.
        p_raw: the same, with distances to the fitted vectors themselves instead of what the codec makes of them.
        own, reference: the geometric mean ratio of the generated, and of fresh branches.
        halfway: the ratio halfway from fresh branches to the control with noise: what is above it is closer to single
            branches than fresh ones are, perhaps surely, but no copy. Averages are.
        share: of the generated with a smaller ratio than all but one in a hundred fresh vectors.
        controls: by name: `codec`, fitted vectors encoded and decoded, and `noise`, these with a little noise, are
            copies; `fresh`, the held-out branches against the fitted ones, are none.
        line: what the test found, or why it found nothing.
    """

    statistic: float | None
    p: float | None
    p_raw: float | None
    own: float | None
    reference: float | None
    halfway: float | None
    share: float | None
    controls: dict[str, Control]
    line: str

    @property
    def power(self) -> bool:
        """Whether the test can tell copies from fresh branches here: all controls came out as they must."""
        return bool(self.controls) and all(control.as_expected for control in self.controls.values())

    @property
    def copies(self) -> bool:
        """Whether the generated are copies; never without power."""
        return self.power and self.p < COPYING and self.own < self.halfway

    def to_json(self) -> dict[str, Any]:
        """Return what other programs read."""
        return {**asdict(self), "power": self.power, "copies": self.copies}


@dataclass(frozen=True)
class Space:
    """Where closeness is judged: the fitted vectors' coordinates on their principal axes.

    Attributes:
        fitted: `(F, K)`.
        branches: of each of them `(F,)`.
    """

    fitted: Tensor
    branches: NDArray

    def ratios(self, points: Tensor, own: NDArray | None = None) -> NDArray:
        """Return the logarithm of each point's ratio `(M,)`, at least that of `CLOSEST`.

        Of several branches the nearest two lie closer together than of one fewer. So that all points have as many,
        those that belong to none of the fitted branches get the mean over leaving out each branch in turn.

        Args:
            points: `(M, K)`.
            own: fitted branch of each point, which is left out `(M,)`; None for points of none.
        """
        first, second, third = np.sort(self.nearest(points, own), 1)[:, :3].T
        if own is not None:
            return logarithm(first, second)
        others = len(np.unique(self.branches)) - 2
        pairs = logarithm(second, third) + logarithm(first, third) + others * logarithm(first, second)
        return pairs / (others + 2)

    def nearest(self, points: Tensor, own: NDArray | None = None) -> NDArray:
        """Return each point's distance to the nearest vector of each fitted branch `(M, B)`; infinite to its own."""
        table, names = distances(points, self.fitted).double().numpy(), np.unique(self.branches)
        nearest = np.stack([table[:, self.branches == name].min(1) for name in names], 1)
        return nearest if own is None else np.where(own[:, None] == names, np.inf, nearest)


@dataclass(frozen=True)
class Subspace:
    """The principal axes that hold `SUBSPACE` of the fitted vectors' variance, and the fitted vectors on them.

    Attributes:
        fitted: their coordinates `(F, K)`.
        project: from vectors `(M, P)` to theirs `(M, K)`.
    """

    fitted: Tensor
    project: Callable[[Vectors], Tensor]


def subspace(fitted: Tensor | Rows, device: torch.device = CPU) -> Subspace:
    """Return the principal axes of the fitted vectors `(F, P)`: of many no more than `MOST_AXES`.

    A device computes the inner products.
    """
    if len(fitted) <= MOST:
        gram = centred_gram(fitted, device).cpu()
        axes, explained = coordinates_of(gram)
        axes = axes[:, : enough(explained)]  # in the fitted: inner products are coordinates
        known = (gram @ axes).float()
        return Subspace(known, lambda vectors: (centred_products(vectors, fitted, device) @ axes).float())
    axes, variances = axes_of_many(fitted, MOST_AXES)
    axes, average = axes[: enough(variances / deviations(fitted).square().sum())], mean(fitted)

    def project(vectors: Vectors) -> Tensor:
        return torch.cat([(part - average) @ axes.T for part in parts(vectors)])

    return Subspace(project(fitted), project)


def enough(explained: Tensor) -> int:
    """Return how many of the first axes hold `SUBSPACE` of the variance, by their shares `(K,)`."""
    return int((explained.cumsum(0) < SUBSPACE).sum()) + 1


def few_of_each(labels: NDArray, most: int) -> NDArray:
    """Return about `most` rows `(m,)`, evenly spaced in every branch, at least one of each.

    Args:
        labels: branch of each row `(N,)`.
        most: about how many rows.
    """
    each = max(1, most // len(np.unique(labels)))
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    few = [own[np.linspace(0, len(own) - 1, min(each, len(own))).astype(int)] for own in rows]
    return np.sort(np.concatenate(few))


def logarithm(near: NDArray, far: NDArray) -> NDArray:
    """Return the logarithm of the ratio of distances `(M,)`; 0 where both are none."""
    ratio = np.divide(near, far, out=np.ones_like(near), where=far > 0)
    return np.log(np.maximum(ratio, CLOSEST))


@dataclass(frozen=True)
class Fresh:
    """Vectors that are no copies of a branch other than their own: some of each branch, fitted or held out.

    Attributes:
        rows: of the fitted `(f,)`, and of the held-out `(h,)`.
        labels: branch of each of either, `(f,)` and `(h,)`.
        neighbours: what they are brought into the order of units of, where units have none.
    """

    rows: tuple[NDArray, NDArray]
    labels: tuple[NDArray, NDArray]
    neighbours: Neighbours

    def points(self, which: int, vectors: Vectors, known: Tensor, project: Callable[[Vectors], Tensor]) -> Tensor:
        """Return the coordinates `(m, K)` of the fitted (0) or the held-out ones (1).

        Args:
            which: of both.
            vectors: all fitted, or held-out, ones `(F, P)`, or what the codec makes of them.
            known: their coordinates as they are `(F, K)`.
            project: from vectors to coordinates.
        """
        rows, labels = self.rows[which], self.labels[which]
        if not self.neighbours.tried:
            return known[rows]
        shape = (len(rows), vectors.shape[1])
        aligned = (self.neighbours.aligned(vectors[rows[own]], labels[own]) for own in row_slices(shape))
        return torch.cat([project(part) for part in aligned])


def untested(line: str) -> Copying:
    """Return that nothing was tested, and why."""
    return Copying(*[None] * 7, controls={}, line=f"copying is not tested: {line}")


def examine(
    generated: Vectors,
    fitted: Tensor | Rows,
    heldout: Tensor | Rows,
    decode: Callable[[], tuple[Vectors, Vectors]],
    branches: tuple[NDArray, NDArray],
    fits: NDArray | None,
    seed: int,
    origin: Origin = COLLECTED,
    form: "Form | None" = None,
    device: torch.device = CPU,
) -> Copying:
    """Test whether the generated are copies of the fitted.

    Each branch, fitted or held out, is held against the fitted branches other than itself; these are the fresh ones.
    Where units have no order of their own, every point is brought into the order that is nearest to one of the fitted.

    Args:
        generated: `(M, P)`.
        fitted: those that the engine was fitted to `(F, P)`.
        heldout: whole branches that it has not seen `(H, P)`.
        decode: returns what the codec makes of either, `(F, P)` and `(H, P)`.
        branches: of either, `(F,)` and `(H,)`.
        fits: which fit drew each of the generated `(M,)`; None for one.
        seed: of the noise of a control.
        origin: of the population.
        form: the canonical form that fitted and held-out ones are in; None where units keep their order.
        device: that computes inner products and distances of vectors.
    """
    seen, unseen = len(np.unique(branches[0])), len(set(branches[1]) - set(branches[0]))
    if seen < FEWEST_FITTED or not unseen:
        few = origin.more  # which may be why none was held out, too
        found = f"{origin.count(seen)} {'is' if seen == 1 else 'are'} fitted and {unseen} held out"
        todo = few if seen <= FEWEST_FITTED else f"raise fit.heldout, or {few}"
        return untested(f"{found}, expected at least {FEWEST_FITTED} and one: {todo}")
    if len(generated) == 1:
        return untested("a single vector was generated: nothing tells how much others differ. Raise generate.num")
    axes, neighbours = subspace(fitted, device), Neighbours(fitted, branches[0], form, device)
    decoded = decode()
    all_, many = (np.arange(len(labels)) for labels in branches), neighbours.tried > 0 or len(fitted) > MOST
    rows = tuple(few_of_each(labels, MOST_POINTS) for labels in branches) if many else tuple(all_)
    some = Fresh(rows, tuple(labels[own] for labels, own in zip(branches, rows, strict=True)), neighbours)
    raw, through = (axes.fitted, axes.project(heldout)), tuple(map(axes.project, decoded))
    aligned = map(neighbours.aligned, pieces(generated)) if neighbours.tried else [generated]
    own = torch.cat([axes.project(part) for part in aligned])
    told = own.norm(dim=1) < LARGEST  # a NaN is not
    if told.sum() < 2:
        return untested("fewer than two of the generated are finite, and small enough to have a distance")
    own, fits = own[told], None if fits is None else fits[told.numpy()]
    points = [some.points(which, decoded[which], through[which], axes.project) for which in (0, 1)]
    raw_points = [some.points(which, (fitted, heldout)[which], raw[which], axes.project) for which in (0, 1)]
    space = Space(through[0], branches[0])
    found, ratios, fresh = tested(own, space, points, some.labels, fits)
    raw_found = tested(own, Space(raw[0], branches[0]), raw_points, some.labels, fits)[0]
    copies, labels = through[0][rows[0]], some.labels[0]
    rng = generator(seed, "copying", "noise")
    reach = float(np.median(space.nearest(torch.cat(points), np.concatenate(some.labels)).min(1)))
    step = normal(copies.shape, rng)
    noisy = copies + NOISE * reach * step / step.norm(dim=1, keepdim=True).clamp(min=1e-30)
    noise = space.ratios(noisy)
    halfway = float(np.exp((noise.mean() + fresh.metrics.mean()) / 2))
    controls = {
        "codec": copied(space.ratios(copies), labels, fresh, halfway),
        "noise": copied(noise, labels, fresh, halfway),
        "fresh": not_copied(fresh, np.unique(branches[1]), halfway),
    }
    p, ratio = one_sided(found), (float(np.exp(ratios.mean())), float(np.exp(fresh.metrics.mean())))
    share = float((ratios < np.quantile(fresh.metrics, 0.01)).mean())
    failed = [name for name, control in controls.items() if not control.as_expected]
    line = (
        f"the generated lie {ratio[0]:.2f} times as far from the nearest {origin.branch} as from the second, "
        f"fresh {origin.branches} {ratio[1]:.2f} times (p {p:.2g}), copies less than {halfway:.2f}; {share:.0%} of "
        "them are closer than 99 of 100 fresh ones"
    )
    if p >= COPYING:
        line = f"no copies: {line}"
    elif ratio[0] >= halfway:
        line = f"no copies, but surely closer to single {origin.branches} than fresh ones: {line}"
    if failed:
        line = f"the copying test has no power here, its controls ({', '.join(failed)}) came out wrong; {line}"
    return Copying(
        statistic=statistic(found),
        p=p,
        p_raw=one_sided(raw_found),
        own=ratio[0],
        reference=ratio[1],
        halfway=halfway,
        share=share,
        controls=controls,
        line=line,
    )


def tested(
    own: Tensor, space: Space, points: Sequence[Tensor], labels: tuple[NDArray, NDArray], fits: NDArray | None
) -> tuple[Difference, NDArray, Values]:
    """Return the generated against fresh branches, and the ratios of either; points and labels are those of `Fresh`."""
    known = np.concatenate([space.ratios(points[0], labels[0]), space.ratios(points[1])])
    fresh, ratios = Values("fresh", known, np.concatenate(labels), None, "branches"), space.ratios(own)
    return contrast(Values("generated", ratios, fits), fresh, True), ratios, fresh


def copied(ratios: NDArray, labels: NDArray, fresh: Values, halfway: float) -> Control:
    """Return whether the test finds the copies that these are."""
    p = one_sided(contrast(Values("control", ratios, labels), fresh, True))
    return Control(p, bool(p < COPYING and np.exp(ratios.mean()) < halfway))


def not_copied(fresh: Values, heldout: NDArray, halfway: float) -> Control:
    """Return whether the test acquits the held-out branches, held against the fitted ones.

    A branch is one draw, and both kinds are taken to scatter alike, as one may be a single branch.
    """
    names = np.unique(fresh.units)
    means = np.array([fresh.metrics[fresh.units == name].mean() for name in names])
    unseen = np.isin(names, heldout)
    freedom = len(names) - 2
    scatter = sum(((own - own.mean()) ** 2).sum() for own in (means[unseen], means[~unseen])) / freedom
    variance = scatter * (1 / unseen.sum() + 1 / (~unseen).sum())
    p = lower_tail(means[unseen].mean() - means[~unseen].mean(), variance, freedom)
    return Control(p, bool(p >= COPYING or np.exp(means[unseen].mean()) >= halfway))


def statistic(found: Difference) -> float:
    """Return t."""
    return found.difference / np.sqrt(found.variance) if found.variance > 0 else float(np.sign(found.difference)) * 1e9


def one_sided(found: Difference) -> float:
    """Return the p-value of being no smaller."""
    return lower_tail(found.difference, found.variance, found.freedom)


def lower_tail(difference: float, variance: float, freedom: float) -> float:
    """Return the chance of a difference as small as this one, or smaller, where there is none."""
    from scipy.stats import t

    if variance == 0:
        return 0.0 if difference < 0 else 1.0
    return float(t.cdf(difference / np.sqrt(variance), freedom))
