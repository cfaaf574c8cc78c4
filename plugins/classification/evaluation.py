"""What candidates reach, under its condition if it has one: small networks many at a time, others one by one."""

import math
from collections.abc import Iterator, Mapping

import torch
from pdiff_plugins.classification.conditions import ConditionalSplit
from pdiff_plugins.classification.stacking import has_batch_statistics, stacked_forward
from pdiff_plugins.classification.uncertainty import (
    UNCERTAINTY,
    Beliefs,
    confidence,
    right_log_probabilities,
    uncertainty_of,
)
from pdiff_plugins.images.data import Split
from torch import Tensor, nn

from pdiff import Candidates, Evaluation, Layout, Metric, PdiffError, Replay, Task, progress, state_names

TOGETHER = 64  # networks of one pass, at most
VALUES = 2**21  # of their parameters


def measured(
    correct: Tensor,
    finite: Tensor,
    metric: Metric,
    condition: dict[str, float] | None = None,
    details: Mapping[str, float] | None = None,
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


def is_whole(model: nn.Module, layout: Layout) -> bool:
    """Say whether candidates are whole networks that can be stacked."""
    return set(state_names(model)) <= set(layout.names) and not has_batch_statistics(model)


Pass = tuple[slice, slice, Tensor]  # candidates, rows of the split, and their logits `(n, B, classes)`


def stacked_logits(
    model: nn.Module, candidates: Candidates, data: Split, together: int | None = None
) -> Iterator[Pass]:
    """Yield the logits of many whole networks at a time, of `together` at most (default: `TOGETHER`).

    Every pass has the same number of networks, the last one its last network several times, so that what a candidate
    reaches does not depend on how many there are.
    """
    size = max(1, min(together or TOGETHER, VALUES // candidates.layout.size))
    for start in range(0, len(candidates), size):
        members = slice(start, min(start + size, len(candidates)))
        networks = [candidates[min(start + i, members.stop - 1)] for i in range(size)]
        stack = {name: torch.stack([tensors[name] for tensors in networks]) for name in candidates.layout.names}
        stack = {name: tensor.to(data.device) for name, tensor in stack.items()}
        for rows, images, _ in data.batches():
            yield members, rows, stacked_forward(model, stack, images)[: members.stop - start]


def replayed_logits(model: nn.Module, candidates: Candidates, data: Split) -> Iterator[Pass]:
    """Yield the logits of one candidate at a time, what is frozen computed once."""
    replay = Replay(model, candidates)
    for rows, images, _ in data.batches():
        for index, logits in enumerate(replay(images)):
            yield slice(index, index + 1), rows, logits[None]


def single_logits(model: nn.Module, candidates: Candidates, data: ConditionalSplit) -> Iterator[Pass]:
    """Yield the logits of one candidate at a time, on images of its own."""
    values = data.values(candidates)
    for index in range(len(candidates)):
        candidates.load(model, index)
        for rows in data.batches():
            yield slice(index, index + 1), rows, model(data.inputs(rows, values[index : index + 1])[0])[None]


def passes(model: nn.Module, candidates: Candidates, data: ConditionalSplit) -> Iterator[Pass]:
    """Yield the logits of all candidates on all rows, in the way that suits them."""
    if not data.kind.same_images:
        return single_logits(model, candidates, data)
    way = stacked_logits if is_whole(model, candidates.layout) else replayed_logits
    return way(model, candidates, data.data)


def plain_passes(model: nn.Module, candidates: Candidates, data: Split) -> Iterator[Pass]:
    """Yield the logits of all candidates on all rows of a split without conditions; see `task.eval_networks`."""
    if data.eval_networks == 1:
        return replayed_logits(model, candidates, data)
    if not is_whole(model, candidates.layout):
        line = f"got {data.eval_networks}, expected 1 for networks in part, or with running statistics. Leave it out."
        raise PdiffError(f"task.eval_networks: {line}")
    return stacked_logits(model, candidates, data, data.eval_networks)


@torch.no_grad()
def plain_results(task: Task, candidates: Candidates, split: str) -> list[Evaluation]:
    """Return what each candidate reaches on a split without conditions."""
    data = task.splits[split]
    correct = torch.empty(len(candidates), len(data), dtype=torch.bool)
    finite = torch.ones(len(candidates), dtype=torch.bool)
    beliefs = Beliefs(len(candidates), data.labels) if UNCERTAINTY in task.splits else None
    with progress(f"evaluate on {split}", len(candidates) * data.num_batches()) as advance:
        for members, rows, logits in plain_passes(task.model.eval(), candidates, data):
            correct[members, rows] = logits.argmax(2).cpu() == data.labels[rows]
            finite[members] &= logits.isfinite().all(2).all(1).cpu()
            if beliefs:
                beliefs.put(members, rows, logits)
            for _ in logits:
                advance()
    details = further(task, candidates, split, beliefs, correct, finite) if beliefs else [{}] * len(candidates)
    rows = zip(correct, finite, details, strict=True)
    return [measured(row, alive, task.metric, details=figures) for row, alive, figures in rows]


def further(
    task: Task, candidates: Candidates, split: str, beliefs: Beliefs, correct: Tensor, finite: Tensor
) -> list[dict[str, float]]:
    """Return the further figures of each candidate; none of one that is dead.

    Args:
        task, candidates, split: what is measured.
        beliefs: of the candidates.
        correct: which samples each gets right `(M, S)`.
        finite: whether all its logits are `(M,)`.
    """
    watch = task.splits[UNCERTAINTY]
    beyond, outside = watch.beyond(split), [None] * len(candidates)
    if beyond is not None:
        outside = torch.zeros(len(candidates), len(beyond), dtype=torch.float64)
        for members, rows, logits in plain_passes(task.model, candidates, beyond):
            outside[members, rows] = confidence(logits)
    each = zip(beliefs.likelihoods, beliefs.confidences, correct, outside, finite, strict=True)
    return [uncertainty_of(*given, watch.bins) if alive else {} for *given, alive in each]


@torch.no_grad()
def plain_ensemble(task: Task, candidates: Candidates, split: str) -> Evaluation:
    """Return what the average of class probabilities reaches on a split without conditions."""
    data, watch = task.splits[split], task.splits.get(UNCERTAINTY)
    total, finite = torch.zeros(len(data), data.classes), torch.tensor(True)
    likelihoods = torch.full((len(data),), -math.inf, dtype=torch.float64)  # of the right answers, summed over members
    for _, rows, logits in plain_passes(task.model.eval(), candidates, data):
        total[rows] += logits.softmax(2).sum(0).cpu()
        finite &= logits.isfinite().all().cpu()
        if watch:
            added = right_log_probabilities(logits, data.labels[rows]).logsumexp(0)
            likelihoods[rows] = torch.logaddexp(likelihoods[rows], added)
    correct = total.argmax(1) == data.labels
    if not watch or not finite:
        return measured(correct, finite, task.metric)
    count, beyond, outside = len(candidates), watch.beyond(split), None
    if beyond is not None:
        summed = torch.zeros(len(beyond), data.classes, dtype=torch.float64)
        for _, rows, logits in plain_passes(task.model, candidates, beyond):
            summed[rows] += logits.double().softmax(2).sum(0).cpu()
        outside = summed.amax(1) / count
    given = likelihoods - math.log(count), total.double().amax(1) / count, correct, outside
    return measured(correct, finite, task.metric, details=uncertainty_of(*given, watch.bins))


@torch.no_grad()
def conditional_results(task: Task, candidates: Candidates, split: str) -> list[Evaluation]:
    """Return what each candidate reaches under its own condition, and what it does, in the terms of that."""
    data = task.splits[split]
    values, labels = data.values(candidates), data.data.labels
    answers = torch.empty(len(candidates), len(data), dtype=torch.long)
    finite = torch.ones(len(candidates), dtype=torch.bool)
    with progress(f"evaluate on {split}", len(candidates) * data.data.num_batches()) as advance:
        for members, rows, logits in passes(task.model.eval(), candidates, data):
            answers[members, rows] = logits.argmax(2).cpu()
            finite[members] &= logits.isfinite().all(2).all(1).cpu()
            for _ in logits:
                advance()
    right = data.kind.labels(labels, values)
    done = [data.kind.measured(given, labels) for given in answers]
    return [measured(*each, task.metric, does) for *each, does in zip(answers == right, finite, done, strict=True)]


@torch.no_grad()
def conditional_ensemble(task: Task, candidates: Candidates, split: str) -> Evaluation:
    """Return what the average of class probabilities reaches under the candidates' condition, which is one for all."""
    data = task.splits[split]
    values, labels = data.values(candidates), data.data.labels
    total = torch.zeros(len(data), task.splits[split].data.classes)
    for _, rows, logits in passes(task.model.eval(), candidates, data):
        total[rows] += logits.softmax(2).sum(0).cpu()
    answers = total.argmax(1)
    right, finite = data.kind.labels(labels, values[:1])[0], total.isfinite().all()
    return measured(answers == right, finite, task.metric, data.kind.measured(answers, labels))
