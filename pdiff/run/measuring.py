"""The plugin's measurements of vectors, looked at before anything follows from them."""

from typing import TYPE_CHECKING

from pdiff.runtime.exact import exact
from pdiff.task.contract import check_evaluations, check_iterable
from pdiff.task.task import Candidates, Evaluation
from pdiff.weights.vectors import Vectors

if TYPE_CHECKING:
    from pdiff.run.run import Run


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
    hook, rows = hook_of(candidates.vectors), rows or slice(0, len(candidates))
    if rows.start == rows.stop:
        return []
    with exact(run.device):
        results = [result for piece in candidates.pieces(rows) for result in evaluate_piece(run, hook, piece, split)]
    check_evaluations(run.name, hook, results, rows.stop - rows.start, run.task.metric, source, rows.start)
    return results


def evaluate_piece(run: "Run", hook: str, candidates: Candidates, split: str) -> list[Evaluation]:
    """Return the plugin's evaluation of every candidate, or of every ensemble."""
    if hook == "ensemble":
        groups = candidates.members()
        return [run.hook.ensemble(task=run.task, candidates=group, split=split) for group in groups]
    found = run.hook.evaluate(task=run.task, candidates=candidates, split=split)
    check_iterable(run.name, hook, found, Evaluation)
    return list(found)
