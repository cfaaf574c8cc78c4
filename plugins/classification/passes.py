"""The passes of groups of candidates over a split: small networks many at a time, others one by one.

A pass is of networks of one group alone, and the groups are counted one behind another. What is frozen is computed once
for the networks of all groups.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from pdiff_plugins.classification.conditions import ConditionalSplit
from pdiff_plugins.classification.stacking import has_batch_statistics, stacked_forward
from pdiff_plugins.images.data import Split
from torch import Tensor, nn

from pdiff import Candidates, Layout, PdiffError, Replay, state_names

TOGETHER = 64  # networks of one pass, at most
VALUES = 2**21  # of their parameters

Pass = tuple[slice, slice, Tensor]  # candidates, rows of the split, and their logits `(n, B, classes)`


def is_whole(model: nn.Module, layout: Layout) -> bool:
    """Say whether candidates are whole networks that can be stacked."""
    return set(state_names(model)) <= set(layout.names) and not has_batch_statistics(model)


def stacks(candidates: Candidates, size: int) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """Yield the tensors `(size, ...)` by name of successive candidates, the last one repeated where they run out."""
    for start in range(0, len(candidates), size):
        stop = min(start + size, len(candidates))
        vectors = torch.stack([candidates.vectors[min(start + i, stop - 1)] for i in range(size)])
        tensors = candidates.layout.unflatten_many(vectors)
        yield slice(start, stop), {name: tensor.contiguous() for name, tensor in tensors.items()}


def stacked_logits(
    model: nn.Module, groups: Sequence[Candidates], data: Split, together: int | None = None
) -> Iterator[Pass]:
    """Yield the logits of many whole networks at a time, of `together` at most (default: `TOGETHER`).

    Every pass has the same number of networks, the last one of a group its last network several times, so that what a
    candidate reaches does not depend on how many there are.
    """
    size = max(1, min(together or TOGETHER, VALUES // groups[0].layout.size))
    for first, group in zip(accumulate(map(len, groups), initial=0), groups, strict=False):
        for members, stack in stacks(group, size):
            own = slice(first + members.start, first + members.stop)
            for rows, images, _ in data.batches():
                yield own, rows, stacked_forward(model, stack, images)[: own.stop - own.start]


def replayed_logits(model: nn.Module, groups: Sequence[Candidates], data: Split) -> Iterator[Pass]:
    """Yield the logits of one candidate at a time, what is frozen computed once."""
    replay = Replay(model, Candidates.joined(groups))
    for rows, images, _ in data.batches():
        for index, logits in enumerate(replay(images)):
            yield slice(index, index + 1), rows, logits[None]


def single_logits(model: nn.Module, groups: Sequence[Candidates], data: ConditionalSplit) -> Iterator[Pass]:
    """Yield the logits of one candidate at a time, on images of its own."""
    candidates = Candidates.joined(groups)
    values = data.values(candidates).to(data.data.device)
    for index in range(len(candidates)):
        candidates.load(model, index)
        for rows in data.batches():
            yield slice(index, index + 1), rows, model(data.inputs(rows, values[index : index + 1])[0])[None]


def conditional_passes(model: nn.Module, groups: Sequence[Candidates], data: ConditionalSplit) -> Iterator[Pass]:
    """Yield the logits of all candidates on all rows, each under its condition, in the way that suits them."""
    if not data.kind.same_images:
        return single_logits(model, groups, data)
    way = stacked_logits if is_whole(model, groups[0].layout) else replayed_logits
    return way(model, groups, data.data)


def plain_passes(model: nn.Module, groups: Sequence[Candidates], data: Split) -> Iterator[Pass]:
    """Yield the logits of all candidates on all rows of a split without conditions; see `task.eval_networks`."""
    if data.eval_networks == 1:
        return replayed_logits(model, groups, data)
    if not is_whole(model, groups[0].layout):
        line = f"got {data.eval_networks}, expected 1 for networks in part, or with running statistics. Leave it out."
        raise PdiffError(f"task.eval_networks: {line}")
    return stacked_logits(model, groups, data, data.eval_networks)
