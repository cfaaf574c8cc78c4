"""The first gate of the fit: fitted and held-out checkpoints through the codec and back, in numbers and in the network.

The average of a fine-tuning is often as good as its members, so a codec that gives the average back would lose nothing
of the metric. Therefore two questions: do the decoded checkpoints work, and are they still themselves? A new branch
moves in directions of its own, so less is kept of it than of what the codec was fitted to.

A decoder that is tuned on what networks do (`fit.decoder`) need not give their weights back. So it answers the first
question, and the codec as it was before that the second; the figures of the other stand beside.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pdiff.analysis.kept import kept, kept_by_tensor
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.engine.scaling import dominated
from pdiff.run.check import Check, goodness, in_words, not_measured, share_lost, whole
from pdiff.run.heldout import heldout_record, spaced, split_population
from pdiff.run.measuring import evaluate_split
from pdiff.task.task import Evaluation, Task
from pdiff.weights.conditions import Conditions
from pdiff.weights.layout import Layout
from pdiff.weights.origin import COLLECTED, Origin, origin_of
from pdiff.weights.vectors import Joined, Rows, deviations, mean

if TYPE_CHECKING:
    from pdiff.run.run import Run

LARGEST_LOSS = 0.1  # of the way to chance; the codecs of all four tasks lose less than 0.02
LEAST_SPREAD = 0.5
LEAST_KEPT = 0.7  # of the fitted; the defaults of the four tasks keep 0.80 to 0.97, a latent of one number 0.36 to 0.65
MOST = 20  # checkpoints of each kind that are looked at, evenly spaced
VALUES = 2**28  # of them at most: of networks of tens of millions of values fewer are looked at, two at least


def gate_codec(run: "Run") -> list[Check]:
    """Return the checks of the codec."""
    fitted, heldout = split_population(run)
    line, remedy, layout = heldout_record(run)["line"], run.engine.autoencoder.remedy, run.population.layout
    origin = origin_of(run.population.provenance)
    average, seen = mean(fitted), through_codec(run.engine, fitted, tuned=False)
    lost = check_scaling(*seen, dominated(run.engine.scaling, deviations(fitted), layout))
    if not lost.passed:
        return [lost]
    tuned = run.engine.tuned is not None
    kept_tuned = kept(*through_codec(run.engine, fitted), average).mean().item() if tuned else None
    given = {"average": average, "layout": layout, "remedy": remedy, "record": line, "origin": origin}
    if not len(heldout):
        return [check_reconstruction(seen, None, **given, tuned=kept_tuned), not_measured("decoded", line)]
    originals, decoded = through_codec(run.engine, heldout, tuned=False)
    after = [through_codec(run.engine, heldout)[1]] if tuned else []
    number, copies = len(originals), 2 + tuned
    candidates = Joined([originals, decoded, *after, average[None]])
    candidates = run.candidates(candidates, conditions_of(run, heldout, number, copies))
    *results, last = evaluate_split(run, "the codec's gate", candidates, "select")
    own, *others = (results[place * number : (place + 1) * number] for place in range(copies))
    return [
        check_reconstruction(seen, (originals, decoded), **given, tuned=kept_tuned),
        check_decoded(own, others[-1], last, run.task, remedy, others[0] if tuned else None),
    ]


def conditions_of(run: "Run", heldout: Rows, number: int, copies: int) -> Conditions | None:
    """Return the conditions of `number` held-out checkpoints, so many copies, and the first one's for the average."""
    conditions = run.population.conditions
    if conditions is None:
        return None
    rows = heldout.rows[spaced(len(heldout), number)]
    return conditions.take(torch.cat([*[rows] * copies, rows[:1]]))


