"""What candidates and ensembles reach, each under its condition if it has one, all in one pass over a split.

What they answer stays on the device of the network, and comes to the host once, at the end.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Protocol

import torch
from pdiff_plugins.classification.passes import Pass, conditional_passes, plain_passes
from pdiff_plugins.classification.uncertainty import (
    UNCERTAINTY,
    Beliefs,
    confidence,
    right_log_probabilities,
    uncertainty_of,
)
from pdiff_plugins.images.data import Split
from torch import Tensor

from pdiff import Candidates, Evaluation, Metric, Task, progress

Figures = Mapping[str, float]


def measured(
    correct: Tensor,
    finite: Tensor,
    metric: Metric,
    condition: Figures | None = None,
    details: Figures | None = None,
) -> Evaluation:
    """Return the evaluation of one candidate.

    Args:
        correct: which samples it gets right `(S,)`.
        finite: whether all its logits are; without it, it is dead and gets nothing right.
        metric: the task's.
        condition: what it does, in the terms of its condition.
        details: further figures.
    """
    correct = correct & finite
    value = correct.double().mean().item() if finite else metric.worst
    condition = condition if finite else None
    return Evaluation(metric=value, signature=~correct, scores=correct, condition=condition, details=details or {})


class Taker(Protocol):
    """Takes in what the networks of a group answer on a split, and keeps it on their device."""

    def put(self, members: slice, rows: slice, logits: Tensor) -> None:
        """Take in the logits `(n, B, classes)` of some networks of the group on some rows."""

    def found(self) -> tuple[Tensor, ...]:
        """Return what came of it, tensors `(n, ...)` with a row for each network, or one row for all."""


class Answers:
    """What each of several networks answers.

    Args:
        count: how many networks.
        data: the split, of S images.
        watched: whether it matters how sure they are.
    """

    def __init__(self, count: int, data: Split, watched: bool):
        self.given = torch.empty(count, len(data), dtype=torch.int32, device=data.device)
        self.finite = torch.ones(count, dtype=torch.bool, device=data.device)
        self.beliefs = Beliefs(count, data.answers) if watched else None

    def put(self, members: slice, rows: slice, logits: Tensor) -> None:
        """Take in the logits `(n, B, classes)` of some of them on some rows."""
        self.given[members, rows] = logits.argmax(2).int()
        self.finite[members] &= logits.isfinite().all(2).all(1)
        if self.beliefs:
            self.beliefs.put(members, rows, logits)

    def found(self) -> tuple[Tensor, ...]:
        """Return the class given to each image `(n, S)`, and whether all logits are finite `(n,)`.

        Where it matters how sure they are, `likelihoods` and `confidences` of `Beliefs` too.
        """
        if not self.beliefs:
            return self.given, self.finite
        return self.given, self.finite, self.beliefs.likelihoods, self.beliefs.confidences


class Average:
    """What the average of the class probabilities of several networks answers; summed in the networks' order.

    Args:
        count: how many networks.
        data: the split, of S images.
        watched: whether it matters how sure it is.
    """

    def __init__(self, count: int, data: Split, watched: bool):
        self.count, self.watched = count, watched
        self.total = torch.zeros(len(data), data.classes, device=data.device)
        self.finite = torch.ones(1, dtype=torch.bool, device=data.device)
        if watched:
            self.labels = data.answers
            self.likelihoods = torch.full((len(data),), -math.inf, dtype=torch.float64, device=data.device)

    def put(self, members: slice, rows: slice, logits: Tensor) -> None:
        """Take in the logits `(n, B, classes)` of some networks on some rows."""
        self.total[rows] += logits.softmax(2).sum(0)
        self.finite &= logits.isfinite().all()
        if self.watched:
            added = right_log_probabilities(logits, self.labels[rows]).logsumexp(0)
            self.likelihoods[rows] = torch.logaddexp(self.likelihoods[rows], added)

    def found(self) -> tuple[Tensor, ...]:
        """Return what `Answers` returns of a network, of the average `(1, ...)`."""
        given = self.total.argmax(1).int()[None]
        if not self.watched:
            return given, self.finite
        confidences = self.total.double().amax(1) / self.count
        return given, self.finite, (self.likelihoods - math.log(self.count))[None], confidences[None]


class Sureness:
    """How sure each of several networks is of images from outside.

    Args:
        count: how many networks.
        data: the images, O of them.
    """

    def __init__(self, count: int, data: Split):
        self.confidences = torch.zeros(count, len(data), dtype=torch.float64, device=data.device)

    def put(self, members: slice, rows: slice, logits: Tensor) -> None:
        """Take in the logits `(n, B, classes)` of some of them on some rows."""
        self.confidences[members, rows] = confidence(logits)

    def found(self) -> tuple[Tensor, ...]:
        """Return the probability of the most probable answer `(n, O)`, float64."""
        return (self.confidences,)


class AverageSureness:
    """How sure the average of the class probabilities of several networks is of images from outside.

    Args:
        count: how many networks.
        data: the images, O of them.
        classes: that the networks know.
    """

    def __init__(self, count: int, data: Split, classes: int):
        self.count = count
        self.total = torch.zeros(len(data), classes, dtype=torch.float64, device=data.device)

    def put(self, members: slice, rows: slice, logits: Tensor) -> None:
        """Take in the logits `(n, B, classes)` of some networks on some rows."""
        self.total[rows] += logits.double().softmax(2).sum(0)

    def found(self) -> tuple[Tensor, ...]:
        """Return the probability of the most probable answer `(1, O)`, float64."""
        return ((self.total.amax(1) / self.count)[None],)


def taken_in(passes: Iterable[Pass], groups: Sequence[Candidates], takers: Sequence[Taker]) -> list[Tensor]:
    """Return on the CPU what the takers, one for each group, find in the passes, one behind another `(n, ...)`."""
    firsts = [0, *accumulate(map(len, groups[:-1]))]
    for members, rows, logits in passes:
        place = bisect_right(firsts, members.start) - 1
        own = slice(members.start - firsts[place], members.stop - firsts[place])
        takers[place].put(own, rows, logits)
    return [torch.cat(parts).cpu() for parts in zip(*(taker.found() for taker in takers), strict=True)]


def answered(
    passes: Iterable[Pass], groups: Sequence[Candidates], data: Split, split: str, watched: bool = False
) -> list[Tensor]:
    """Return what the candidates of the first group, then each further group together, answer, as `Answers` has it.

    Args:
        passes: of all groups on all rows.
        groups: the candidates, then the ensembles.
        data: the split, of S images.
        split: its name.
        watched: whether it matters how sure they are.
    """
    takers = [Answers(len(groups[0]), data, watched), *(Average(len(group), data, watched) for group in groups[1:])]
    with progress(f"evaluate on {split}", sum(map(len, groups)) * data.num_batches()) as advance:
        return taken_in(counted(passes, advance), groups, takers)


def counted(passes: Iterable[Pass], advance: Callable[[], None]) -> Iterator[Pass]:
    """Yield passes, and call `advance` once for each network of a pass that is done."""
    for one in passes:
        yield one
        for _ in one[2]:
            advance()


def sureness(task: Task, groups: Sequence[Candidates], split: str, classes: int) -> list[Tensor | None]:
    """Return how sure each candidate, then each ensemble, is of images from outside `(O,)`; None without such images.

    Args:
        task: the task.
        groups: the candidates, then the ensembles.
        split: that the images are held against.
        classes: that the networks know.
    """
    beyond = task.splits[UNCERTAINTY].beyond(split)
    if beyond is None:
        return [None] * (len(groups[0]) + len(groups) - 1)
    averages = [AverageSureness(len(group), beyond, classes) for group in groups[1:]]
    takers = [Sureness(len(groups[0]), beyond), *averages]
    return list(*taken_in(plain_passes(task.model, groups, beyond), groups, takers))


@torch.no_grad()
def plain_results(task: Task, candidates: Candidates, split: str, ensembles: Sequence[Candidates]) -> list[Evaluation]:
    """Return what each candidate, then each ensemble, reaches on a split without conditions."""
    data, watch, groups = task.splits[split], task.splits.get(UNCERTAINTY), [candidates, *ensembles]
    passes = plain_passes(task.model.eval(), groups, data)
    answers, finite, *beliefs = answered(passes, groups, data, split, watch is not None)
    correct, details = answers == data.labels, [{}] * len(answers)
    if watch:
        each = zip(*beliefs, correct, sureness(task, groups, split, data.classes), finite, strict=True)
        details = [uncertainty_of(*given, watch.bins) if alive else {} for *given, alive in each]
    rows = zip(correct, finite, details, strict=True)
    return [measured(row, alive, task.metric, details=figures) for row, alive, figures in rows]


@torch.no_grad()
def conditional_results(
    task: Task, candidates: Candidates, split: str, ensembles: Sequence[Candidates]
) -> list[Evaluation]:
    """Return what each candidate, then each ensemble, reaches under its condition, and what it does, in its terms.

    The members of an ensemble are all for one condition.
    """
    data, groups, labels = task.splits[split], [candidates, *ensembles], task.splits[split].data.labels
    values = torch.cat([data.values(candidates), *(data.values(group)[:1] for group in ensembles)])
    passes = conditional_passes(task.model.eval(), groups, data)
    answers, finite = answered(passes, groups, data.data, split)
    right = data.kind.labels(labels, values)
    done = [data.kind.measured(given, labels) for given in answers]
    return [measured(*each, task.metric, does) for *each, does in zip(answers == right, finite, done, strict=True)]
