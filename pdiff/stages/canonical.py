"""The population in canonical form: every network the same function as before, its units in the order of a reference.

One order for each lineage, found on its last snapshot: all snapshots of a training keep theirs to each other. Of files
whose lineage is unknown each has an order of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pdiff.canonical.form import Form
from pdiff.run.measuring import evaluate_split
from pdiff.run.units import change, find_symmetries, first_batch, outputs_for
from pdiff.runtime import processes
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.progress import progress
from pdiff.runtime.storage import read_tensors, write_json, write_tensors
from pdiff.weights.origin import UNKNOWN, origin_of
from pdiff.weights.population import Population
from pdiff.weights.units import Gain, Group
from pdiff.weights.vectors import Deviations, parts, row_slices

if TYPE_CHECKING:
    from pdiff.run.run import Run

TOLERANCE = 1e-3  # of the largest output
ALIKE = 0.999  # the similarity of two networks that differ in the order of their sums alone
LOOKED = 8  # networks that are compared by their signatures, where their outputs cannot be
VALUES = 2**24  # that are brought into form and written at once: 64 MiB
CANONICAL, ELSEWHERE = "in canonical form", "in another order of its units"
WAY_OUT = "Implement the hook symmetries, or set fit.canonical to none."


def write_canonical(run: "Run", fitted: Sequence[int]) -> None:
    """Write `population/canonical/`; what an interrupted run has done is kept, several processes share the work.

    Args:
        run: the run, of which nothing was fitted yet.
        fitted: the rows that the form may be derived from.

    Raises:
        PdiffError: a network gives other outputs in canonical form than before.
    """
    folder = run.canonical_folder
    if processes.on_main((folder / "canonical.json").exists):  # which is written last
        return
    processes.on_main(lambda: fit_form(run, fitted))
    form = Form.load(folder, run.layout)
    orders = find_orders(run, form, fitted)
    processes.on_main(lambda: write_vectors(run, form, orders))
    largest = check_outputs(run, form, orders)
    processes.on_main(lambda: write_json(folder / "canonical.json", describe(run, form, largest)))


def sharing(run: "Run") -> np.ndarray:
    """Return which order each row shares `(N,)`: that of its lineage; one of its own where nobody knows its lineage."""
    unknown = origin_of(run.collected.provenance) is UNKNOWN
    return np.arange(len(run.collected)) if unknown else run.lineages


def representatives(run: "Run", fitted: Sequence[int]) -> dict[int, int]:
    """Return for each lineage its last row, of those that are fitted where there are any; the fitted ones first."""
    labels = sharing(run).tolist()
    last = {lineage: row for row, lineage in enumerate(labels)}
    of_fitted = {labels[row]: row for row in sorted(set(fitted))}
    return {**of_fitted, **{lineage: row for lineage, row in last.items() if lineage not in of_fitted}}


def fit_form(run: "Run", fitted: Sequence[int]) -> None:
    """Write the form, unless it is there."""
    folder = run.canonical_folder
    if (folder / "form.json").exists():
        return
    own = set(fitted)
    rows = [row for row in representatives(run, fitted).values() if row in own]
    kind, symmetries, vectors = run.config.fit.canonical, find_symmetries(run), run.collected.tensor()
    check_free(run, Form(kind, run.layout, symmetries, vectors[rows[-1]]), rows[-1])
    Form.fit(kind, run.layout, symmetries, vectors, rows).save(folder)


def check_free(run: "Run", form: Form, row: int) -> None:
    """Raise a `PdiffError` if a network is another function with all its units in another order, and scale.

    What the canonical networks give does not show that: the order that the units of one have may be that of all.
    """
    vector = form.reference
    moved = form.shuffled(vector)
    if not run.has_hook("inputs"):
        check_signatures(run, vector[None], moved[None], [row], ELSEWHERE)
        return
    outputs = forward(run)
    found = change(outputs(vector), outputs(moved))
    if found > TOLERANCE:
        own = [torch.arange(group.size) for group in form.symmetries.groups]
        name = blame(vector, ((part, alone.shuffled(vector)) for part, alone, _ in one_by_one(form, own)), outputs)
        raise other_outputs(run, row, changed(found), ELSEWHERE, name)


def find_orders(run: "Run", form: Form, fitted: Sequence[int]) -> list[Tensor]:
    """Return for each group the order of its units in each lineage `(lineages, n)`, found or read."""
    path = run.canonical_folder / "permutations.safetensors"
    if not processes.on_main(path.exists):
        rows, vectors = representatives(run, fitted), run.collected.tensor()
        own = sorted(rows)[processes.own(len(rows))]
        found = []
        with progress("canonical form", len(own)) as advance:
            for lineage in own:
                found.append([order.to(torch.int32) for order in form.permutations(vectors[rows[lineage]])])
                advance()
        shares = processes.gather(found)
        orders = [torch.stack(group) for group in zip(*(one for share in shares for one in share), strict=True)]
        processes.on_main(lambda: write_tensors(path, {name_of(place): group for place, group in enumerate(orders)}))
    kept = read_tensors(path)
    return [kept[name_of(place)].long() for place in range(len(form.symmetries.groups))]


def name_of(place: int) -> str:
    """Return the name that the orders of a group have on disk; `form.json` has the groups in the same order."""
    return f"group{place}"


def write_vectors(run: "Run", form: Form, orders: Sequence[Tensor]) -> None:
    """Write the vectors, a few at a time, behind those that an interrupted run has written."""
    collected, folder, labels = run.collected, run.canonical_folder, sharing(run)
    size = max(1, VALUES // run.layout.size)
    population = Population.open(folder) if (folder / "layout.json").exists() else None
    if population is None:
        population = Population.create(folder, run.layout)
    population.truncate(len(population) // size * size)  # parts are whole, so that they are computed as before
    records = [{key: value for key, value in record.items() if key != "crc32"} for record in collected.provenance]
    for place in row_slices((len(collected), run.layout.size), size):
        if place.start >= len(population):
            vectors = in_form(form, collected.tensor()[place], labels[place], orders)
            population.append_rows(vectors, records[place])


def in_form(form: Form, vectors: Tensor, lineages: np.ndarray, orders: Sequence[Tensor]) -> Tensor:
    """Return vectors `(M, P)` of lineages `(M,)` in canonical form."""
    found = torch.empty_like(vectors)
    for lineage in np.unique(lineages):
        own = torch.from_numpy(np.flatnonzero(lineages == lineage))
        found[own] = form.apply(vectors[own], [group[lineage] for group in orders])
    return found


def check_outputs(run: "Run", form: Form, orders: Sequence[Tensor]) -> float:
    """Return the largest change of an output by the form; raise a `PdiffError` where it is more than rounding."""
    before, after = run.collected.tensor(), Population.open(run.canonical_folder).tensor()
    if not run.has_hook("inputs"):
        rows = np.linspace(0, len(before) - 1, min(LOOKED, len(before))).astype(int).tolist()
        return check_signatures(run, before[rows], after[rows], rows, CANONICAL)
    outputs = forward(run)
    rows = range(len(before))[processes.own(len(before))]
    largest, worst = 0.0, None
    with progress("check the canonical form", len(rows)) as advance:
        for row in rows:
            moved = change(outputs(before[row]), outputs(after[row]))
            largest, worst = max((largest, worst), (moved, row), key=lambda pair: pair[0])
            advance()
    largest, worst = max(processes.gather((largest, worst)), key=lambda pair: pair[0])
    if largest > TOLERANCE:
        own = [group[sharing(run)[worst]] for group in orders]
        parts = ((part, alone.apply(before[worst][None], order)[0]) for part, alone, order in one_by_one(form, own))
        raise other_outputs(run, worst, changed(largest), CANONICAL, blame(before[worst], parts, outputs))
    return largest


def forward(run: "Run") -> Callable[[Tensor], list[Tensor]]:
    """Return a function from a vector `(P,)` to what its network gives for the first training samples."""
    model, batch = run.task.model, first_batch(run)

    def outputs(vector: Tensor) -> list[Tensor]:
        run.candidates(vector[None]).load(model, 0)
        return outputs_for(run, model, batch)

    return outputs


def blame(
    vector: Tensor, parts: Iterable[tuple[Group | Gain, Tensor]], outputs: Callable[[Tensor], list[Tensor]]
) -> str:
    """Return the tensor whose units change the outputs most when they alone are moved, of vectors where they are."""
    before = outputs(vector)
    found = [(change(before, outputs(moved)), part.name) for part, moved in parts]
    return max(found, key=lambda pair: pair[0])[1]


def one_by_one(form: Form, orders: Sequence[Tensor]) -> Iterator[tuple[Group | Gain, Form, list[Tensor]]]:
    """Yield the parts of a form, each with a form of it alone and the order for that."""
    for group, order in zip(form.symmetries.groups, orders, strict=True):
        yield group, replace(form, symmetries=replace(form.symmetries, groups=(group,), gains=())), [order]
    for gain in form.symmetries.gains:
        yield gain, replace(form, symmetries=replace(form.symmetries, groups=(), gains=(gain,))), []


def check_signatures(run: "Run", before: Tensor, after: Tensor, numbers: Sequence[int], where: str) -> float:
    """Return 1 minus the smallest similarity of networks before and after, where their outputs are not known.

    Args:
        run: the run.
        before: vectors `(M, P)`.
        after: what they were changed into.
        numbers: of these checkpoints.
        where: words for what they were changed into.
    """
    candidates = [run.candidates(vectors) for vectors in (before, after)]
    results = processes.on_main(lambda: [evaluate_split(run, "the form", each, "select") for each in candidates])
    own, new = (torch.stack([result.signature for result in found]) for found in results)
    similarity = run.task.similarity(own, new).diagonal()
    least = similarity.min().item()
    if least < ALIKE:
        words = f"its signature on select has a similarity of {least:.3f} to what it was"
        raise other_outputs(run, numbers[int(similarity.argmin())], words, where)
    return 1 - least


def changed(largest: float) -> str:
    """Return words for a change of an output."""
    return f"an output changes by {largest:.2g} of the largest"


def other_outputs(run: "Run", row: int, words: str, where: str, blamed: str = "") -> PdiffError:
    """Return the error of a checkpoint that is another function in another form."""
    todo = "Mend the plugin's hook symmetries" if run.has_hook("symmetries") else WAY_OUT
    units = f", by the units of {blamed!r}" if blamed else ""
    return PdiffError(
        f"fit.canonical: checkpoint {row} is another function {where}: {words}{units}, expected at most "
        f"{TOLERANCE:g}. {todo.removesuffix('.')}."
    )


def describe(run: "Run", form: Form, largest: float) -> dict[str, Any]:
    """Return what other programs read of the form: what it does, and how much nearer the networks are to each other.

    Spreads are root mean square distances from the average; `spread_before` that of the networks in their own order,
    their scales balanced where the form does that.
    """
    after, size = Population.open(run.canonical_folder).tensor(), max(1, VALUES // run.layout.size)
    return {
        "form": form.kind,
        "lineages": int(run.lineages.max()) + 1,
        "orders": int(sharing(run).max()) + 1,
        "groups": [{"name": group.name, "size": group.size} for group in form.symmetries.groups],
        "gains": [{"name": gain.name, "size": gain.size} for gain in form.symmetries.gains],
        "notes": list(form.symmetries.notes),
        "largest_change": largest,
        "compared": "outputs" if run.has_hook("inputs") else "signatures of a few",
        "spread_before": spread(form.balanced(part) for part in parts(run.collected.tensor(), size)),
        "spread": spread(parts(after)),
    }


def spread(vectors: Iterable[Tensor]) -> float:
    """Return the root mean square distance from their average of vectors that come a few `(M, P)` at a time."""
    found = Deviations()
    for part in vectors:
        found.add(part)
    return found.result().square().sum().sqrt().item()
