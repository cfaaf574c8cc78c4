"""Where candidates come from: the trained, the generated, and baselines that cost next to nothing.

Whoever reports generated parameters without the baselines misleads (arXiv 2506.07998). A source returns vectors
`(M, P)`; an ensemble returns `(M, K, P)`, K vectors whose predictions count together. What is not stored already is
made a few vectors at a time (`Made`), with the same draws at every pass.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from mmengine.registry import Registry
from torch import Size, Tensor

from pdiff.analysis.neighbours import MATCHED
from pdiff.analysis.source_results import OF_GENERATED
from pdiff.canonical.form import Form
from pdiff.engine.whitening import Whitening
from pdiff.run.derived import ENSEMBLES, MEMBERS, OF_ANOTHER, check_members_of, check_of
from pdiff.run.finetuning import TYPES, beginning, check_collected, finetuned
from pdiff.run.heldout import split_population
from pdiff.run.needed import is_evaluated
from pdiff.run.recalibration import check_recalibration, recalibrated
from pdiff.run.refining import Refinement, check_refinement, refined
from pdiff.run.targets import Targets, open_targets
from pdiff.run.wanted import Wanted, open_wanted
from pdiff.runtime.errors import PdiffError, check_not_negative, check_positive, check_share, known
from pdiff.runtime.progress import logger
from pdiff.runtime.registry import build, find, prepare
from pdiff.runtime.seeding import generator, normal
from pdiff.task.task import Candidates
from pdiff.weights.conditions import Conditions
from pdiff.weights.gram import MOST, axes_of_many, centred_blocks, centred_gram
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import CPU, Made, Rows, Vectors, along_columns, mean

if TYPE_CHECKING:
    from pdiff.run.run import Run

OF_SEVERAL = ("soup_of", "ensemble")
AMOUNTS = {
    **dict.fromkeys(("num", "degree", "axes", "rank", "steps"), check_positive),
    "scale": check_not_negative,
    "weight": check_share,
}
ROOMS = [f"pdiff.run.{room}" for room in ("sources", "conditional_sources", "target_sources", "refined_sources")]
SOURCES = Registry("source", scope="pdiff", locations=ROOMS)


@dataclass(frozen=True)
class Pool:
    """What sources draw from.

    Attributes:
        population: all trained vectors `(N, P)`, memory-mapped.
        fitted: the rows of those that the engine was fitted to: what baselines may know, too.
        generated: the vectors that the engine drew `(M, P)`, memory-mapped.
        layout: of a vector.
        encode: from vectors to latents `(M, L)`.
        decode: from latents to vectors.
        num: how many candidates a source gives whose settings do not say it.
        evaluated: how many trained vectors are candidates themselves; None for all.
        wanted: what networks are wanted for; None in a run without conditions.
        generated_for: which of the wanted conditions each generated vector was drawn for `(M,)`; None without any.
        draw: from conditions and a seed to latents, one for each; None without any.
        targets: what the engine is conditioned on and asked for; None without `fit.conditions`.
        form: the canonical form of the population; None where units keep the order they came in.
        base: returns the selection that every network of the collection began with `(P,)`.
        finetune: from W conditions and a number of steps to what these make of it `(W, P)`, and the seconds they took.
        hypernet: from W conditions to the vectors that the hypernetwork gives for them `(W, P)`; None without one.
        refine: from settings, vectors `(M, P)` and their conditions, if there are any, to what a training makes of the
            vectors, and the seconds it took.
        other: from the name of another source of the same table to what it gives.
        device: where sums over all of the vectors are computed; what sources give lies on the CPU.
    """

    population: Tensor
    fitted: Tensor
    generated: Tensor
    layout: Layout
    encode: Callable[[Tensor | Rows], Tensor]
    decode: Callable[[Tensor], Tensor]
    num: int
    evaluated: int | None = None
    wanted: Wanted | None = None
    generated_for: Tensor | None = None
    draw: Callable[[Conditions, int], Tensor] | None = None
    targets: Targets | None = None
    form: Form | None = None
    base: Callable[[], Tensor] | None = None
    finetune: Callable[[Conditions, int], tuple[Tensor, float]] | None = None
    hypernet: Callable[[Conditions], Tensor] | None = None
    refine: Callable[[Refinement, Tensor, Conditions | None], tuple[Tensor, float]] | None = None
    other: Callable[[str], "Drawn"] | None = None
    device: torch.device = CPU

    @property
    def known(self) -> Rows:
        """The trained vectors that the engine was fitted to `(F, P)`."""
        return Rows(self.population, self.fitted)

    @property
    def parents(self) -> Tensor:
        """The rows of the population that others are made of: fitted, and themselves among the candidates."""
        shown = spaced(len(self.population), self.evaluated)
        both = shown[torch.isin(shown, self.fitted)]
        return both if len(both) else self.fitted

    def count(self, num: int | None) -> int:
        """Return `num`, or the default number for None; raise a `PdiffError` unless that is positive."""
        number = self.num if num is None else num
        check_positive("evaluate.sources", num=number)
        return number

    def reconstruct(self, vectors: Tensor | Rows) -> Vectors:
        """Return what the codec makes of vectors, a few at a time."""
        latents = self.encode(vectors)
        return Made(vectors.shape, lambda rows, rng: self.decode(latents[rows]), generator(0))


@dataclass(frozen=True)
class Drawn:
    """Vectors of a source, and what is known of each.

    Attributes:
        vectors: `(M, P)`, or `(M, K, P)`.
        parents: the row of the population that each is, or is made of `(M,)`; None where there is not one.
        wanted: which of the wanted conditions each is for `(M,)`; None in a run without conditions.
        seconds: that were spent on all of them before, where they are kept.
    """

    vectors: Vectors
    parents: Tensor | None = None
    wanted: Tensor | None = None
    seconds: float = 0.0


def open_pool(run: "Run") -> Pool:
    """Return what the sources of a run draw from."""
    population, wanted = run.population, open_wanted(run)
    trained = None if wanted else run.config.evaluate.sources["trained"]

    def draw(conditions: Conditions, seed: int) -> Tensor:
        return run.engine.sample_latents(len(conditions), seed, **run.drawing, conditions=conditions.values)

    return Pool(
        population.tensor(),
        split_population(run)[0].rows,
        run.generated,
        population.layout,
        run.engine.encode,
        run.engine.decode,
        run.config.evaluate.num,
        trained and trained.get("num"),
        wanted,
        None if wanted is None else torch.tensor(run.generated_for),
        draw,
        open_targets(run),
        run.form,
        partial(beginning, run),
        partial(finetuned, run),
        None if run.config.fit.hypernet is None else lambda conditions: run.hypernet.predict(conditions.values),
        partial(refined, run),
        device=run.device,
    )


def source_table(run: "Run") -> Mapping[str, Mapping[str, Any]]:
    """Return the sources of the config: `evaluate.conditional` where the population has conditions, else the others."""
    return run.config.evaluate.conditional if run.conditional else run.config.evaluate.sources


def source_names(run: "Run") -> list[str]:
    """Return the sources of the config that this run can have; see `possible`."""
    return possible(run, source_table(run))


def possible(run: "Run", table: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Return the names in a table of sources that are evaluated: those of `available` that `evaluate.only` leaves."""
    return [name for name in available(run, table) if is_evaluated(name, run.config.evaluate.only)]


