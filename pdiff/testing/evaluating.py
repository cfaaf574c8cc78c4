"""Checks of what is done with candidates: `evaluate`, the metric's direction, signatures, `ensemble`, `draw`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pdiff.runtime.seeding import isolated_seed
from pdiff.runtime.storage import read_tensors
from pdiff.task.contract import check_pictures, fault
from pdiff.task.similarity import error_iou
from pdiff.task.task import Evaluation
from pdiff.testing.finding import NotApplicable
from pdiff.testing.tensors import bits, changed, state_of
from pdiff.weights.ties import frozen_names

if TYPE_CHECKING:
    from pdiff.testing.specimen import Specimen

ROUNDING = 1e-5
PNG = b"\x89PNG\r\n\x1a\n"


def difference(one: Evaluation, other: Evaluation) -> str:
    """Return words for the first thing in which two evaluations of one candidate differ; none where they agree."""
    if one.metric != other.metric:
        return f"the metric {other.metric!r} instead of {one.metric!r}"
    for field in ("signature", "scores"):
        if not same(getattr(one, field), getattr(other, field)):
            return f"another {field}"
    if one.condition != other.condition:
        return "another measured condition"
    return "" if dict(one.details) == dict(other.details) else "other details"


def same(one: Tensor | None, other: Tensor | None) -> bool:
    """Say whether two tensors are equal bit for bit, or both left out."""
    if one is None or other is None:
        return one is other
    return torch.equal(bits(one), bits(other))


def compare(specimen: "Specimen", found: Sequence[Evaluation], when: str, advice: str) -> None:
    """Raise a `PdiffError` unless candidates reach what they reached at first.

    Args:
        specimen: the plugin at work.
        found: what they reach now, in the order of the collected vectors.
        when: how the two evaluations differ.
        advice: what to do.
    """
    for index, (one, other) in enumerate(zip(specimen.results, found, strict=False)):
        words = difference(one, other)
        if words:
            line = f"evaluate gave candidate {index} {words} {when}. {advice}"
            raise fault(specimen.trained.name, line)


def check_result(specimen: "Specimen") -> str:
    """`evaluate` yields one sound evaluation per candidate on every split; the mean of the scores is the metric."""
    splits = ("select", "test", *(["train"] if specimen.config.evaluate.train else []))
    for split in splits:
        for index, result in enumerate(specimen.evaluate(specimen.vectors, split)):
            if result.scores is None or not math.isfinite(result.metric):
                continue
            mean = result.scores.double().mean().item()
            if abs(mean - result.metric) > ROUNDING * max(1.0, abs(result.metric)):
                words = (
                    f"evaluate gave candidate {index} on {split} scores with the mean {mean:.6g} and the metric "
                    f"{result.metric:.6g}, expected the same. Give pseudo-values where the metric is no mean, or none."
                )
                raise fault(specimen.trained.name, words)
    metrics = [result.metric for result in specimen.results]
    return f"{specimen.trained.task.metric.name} {min(metrics):.4f} to {max(metrics):.4f} on select"


def check_repeatable(specimen: "Specimen") -> str:
    """`evaluate` gives the same the second time, whatever the state of the random numbers."""
    with isolated_seed(1):
        found = specimen.evaluate(specimen.vectors)
    compare(specimen, found, "the second time", "Call model.eval(), and seed what you draw.")
    return "the same the second time"


def check_order(specimen: "Specimen") -> str:
    """`evaluate` gives each candidate the same in another order."""
    found = specimen.evaluate(specimen.vectors.flip(0), rows=range(len(specimen.vectors))[::-1])
    compare(specimen, found[::-1], "in another order", "Keep nothing of one candidate for the next.")
    return "the same in reverse order"


def check_alone(specimen: "Specimen") -> str:
    """`evaluate` gives each candidate the same alone: replay changes nothing."""
    found = [specimen.evaluate(vector[None], rows=[row])[0] for row, vector in enumerate(specimen.vectors)]
    advice = "Under pdiff.Replay a forward pass must not draw random numbers, nor keep results for the next."
    compare(specimen, found, "alone", advice)
    return "the same one by one, bit for bit"


def check_undisturbed(specimen: "Specimen") -> str:
    """`evaluate` leaves the frozen part of the network as it is."""
    run = specimen.trained
    base, after = read_tensors(run.directory.base), state_of(run.task.model)
    frozen = frozen_names(run.task.model, run.collected.layout.names)
    wrong = [name for name in changed(base, after) if name in frozen]
    if wrong:
        words = f"evaluate changed {wrong[0]!r}, which is not selected. Call model.eval() before the forward pass."
        raise fault(run.name, words)
    return "the frozen part is as it was"


def check_dead(specimen: "Specimen") -> str:
    """`evaluate` survives a candidate of NaN, and gives its neighbours the same."""
    vectors = specimen.vectors[:2]
    dead = torch.full_like(vectors[:1], torch.nan)
    first, between, second = specimen.evaluate(torch.cat([vectors[:1], dead, vectors[1:]]), rows=[0, 0, 1])
    compare(specimen, [first, second], "beside a candidate of NaN", "Keep nothing of one candidate for the next.")
    return f"a candidate of NaN has {specimen.trained.task.metric.name} {between.metric:.4g}"


def check_direction(specimen: "Specimen") -> str:
    """Parameters with noise in place of what was learnt are no better than trained ones, and not the same."""
    metric, name = specimen.trained.task.metric, specimen.trained.name
    sign = 1 if metric.higher_is_better else -1
    good, destroyed = (
        sorted(sign * result.metric for result in results)
        for results in (specimen.results, specimen.results_of_destroyed)
    )
    best, middle = good[-1], destroyed[len(destroyed) // 2]
    words = f"{metric.name} {sign * best:.4g} of trained and {sign * middle:.4g} of destroyed parameters"
    if middle > best:
        line = f"evaluate gave {words}, though {'higher' if sign == 1 else 'lower'} is said to be better"
        raise fault(name, f"{line}. Turn Metric.higher_is_better round, or train longer.")
    one = specimen.results[0]
    if not any(difference(one, other) for other in [*specimen.results, *specimen.results_of_destroyed]):
        line = "evaluate gave all candidates the same, destroyed ones too. Call candidates.load(model, index) for each."
        raise fault(name, line)
    return words


def check_similarity(specimen: "Specimen") -> str:
    """A signature has similarity 1 with itself, and two the same in either order; the dead are like none."""
    run = specimen.trained
    results = [*specimen.results, *specimen.results_of_destroyed]
    signatures = torch.stack([result.signature for result in results if math.isfinite(result.metric)])
    table = run.task.similarity(signatures, signatures).float().cpu()
    count = len(signatures)
    if tuple(table.shape) != (count, count):
        words = f"a similarity of shape {tuple(table.shape)}, expected ({count}, {count}), one for each pair"
    elif not table.isfinite().all() or table.max() > 1 + ROUNDING:
        words = "a similarity that is not finite or is above 1"
    elif not torch.allclose(table.diagonal(), torch.ones(count), atol=ROUNDING):
        words = f"a similarity of {table.diagonal().min():.4f} of a signature with itself, expected 1"
    elif not torch.allclose(table, table.T, atol=ROUNDING):
        words = "two similarities to one pair, by its order"
    elif not torch.allclose(run.task.similarity(signatures[:1], signatures).float().cpu(), table[:1], atol=ROUNDING):
        words = "another similarity to a signature where it is compared with others too"
    else:
        return f"1 with itself, symmetric, {table.min():.2f} at least"
    advice = "Mend Task.similarity, or leave the default."
    if run.task.similarity is error_iou:
        advice = "The default takes signatures of booleans: yield such, or give Task.similarity."
    raise fault(run.name, f"build returned a task that gives {words}. {advice}")


def check_ensemble(specimen: "Specimen") -> str:
    """`ensemble` returns one evaluation like those of single candidates, and the same the second time."""
    run = specimen.trained
    if not run.measures_ensembles:
        raise NotApplicable("the plugin measures no ensemble")
    first, second = (specimen.evaluate(specimen.vectors[None])[0] for _ in range(2))
    words = difference(first, second)
    if words:
        raise fault(run.name, f"ensemble gave {words} the second time. Call model.eval(), and seed what you draw.")
    shapes = tuple(first.signature.shape), tuple(specimen.results[0].signature.shape)
    if shapes[0] != shapes[1]:
        line = f"ensemble gave a signature of shape {shapes[0]}, expected that of evaluate, {shapes[1]}."
        raise fault(run.name, line)
    return f"{run.task.metric.name} {first.metric:.4f} on select"


def check_drawing(specimen: "Specimen") -> str:
    """`draw` writes the pictures that it returns."""
    run, folder = specimen.trained, specimen.folder / "drawn"
    if not run.has_hook("draw"):
        raise NotApplicable("the plugin draws nothing")
    folder.mkdir(exist_ok=True)
    every = run.candidates(specimen.vectors, specimen.conditions)
    picks = {"trained": every, "generated": every.take(slice(1))}
    pictures = list(run.hook.draw(task=run.task, picks=picks, folder=folder))
    check_pictures(run.name, pictures)
    for picture in pictures:
        if not is_png(folder / picture.file) or Path(picture.file).name != picture.file:
            words = f"draw returned the picture {picture.file!r}, which is no PNG in its folder. Write it there."
            raise fault(run.name, words)
    return f"{len(pictures)} pictures"


def is_png(path: Path) -> bool:
    """Say whether a file is a PNG."""
    return path.is_file() and path.read_bytes().startswith(PNG)
