"""The plugin's measurements of vectors, looked at before anything follows from them.

Candidates of many sources are measured in one call of the plugin, so that data are loaded, and the frozen part of the
network is computed, once for all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pdiff.runtime.delivery import to_host
from pdiff.runtime.exact import exact
from pdiff.task.contract import check_alike, check_evaluations, check_iterable
from pdiff.task.task import Candidates, Evaluation
from pdiff.weights.vectors import VALUES, Made, Vectors, moved, row_slices

if TYPE_CHECKING:
    from pdiff.run.run import Run

SHARE = 4  # of a GPU's free memory, one part in so many is for vectors of candidates


def hook_of(vectors: Vectors) -> str:
    """Return the hook that evaluates candidates `(M, P)`, or ensembles `(M, K, P)`."""
    return "ensemble" if vectors.ndim == 3 else "evaluate"


def evaluate_split(
    run: "Run", source: str, candidates: Candidates, split: str, rows: slice | None = None
) -> list[Evaluation]:
    """Return the plugin's evaluation of every candidate, or of successive ones, each of them looked at.

    Args:
        run: the run.
        source: the candidates' name in error lines.
        candidates: M of them, or M ensembles; those that are made come a few at a time.
        split: where they are measured.
        rows: which candidates; None for all.
    """
    return evaluate_sources(run, {source: candidates}, split, rows)[source]


def evaluate_sources(
    run: "Run", asked: Mapping[str, Candidates], split: str, rows: slice | None = None
) -> dict[str, list[Evaluation]]:
    """Return the plugin's evaluations of the candidates of several sources, by source, each of them looked at.

    Args:
        run: the run.
        asked: the candidates of each source: vectors `(M, P)`, or ensembles `(M, K, P)`.
        split: where they are measured.
        rows: which of all of them, one source behind another; None for all.
    """
    results = {source: [] for source in asked}
    shares = dict(zip(asked, shares_of([len(candidates) for candidates in asked.values()], rows), strict=True))
    with exact(run.device):
        for batch in together(run, asked, shares):
            for source, found in evaluate_batch(run, batch, split):
                results[source] += found
    for source, own in shares.items():
        hook, count = hook_of(asked[source].vectors), own.stop - own.start
        if count:  # shapes, too, must be those of one source
            check_evaluations(run.name, hook, results[source], count, run.task.metric, source, own.start)
    for name in ("signature", "scores"):
        shapes = {source: getattr(getattr(found[0], name), "shape", None) for source, found in results.items() if found}
        check_alike(run.name, name, shapes)
    return results


def shares_of(counts: Sequence[int], rows: slice | None) -> list[slice]:
    """Return which of the candidates of each source are among some successive ones of all; None for all of all."""
    starts = [sum(counts[:place]) for place in range(len(counts))]
    if rows is None:
        rows = slice(0, sum(counts))
    inside = [
        (max(rows.start - start, 0), min(rows.stop - start, count)) for start, count in zip(starts, counts, strict=True)
    ]
    return [slice(begin, max(begin, end)) for begin, end in inside]


@dataclass
class Batch:
    """Candidates that are measured in one call, with the name of their source.

    Attributes:
        singles: successive candidates of a source.
        ensembles: the members of an ensemble of a source.
    """

    singles: list[tuple[str, Candidates]] = field(default_factory=list)
    ensembles: list[tuple[str, Candidates]] = field(default_factory=list)

    def add(self, source: str, candidates: Candidates) -> None:
        """Take in candidates, or ensembles."""
        if candidates.vectors.ndim == 3:
            self.ensembles += [(source, members) for members in candidates.members()]
        else:
            self.singles.append((source, candidates))

    def __bool__(self) -> bool:
        return bool(self.singles or self.ensembles)


def together(run: "Run", asked: Mapping[str, Candidates], shares: Mapping[str, slice]) -> Iterator[Batch]:
    """Yield some candidates of each source in batches, whose vectors are on the run's device, moved once.

    On a CPU the vectors of a batch that are not in storage are at most twice `VALUES` values; on a GPU all of them are
    at most a part of the memory that is free.
    """
    on_cpu = run.device.type == "cpu"
    most = VALUES if on_cpu else max(1, torch.cuda.mem_get_info(run.device)[0] // SHARE // 4)
    batch, held = Batch(), 0
    for source, candidates in asked.items():
        stored = on_cpu and not isinstance(candidates.vectors, Made)
        for piece in candidates.pieces(shares[source]):
            for part in [piece] if on_cpu else on_device(piece, run.device, most):
                values = 0 if stored else part.vectors.shape.numel()
                if batch and held + values > most:
                    yield batch
                    batch, held = Batch(), 0
                batch.add(source, part)
                held += values
    if batch:
        yield batch


def on_device(candidates: Candidates, device: torch.device, most: int) -> Iterator[Candidates]:
    """Yield the candidates with their vectors on a device, at most so many values at a time."""
    for rows in row_slices(candidates.vectors.shape, values=most):
        yield candidates.with_vectors(moved(candidates.vectors, rows, device), rows)


def on_host(results: Sequence[Evaluation]) -> list[Evaluation]:
    """Return evaluations with their tensors on the CPU, those of a GPU brought there together."""
    fields = ("signature", "scores")
    places = [(row, name) for row, result in enumerate(results) for name in fields if is_away(result, name)]
    tensors = to_host([getattr(results[row], name) for row, name in places])
    changes: dict[int, dict[str, Tensor]] = {}
    for (row, name), tensor in zip(places, tensors, strict=True):
        changes.setdefault(row, {})[name] = tensor
    return [replace(result, **changes[row]) if row in changes else result for row, result in enumerate(results)]


def is_away(result: Evaluation, name: str) -> bool:
    """Say whether a field of what a plugin yielded is a tensor that does not lie on the CPU."""
    tensor = getattr(result, name, None)
    return isinstance(tensor, Tensor) and tensor.device.type != "cpu"


def evaluate_batch(run: "Run", batch: Batch, split: str) -> Iterator[tuple[str, list[Evaluation]]]:
    """Yield the plugin's evaluations of a batch with the names of the sources, those of one source in their order."""
    groups = [members for _, members in batch.ensembles]
    singles = [candidates for _, candidates in batch.singles] or [groups[0].take(slice(0))]
    joined = singles[0] if len(singles) == 1 else Candidates.joined(singles)
    given = {"task": run.task, "split": split}
    found = []
    if len(joined) or run.ensembles_in_evaluate:
        found = run.hook.evaluate(**given, candidates=joined, ensembles=groups)
        check_iterable(run.name, "evaluate", found, Evaluation)
    found = list(found)
    if not run.ensembles_in_evaluate:
        found += [run.hook.ensemble(**given, candidates=members) for members in groups]
    found = on_host(found)
    counts = [len(candidates) for _, candidates in batch.singles] + [1] * len(groups)
    if len(found) != sum(counts):  # whose would they be?
        check_evaluations(run.name, "evaluate", found, sum(counts), run.task.metric, f"{len(counts)} sources")
    remaining = iter(found)
    for (source, _), count in zip((*batch.singles, *batch.ensembles), counts, strict=True):
        yield source, [next(remaining) for _ in range(count)]