def through_codec(engine: ParameterDiffusion, rows: Rows, tuned: bool = True) -> tuple[Tensor, Tensor]:
    """Return some of the rows `(M, P)`, evenly spaced, and what the codec makes of them, as tuned or as before."""
    originals = rows[spaced(len(rows), min(len(rows), MOST, max(2, VALUES // rows.shape[1])))]
    return originals, engine.decode(engine.encode(originals), tuned=tuned)


def check_scaling(originals: Tensor, decoded: Tensor, found: str | None) -> Check:
    """Return whether the codec keeps more than a few coordinates that vary more than all others.

    Args:
        originals: fitted checkpoints `(F, P)`.
        decoded: what the codec makes of them.
        found: words for these coordinates; None where there are none.
    """
    own, left = (rows.std(0, correction=0) for rows in (originals, decoded))
    changing = own > 0
    share = (left[changing] / own[changing]).median().item() if changing.any() else 1.0
    figures = {"median_spread": share}
    if not found or share >= LEAST_SPREAD:
        return Check("scaling", True, f"half of the coordinates keep {share:.0%} of their spread or more", figures)
    line = (
        f"got {found}, and half of the coordinates keep {share:.0%} of their spread or less in the codec, expected "
        f"{LEAST_SPREAD:.0%} at least: beside those few the others are lost. Set engine.scaling.type to per_coordinate."
    )
    return Check("scaling", False, line, figures)


def check_reconstruction(
    fitted: tuple[Tensor, Tensor],
    heldout: tuple[Tensor, Tensor] | None,
    average: Tensor,
    layout: Layout,
    remedy: str,
    record: str,
    origin: Origin = COLLECTED,
    tuned: float | None = None,
) -> Check:
    """Return whether fitted checkpoints come back as themselves, and held-out ones as more than the average.

    Args:
        fitted: checkpoints `(F, P)` that the codec was fitted to, and what it makes of them.
        heldout: others `(H, P)`, and what it makes of them; None without any.
        average: of all that the codec was fitted to `(P,)`.
        layout: of a vector, to say which tensor is to blame.
        remedy: which settings of the codec to raise.
        record: a sentence about what is held out, or why nothing is.
        origin: of the population.
        tuned: how much a tuned decoder keeps of the fitted, which is told and not judged; None without one.
    """
    own = kept(*fitted, average).mean().item()
    by_tensor = kept_by_tensor(*fitted, average, layout)
    worst = min(by_tensor, key=by_tensor.get)
    other = kept(*heldout, average).mean().item() if heldout else None
    figures = {
        "kept_fitted": own,
        "kept": other,
        "gap": None if other is None else own - other,
        "heldout": len(heldout[0]) if heldout else 0,
        "worst_tensor": worst,
        "worst_kept": by_tensor[worst],
    }
    figures |= {} if tuned is None else {"kept_fitted_tuned": tuned}
    blame = f"least of {worst!r}, {by_tensor[worst]:.0%}"
    if own < LEAST_KEPT:
        line = (
            f"got {own:.0%} of what sets fitted checkpoints apart from the average ({blame}) through the codec, "
            f"expected at least {LEAST_KEPT:.0%}: it cannot express them. Raise {remedy}."
        )
        return Check("reconstruction", False, line, figures)
    found = f"the codec keeps {own:.0%} of what sets fitted checkpoints apart from the average ({blame})"
    if other is None:
        return Check("reconstruction", True, f"{found}; of held-out ones it is not measured: {record}", figures)
    if other > 0:
        words = f"{found}, and {other:.0%} of held-out ones, a gap of {own - other:.0%}; {record}"
        return Check("reconstruction", True, words, figures)
    line = (
        f"got {other:.0%} of what sets held-out checkpoints apart from the average through the codec, and {own:.0%} "
        f"of fitted ones, expected more than 0% of both; {record}. It expresses single checkpoints alone: "
        f"{origin.more}, or raise engine.autoencoder.latent_noise."
    )
    return Check("reconstruction", False, line, figures)


def check_decoded(
    originals: Sequence[Evaluation],
    decoded: Sequence[Evaluation],
    average: Evaluation,
    task: Task,
    remedy: str,
    untuned: Sequence[Evaluation] | None = None,
) -> Check:
    """Return whether the metric of held-out checkpoints survives the codec.

    Args:
        originals: how the checkpoints did.
        decoded: how they did after the codec.
        average: how the average of all others did; beside it stands how alike to a checkpoint it and the decoded are.
        task: says which metric and which similarity.
        remedy: which settings of the codec to raise.
        untuned: how they did after the codec with the decoder as it was before its tuning; None without one.
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
    figures |= {} if untuned is None else {"untuned": float(np.mean([result.metric for result in untuned]))}
    name = task.metric.name
    reached, left = (in_words(figures[key]) for key in ("original", "decoded"))
    left = f"{left} after the codec"
    if untuned is not None:
        left = f"{in_words(figures['untuned'])} after the codec, {in_words(figures['decoded'])} with the decoder tuned"
    found = f"held-out checkpoints with {name} {reached} have {left}"
    if lost <= LARGEST_LOSS:
        return Check("decoded", True, found, figures)
    mend = f"Raise {remedy}" if untuned is None else f"Raise {remedy}, lower fit.decoder.lr"
    line = (
        f"got {found}: {lost:.0%} of {whole(task.metric)} is lost, expected at most {LARGEST_LOSS:.0%}. The "
        f"codec breaks the network. {mend}, or take another engine.scaling."
    )
    return Check("decoded", False, line, figures)