def left_out(run: "Run") -> list[str]:
    """Return the sources that this run could have, and that `evaluate.only` leaves out."""
    return [name for name in available(run, source_table(run)) if not is_evaluated(name, run.config.evaluate.only)]


def available(run: "Run", table: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Return the names in a table of sources, but for those that are null or that the run lacks something for."""
    lacking = [("symmetry", run.config.fit.symmetry is not None), ("ridge_gaussian", run.targeted)]
    lacking += [("finetuned", run.has_hook("finetune"))]
    lacking += [(kind, run.measures_ensembles) for kind in ENSEMBLES]
    without = [kind for kind, given in lacking if not given]
    return [name for name, source in table.items() if source is not None and source.get("type") not in without]


def check_amounts(where: str, source: Mapping[str, Any], own: bool) -> None:
    """Raise a `PdiffError` for an amount that no source of `own` can have; what a plugin calls so is its own."""
    for name, check in AMOUNTS.items():
        if source.get(name) is not None and (own or name == "num"):
            check(where, **{name: source[name]})


def check_sources(run: "Run") -> None:
    """Raise a `PdiffError` for a source that cannot be, before anything is computed for it."""
    for section in ("sources", "conditional"):
        table = run.config.evaluate[section]
        for name in possible(run, table):
            where = f"evaluate.{section}.{name}"
            made = prepare(SOURCES, table[name], where, {"rng": None}, pool=None)
            if section == "sources" and made.func.__module__ == ROOMS[1] and table[name]["type"] != "base":
                line = f"{where}.type: got {table[name]['type']!r}, a source of networks for conditions"
                raise PdiffError(f"{line}, expected one that needs none. Put it into evaluate.conditional.")
            if table[name]["type"] == "hypernet" and run.config.fit.hypernet is None:
                line = "got 'hypernet', but there is none, for fit.hypernet is null"
                raise PdiffError(f"{where}.type: {line}. Set fit.hypernet, or the source to null.")
            own = made.func.__module__ in ROOMS and table[name]["type"] != "refined"  # which may take no step
            check_amounts(where, table[name], own)
            if table[name]["type"] in TYPES:
                check_collected(run, where)
    check_others(run)
    check_recalibration(run)
    names = possible(run, run.config.evaluate.sources)
    for name in names:
        if run.config.evaluate.sources[name]["type"] in OF_GENERATED:
            check_members(f"evaluate.sources.{name}", run.config.evaluate.sources[name], run.config.generate.num)
    names = available(run, run.config.evaluate.sources)  # of one that is not evaluated, nothing is measured
    for name in run.config.evaluate.train:
        if name not in names:
            raise PdiffError(f"evaluate.train: got {name!r}. {known(name, names)}")


def check_others(run: "Run") -> None:
    """Raise a `PdiffError` for a source that is made of another one where that cannot be."""
    for section in ("sources", "conditional"):
        table = run.config.evaluate[section]
        names = possible(run, table)
        for name in (name for name in names if table[name]["type"] in OF_ANOTHER):
            where = f"evaluate.{section}.{name}"
            check_of(where, table, names, name)
            if table[name]["type"] == "refined":
                check_refinement(run, where, table[name], section == "conditional")
                continue
            if section == "conditional":
                line = "got 'ensemble_of', whose networks are for no condition, expected a source of networks for one"
                raise PdiffError(f"{where}.type: {line}. Put it into evaluate.sources.")
            kind = table[table[name]["of"]]["type"]
            if find(SOURCES, kind, where).__module__ in ROOMS:  # nobody knows how many a plugin's gives
                check_members_of(run, where, table, name)


def check_members(where: str, source: Mapping[str, Any], generated: int) -> None:
    """Raise a `PdiffError` for a source of several generated vectors each that wants more than are generated."""
    members = source.get("members", MEMBERS)
    check_positive(where, members=members)
    if members > generated:
        line = f"got {members}, expected at most {generated}, those that are generated"
        raise PdiffError(f"{where}.members: {line}. Lower it, or raise generate.num.")


def tell_members(run: "Run", count: int, before: int | None = None) -> None:
    """Say which averages and ensembles are of fewer checkpoints than their settings say, for there are no more.

    Args:
        run: the run.
        count: of the checkpoints that they choose from.
        before: of those that there were when this was said before; None where it was not.
    """
    table = run.config.evaluate.sources
    for name in possible(run, table):
        members = table[name].get("members", MEMBERS)
        if table[name]["type"] in OF_SEVERAL and count < members and (before is None or members <= before):
            words = "evaluate.sources.%s: takes all of %d checkpoints, for there are no %d. Set members, or it to null"
            logger.warning(words, name, count, members)


def open_source(run: "Run", name: str, pool: Pool) -> Drawn:
    """Return what the source that the config calls `name` gives; the same at each call."""
    if name not in source_names(run):
        raise PdiffError(f"source: got {name!r}. {known(name, source_names(run))}")
    where = f"evaluate.{'conditional' if pool.wanted else 'sources'}.{name}"
    rng = generator(run.later_seed, "source", name)
    pool = replace(pool, other=partial(open_source, run, pool=pool))
    found = build(SOURCES, source_table(run)[name], where, {"rng": rng}, pool=pool)
    found = found if isinstance(found, Drawn) else Drawn(found)
    check_vectors(where, found.vectors, pool.layout.size)
    if isinstance(found.vectors, Made):
        found.vectors.make = partial(checked, where, found.vectors.shape, found.vectors.make)
    check_parents(where, found.parents, len(found.vectors), len(pool.population))
    found = replace(found, vectors=recalibrated(run, source_table(run)[name]["type"], found.vectors))
    if pool.wanted is None:
        return found
    if found.wanted is None:
        return for_all(where, found, len(pool.wanted))
    check_wanted(where, found.wanted, len(found.vectors), len(pool.wanted))
    return found


def for_all(where: str, found: Drawn, count: int) -> Drawn:
    """Return what a source gives that does not say for which of `count` conditions: one for each, or one for all."""
    vectors = found.vectors
    if len(vectors) == 1 < count:
        repeated = torch.zeros(count, dtype=torch.long)
        return Drawn(Rows(vectors[:], repeated), wanted=torch.arange(count))
    if len(vectors) != count:
        line = f"got {len(vectors)} vectors for {count} wanted conditions, expected one for each"
        raise PdiffError(f"{where}: {line}. Return Drawn(vectors, wanted=...) where they are for some of them.")
    return Drawn(vectors, found.parents, torch.arange(count))


def check_wanted(where: str, wanted: Any, size: int, count: int) -> None:
    """Raise a `PdiffError` unless a source says for which of `count` conditions its `size` vectors are, none without.

    Args:
        where: its place in the config, for the error line.
        wanted: numbers of wanted conditions `(size,)`.
        size: vectors.
        count: wanted conditions.
    """
    expected = f"the number of a wanted condition, 0 to {count - 1}, for each of {size} vectors"
    if not isinstance(wanted, Tensor) or wanted.dtype != torch.long:
        got = str(wanted.dtype) if isinstance(wanted, Tensor) else type(wanted).__name__
        raise PdiffError(f"{where}: got wanted as {got}, expected a tensor of int64: {expected}. Mend the source.")
    if wanted.shape != (size,) or not ((wanted >= 0) & (wanted < count)).all():
        got = f"of shape {tuple(wanted.shape)}, from {wanted.min()} to {wanted.max()}" if wanted.numel() else "empty"
        raise PdiffError(f"{where}: got wanted {got}, expected {expected}. Mend the source.")
    without = sorted({*range(count)} - {*wanted.tolist()})
    if without:
        line = f"got no vector for {len(without)} of {count} wanted conditions (number {without[0]}, for one)"
        raise PdiffError(f"{where}: {line}, expected one for each at least. Mend the source.")


def checked(where: str, shape: Size, make: Callable, rows: slice, rng: torch.Generator) -> Tensor:
    """Return what a source makes for a slice of its rows, or raise a `PdiffError` where it is something else.

    Args:
        where: its place in the config, for the error line.
        shape: of all that it makes.
        make: what makes them.
        rows: that are asked for.
        rng: what is drawn from.
    """
    part, expected = make(rows, rng), Size([rows.stop - rows.start, *shape[1:]])
    if part.shape == expected and part.dtype == torch.float32 and part.device.type == "cpu":
        return part
    got = f"got {tuple(part.shape)} of {part.dtype} on {part.device} for the rows {rows.start} to {rows.stop - 1}"
    raise PdiffError(f"{where}: {got}, expected {tuple(expected)} of torch.float32 on cpu. Mend the source.")


def check_vectors(where: str, vectors: Vectors, size: int) -> None:
    """Raise a `PdiffError` where what a source returned is no vectors of this size."""
    expected = f"a float32 tensor (M, {size}), or (M, K, {size}) of ensembles, M from 1 on"
    if not isinstance(vectors, Vectors):
        raise PdiffError(f"{where}: got {type(vectors).__name__}, expected {expected}. Mend the source.")
    shape = tuple(vectors.shape)
    if not isinstance(vectors, Made):
        check_stored(where, vectors, expected)
    if len(shape) not in (2, 3) or shape[-1] != size or 0 in shape:
        raise PdiffError(f"{where}: got vectors of shape {shape}, expected {expected}. Mend the source.")


def check_stored(where: str, vectors: Tensor | Rows, expected: str) -> None:
    """Raise a `PdiffError` for vectors of another kind than those of checkpoints; the rule is `expected`."""
    stored = vectors.vectors if isinstance(vectors, Rows) else vectors
    if vectors.dtype != torch.float32:
        raise PdiffError(f"{where}: got vectors of {vectors.dtype}, expected {expected}. Mend the source.")
    if vectors.device.type != "cpu":
        raise PdiffError(f"{where}: got vectors on {vectors.device}, expected {expected}. Call .cpu() in the source.")
    if stored.layout != torch.strided:
        raise PdiffError(f"{where}: got vectors of {stored.layout}, expected {expected}. Call .to_dense().")
    if stored.requires_grad:
        raise PdiffError(f"{where}: got vectors that a gradient reaches, expected none. Call .detach() in the source.")
    if isinstance(vectors, Rows) and not ((vectors.rows >= -len(stored)) & (vectors.rows < len(stored))).all():
        line = f"got rows from {vectors.rows.min()} to {vectors.rows.max()}, expected 0 to {len(stored) - 1}"
        raise PdiffError(f"{where}: {line}. Mend the source.")


def check_parents(where: str, parents: Any, size: int, count: int) -> None:
    """Raise a `PdiffError` unless a source says for each of its vectors which row of the population it is made of.

    Args:
        where: its place in the config, for the error line.
        parents: numbers of rows `(size,)`; None where there are none.
        size: vectors.
        count: vectors of the population.
    """
    if parents is None:
        return
    whole = isinstance(parents, Tensor) and parents.dtype == torch.long and parents.shape == (size,)
    if not whole or not ((parents >= 0) & (parents < count)).all():
        line = f"got parents {parents!r}, expected an int64 tensor ({size},) of rows of the population"
        raise PdiffError(f"{where}: {' '.join(line.split())}, 0 to {count - 1}. Mend the source, or give None.")


def candidates_of(run: "Run", drawn: Drawn, pool: Pool) -> Candidates:
    """Return the vectors of a source as candidates, each with its condition where there are conditions."""
    conditions = None if pool.wanted is None else pool.wanted.conditions.take(drawn.wanted)
    return run.candidates(drawn.vectors, conditions)


def spaced(size: int, num: int | None) -> Tensor:
    """Return `num` rows of so many, evenly spaced from the first to the last; all where there are no more."""
    if num is None or num >= size:
        return torch.arange(size)
    return torch.linspace(0, size - 1, num).round().long()


@SOURCES.register_module(name="trained")
def trained(pool: Pool, rng: torch.Generator, num: int | None = None) -> Drawn:
    """Return the collected vectors; `num` of them, evenly spaced, where it is given.

    Args:
        num: how many; default: all.
    """
    rows = spaced(len(pool.population), None if num is None else pool.count(num))
    return Drawn(pool.population if len(rows) == len(pool.population) else Rows(pool.population, rows), rows)


@SOURCES.register_module(name="generated")
def from_engine(pool: Pool, rng: torch.Generator) -> Drawn:
    """Return the vectors that the engine drew."""
    return Drawn(pool.generated, wanted=pool.generated_for)


@SOURCES.register_module(name="codec")
def codec(pool: Pool, rng: torch.Generator, num: int | None = None) -> Drawn:
    """Return fitted vectors, evenly spaced, encoded and decoded: what the codec alone does to them.

    Args:
        num: how many; default: evaluate.num.
    """
    parents = pool.parents[spaced(len(pool.parents), pool.count(num))]
    return Drawn(pool.reconstruct(Rows(pool.population, parents)), parents)


@SOURCES.register_module(name="soup")
def soup(pool: Pool, rng: torch.Generator) -> Vectors:
    """Return the average of all fitted vectors."""
    return mean(pool.known)[None]


@SOURCES.register_module(name="soup_of")
def soup_of(pool: Pool, rng: torch.Generator, members: int = MEMBERS, num: int | None = None) -> Vectors:
    """Return averages of `members` fitted vectors, drawn without repetition.

    Args:
        members: fitted vectors of an average; no more than there are.
        num: how many; default: evaluate.num.
    """
    population, count = pool.population, pool.count(num)
    drawn = groups(pool.fitted, rng, min(members, len(pool.fitted)), count, "soup_of")

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        return torch.stack([mean(Rows(population, group)) for group in drawn[rows]])

    return Made([len(drawn), population.shape[1]], make, rng)


def groups(rows: Tensor, rng: torch.Generator, members: int, num: int, kind: str) -> Tensor:
    """Return groups `(num, members)` of some rows, drawn without repetition inside a group, for a type of source."""
    if not 1 <= members <= len(rows):
        raise PdiffError(
            f"evaluate.sources: got {members} members of a {kind}, expected 1 to {len(rows)}, the fitted checkpoints "
            "that it may know. Set members, set the source to null, or take more checkpoints."
        )
    return torch.stack([rows[torch.randperm(len(rows), generator=rng)[:members]] for _ in range(num)])


@SOURCES.register_module(name="interpolation")
def interpolation(pool: Pool, rng: torch.Generator, weight: float | None = None, num: int | None = None) -> Vectors:
    """Return points between two fitted vectors, on the line that joins them.

    Where these are in canonical form, the second is brought into the order of units that is nearest to the first, but
    for networks of more than two million values.

    Args:
        weight: of the second, from 0 to 1; default: drawn uniformly for each pair.
        num: how many; default: evaluate.num.
    """
    population, pairs = pool.population, groups(pool.parents, rng, 2, pool.count(num), "interpolation")
    weights = torch.rand(len(pairs), 1, generator=rng)
    if weight is not None:
        check_share("evaluate.sources", weight=weight)
        weights.fill_(weight)

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        first, second = (population[members] for members in pairs[rows].T)
        if pool.form is not None and pool.layout.size <= MATCHED:
            second = pool.form.onto(second, first)
        return torch.lerp(first, second, weights[rows])

    return Made([len(pairs), population.shape[1]], make, rng)


@SOURCES.register_module(name="gaussian")
def gaussian(pool: Pool, rng: torch.Generator, num: int | None = None) -> Vectors:
    """Return draws from an independent Gaussian per coordinate, with the moments of the fitted vectors.

    Args:
        num: how many; default: evaluate.num.
    """
    average, deviation = mean(pool.known), along_columns(lambda block: block.std(0), pool.known)

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        return average + deviation * normal(torch.Size([rows.stop - rows.start, len(average)]), rng)

    return Made([pool.count(num), len(average)], make, rng)


@SOURCES.register_module(name="gaussian_subspace")
def gaussian_subspace(pool: Pool, rng: torch.Generator, axes: int = 32, num: int | None = None) -> Vectors:
    """Return draws from a Gaussian in the first principal axes of the fitted vectors, with their covariance there.

    With X the centred fitted vectors and U the leading eigenvectors of X X^T, `(F, axes)`, a draw is the mean plus
    X^T U g / sqrt(F - 1) for white g: its covariance is that of the fitted vectors on these axes. Of many vectors the
    axes come from `axes_of_many`.

    Args:
        axes: how many; no more than there are fitted vectors.
        num: how many; default: evaluate.num.
    """
    check_positive("evaluate.sources", axes=axes)
    population = pool.known
    average = mean(population)
    if len(population) > MOST:
        found, variances = axes_of_many(population, axes)
        drawn = normal(torch.Size([pool.count(num), len(found)]), rng) * variances.sqrt().to(found)
        return Made([len(drawn), len(average)], lambda rows, rng: average + drawn[rows] @ found, rng)
    leading = torch.linalg.eigh(centred_gram(population, pool.device).cpu()).eigenvectors[:, -axes:]
    white = normal(torch.Size([pool.count(num), leading.shape[1]]), rng).double()
    weights = (white @ leading.T).to(pool.device)

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        vectors = average.repeat(rows.stop - rows.start, 1)
        for place, centred in centred_blocks(population, pool.device):
            vectors[:, place] += (weights[rows] @ centred / max(len(centred) - 1, 1) ** 0.5).float().cpu()
        return vectors

    return Made([len(white), len(average)], make, rng)


@SOURCES.register_module(name="swag")
def swag(pool: Pool, rng: torch.Generator, rank: int = 20, num: int | None = None) -> Vectors:
    """Return draws from a Gaussian of low rank plus diagonal (SWAG, Maddox et al. 2019, arXiv 1902.02476).

    A draw is the mean plus s g / sqrt(2) plus D h / sqrt(2 (K - 1)) for white g and h: s is the standard deviation of
    each coordinate, and the columns of D are K deviations from the mean. The paper takes the last K steps of one
    training and a running mean; here they are K fitted vectors, evenly spaced over all branches, and the mean of all.

    Args:
        rank: K; no more than there are fitted vectors.
        num: how many; default: evaluate.num.
    """
    check_positive("evaluate.sources", rank=rank)
    average, deviation = mean(pool.known), along_columns(lambda block: block.std(0, correction=0), pool.known)
    columns = pool.known[spaced(len(pool.fitted), rank)] - average

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        count = rows.stop - rows.start
        wide = deviation * normal(torch.Size([count, len(average)]), rng) / 2**0.5
        low = normal(torch.Size([count, len(columns)]), rng) @ columns / (2 * max(len(columns) - 1, 1)) ** 0.5
        return average + wide + low

    return Made([pool.count(num), len(average)], make, rng)


@SOURCES.register_module(name="latent_gaussian")
def latent_gaussian(pool: Pool, rng: torch.Generator, num: int | None = None) -> Vectors:
    """Return decoded draws from a Gaussian with the moments of the fitted vectors' latents.

    What a diffusion that learnt nothing but mean and covariance draws through the same codec: the baseline that the
    generated have to beat if the diffusion is to be worth its name.

    Args:
        num: how many; default: evaluate.num.
    """
    latents = torch.as_tensor(pool.encode(pool.known))
    whitening = Whitening(latents.shape[1])
    whitening.fit(latents)
    drawn = whitening.inverse(normal(torch.Size([pool.count(num), latents.shape[1]]), rng))
    return Made([len(drawn), pool.layout.size], lambda rows, rng: pool.decode(drawn[rows]), rng)


@SOURCES.register_module(name="relative_noise")
def relative_noise(pool: Pool, rng: torch.Generator, scale: float, num: int | None = None) -> Drawn:
    """Return fitted vectors, drawn at random, with noise of `scale` times each tensor's standard deviation.

    Args:
        scale: of the noise, in standard deviations of each tensor's values.
        num: how many; default: evaluate.num.
    """

    def widen(vectors: Tensor, noise: Tensor) -> Tensor:
        for entry in pool.layout:
            noise[:, entry.slice] *= vectors[:, entry.slice].std(1, correction=0, keepdim=True)
        return noise

    return noisy(pool, rng, scale, num, widen)


@SOURCES.register_module(name="absolute_noise")
def absolute_noise(pool: Pool, rng: torch.Generator, scale: float, num: int | None = None) -> Drawn:
    """Return fitted vectors, drawn at random, with noise of standard deviation `scale` on every coordinate.

    Args:
        scale: of the noise.
        num: how many; default: evaluate.num.
    """
    return noisy(pool, rng, scale, num, lambda vectors, noise: noise)


def noisy(
    pool: Pool, rng: torch.Generator, scale: float, num: int | None, widen: Callable[[Tensor, Tensor], Tensor]
) -> Drawn:
    """Return fitted vectors, drawn at random, plus what `widen` makes of white noise of standard deviation `scale`."""
    check_not_negative("evaluate.sources", scale=scale)
    population = pool.population
    chosen = pool.parents[torch.randint(len(pool.parents), (pool.count(num),), generator=rng)]

    def make(rows: slice, rng: torch.Generator) -> Tensor:
        vectors = population[chosen[rows]]
        return vectors + widen(vectors, scale * normal(vectors.shape, rng))

    return Drawn(Made([len(chosen), population.shape[1]], make, rng), chosen)


@SOURCES.register_module(name="ensemble")
def ensemble(pool: Pool, rng: torch.Generator, members: int = 16, num: int = 1) -> Vectors:
    """Return groups of fitted vectors `(num, members, P)`, whose predictions are averaged by the task.

    Args:
        members: fitted vectors of a group; no more than there are.
        num: how many groups.
    """
    drawn = groups(pool.fitted, rng, min(members, len(pool.fitted)), pool.count(num), "ensemble")
    return grouped(pool.population, drawn)


def grouped(vectors: Vectors, drawn: Tensor) -> Vectors:
    """Return vectors `(num, members, P)` of which the rows `(num, members)` say which they are."""
    return Made([*drawn.shape, vectors.shape[1]], lambda rows, rng: vectors[drawn[rows]], generator(0))
