"""The first gate of the fit: held-out checkpoints through the codec and back, in numbers and in the network.

The average of a fine-tuning is often as good as its members, so a codec that gives the average back would lose nothing
of the metric. Therefore two questions: do the decoded checkpoints work, and are they still themselves?
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pdiff.analysis.kept import kept, kept_by_tensor
from pdiff.run.check import Check, goodness, not_measured, share_lost, whole
from pdiff.run.heldout import heldout_record, split_population
from pdiff.run.measuring import evaluate_split
from pdiff.task.task import Evaluation, Task
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import mean

if TYPE_CHECKING:
    from pdiff.run.run import Run

LARGEST_LOSS = 0.1  # of the way to chance; the codecs of all four tasks lose less than 0.02
LEAST_KEPT = 0.8  # the default keeps 0.94 to 0.96 on all tasks, a latent of one number 0.36 to 0.65


def gate_codec(run: "Run") -> list[Check]:
    """Return the checks of the codec."""
    fitted, originals = split_population(run)
    if not len(originals):
        return [not_measured(name, heldout_record(run)["line"]) for name in ("reconstruction", "decoded")]
    engine = run.engine
    average, decoded = mean(fitted), engine.decode(engine.encode(originals))
    originals, number = originals[:], len(originals)
    results = evaluate_split(run, "the codec's gate", torch.cat([originals, decoded, average[None]]), "select")
    return [
        check_reconstruction(originals, decoded, average, run.population.layout, engine.autoencoder.remedy),
        check_decoded(results[:number], results[number:-1], results[-1], run.task, engine.autoencoder.remedy),
    ]


def check_reconstruction(originals: Tensor, decoded: Tensor, average: Tensor, layout: Layout, remedy: str) -> Check:
    """Return whether held-out checkpoints come back as themselves.

    Args:
        originals: `(H, P)`.
        decoded: what the codec makes of them `(H, P)`.
        average: of the checkpoints that the codec was fitted to `(P,)`.
        layout: of a vector, to say which tensor is to blame.
        remedy: which settings of the codec to raise.
    """
    total = kept(originals, decoded, average).mean().item()
    by_tensor = kept_by_tensor(originals, decoded, average, layout)
    worst = min(by_tensor, key=by_tensor.get)
    figures = {"kept": total, "heldout": len(originals), "worst_tensor": worst, "worst_kept": by_tensor[worst]}
    blame = f"least of {worst!r}, {by_tensor[worst]:.0%}"
    if total >= LEAST_KEPT:
        line = f"the codec keeps {total:.0%} of what sets held-out checkpoints apart from the average ({blame})"
        return Check("reconstruction", True, line, figures)
    line = (
        f"got {total:.0%} of what sets held-out checkpoints apart from the average ({blame}) through the codec, "
        f"expected at least {LEAST_KEPT:.0%}: it cannot express them. Raise {remedy}."
    )
    return Check("reconstruction", False, line, figures)


def check_decoded(
    originals: Sequence[Evaluation], decoded: Sequence[Evaluation], average: Evaluation, task: Task, remedy: str
) -> Check:
    """Return whether the metric of held-out checkpoints survives the codec.

    Args:
        originals: how the checkpoints did.
        decoded: how they did after the codec.
        average: how the average of all others did; beside it stands how alike to a checkpoint it and the decoded are.
        task: says which metric and which similarity.
        remedy: which settings of the codec to raise.
    """
    before, after = ([result.metric for result in results] for results in (originals, decoded))
    own, new, one = (torch.stack([r.signature for r in results]) for results in (originals, decoded, [average]))
    lost = share_lost(*(goodness(metrics, task.metric).mean().item() for metrics in (before, after)))
    figures = {
        "lost": lost,
        "original": float(np.mean(before)),
        "decoded": float(np.mean(after)),
        "similarity": task.similarity(new, own).diagonal().mean().item(),
        "similarity_of_average": task.similarity(one, own).mean().item(),
    }
    name = task.metric.name
    found = f"held-out checkpoints with {name} {figures['original']:.4f} have {figures['decoded']:.4f} after the codec"
    if lost <= LARGEST_LOSS:
        return Check("decoded", True, found, figures)
    line = (
        f"got {found}: {lost:.0%} of {whole(task.metric)} is lost, expected at most {LARGEST_LOSS:.0%}. The "
        f"codec breaks the network. Raise {remedy}, or take another engine.scaling."
    )
    return Check("decoded", False, line, figures)
