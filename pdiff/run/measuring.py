"""The plugin's measurements of vectors, looked at before anything follows from them."""

from typing import TYPE_CHECKING

from torch import Tensor

from pdiff.task.contract import check_evaluations, check_iterable
from pdiff.task.task import Evaluation
from pdiff.weights.vectors import Rows, Vectors, pieces

if TYPE_CHECKING:
    from pdiff.run.run import Run


def hook_of(vectors: Vectors) -> str:
    """Return the hook that evaluates candidates `(M, P)`, or ensembles `(M, K, P)`."""
    return "ensemble" if vectors.ndim == 3 else "evaluate"


def evaluate_split(
    run: "Run", source: str, vectors: Vectors, split: str, rows: slice | None = None
) -> list[Evaluation]:
    """Return the plugin's evaluation of every candidate, or of successive ones, each of them looked at.

    Args:
        run: the run.
        source: the candidates' name in error lines.
        vectors: `(M, P)`, or `(M, K, P)` for M ensembles of K members; those that are made come a few at a time.
        split: where they are measured.
        rows: which candidates; None for all.
    """
    hook, rows = hook_of(vectors), rows or slice(0, len(vectors))
    if rows.start == rows.stop:
        return []
    results = [result for piece in pieces(vectors, rows) for result in evaluate_piece(run, hook, piece, split)]
    check_evaluations(run.name, hook, results, rows.stop - rows.start, run.task.metric, source, rows.start)
    return results


def evaluate_piece(run: "Run", hook: str, vectors: Tensor | Rows, split: str) -> list[Evaluation]:
    """Return the plugin's evaluation of every candidate `(M, P)`, or of every ensemble `(M, K, P)`."""
    if hook == "ensemble":
        groups = [run.candidates(members) for members in vectors]
        return [run.hook.ensemble(task=run.task, candidates=group, split=split) for group in groups]
    found = run.hook.evaluate(task=run.task, candidates=run.candidates(vectors), split=split)
    check_iterable(run.name, hook, found, Evaluation)
    return list(found)
