"""The training losses of networks with any tensors: what the collection minimises, on the batch of one of its steps.

Of several branches, seeds or blocks the batches are those of the first. What the augmentations of a zoo draw is drawn
for one network, where the training draws for a block of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pdiff_plugins.classification.conditions import ConditionalSplit
from pdiff_plugins.classification.stacking import has_batch_statistics, stacked_forward
from pdiff_plugins.classification.together import batch_of
from pdiff_plugins.images.augment import build_augmentations
from pdiff_plugins.images.collection import finetuning_batch, images_of, rows_of, set_mode
from pdiff_plugins.images.data import Split
from torch import Tensor
from torch.nn.functional import cross_entropy

from pdiff import Conditions, Task, check_positive, derive_seed

# Settings of a training that its loss depends on, with their defaults there.
SETTINGS = {
    "collect.networks": {"batch_size": 64, "mode": "train", "augment": ()},
    "collect.finetune": {"batch_size": 128, "mode": "eval", "augment": ()},
}
FIRST = (0, 0)  # branch of the first network


def losses_of_networks(
    task: Task,
    seed: int,
    collect: Mapping[str, Any],
    params: Mapping[str, Tensor],
    conditions: Conditions | None,
    step: int,
) -> Tensor:
    """Return the cross-entropy `(n,)` of n networks on the training batch of a step.

    Args:
        task: the task.
        seed: of the run.
        collect: that section of the config.
        params: the tensors of each `(n, ...)`.
        conditions: what they are for, where the task has conditions.
        step: of the training.
    """
    together = isinstance(task.splits["train"], ConditionalSplit) or "networks" in collect
    where = "collect.networks" if together else "collect.finetune"
    section = collect.get("networks" if together else "finetune", {})
    settings = {name: section.get(name, default) for name, default in SETTINGS[where].items()}
    return losses_on_batch(task, seed, params, conditions, step, where, **settings)


def losses_on_batch(
    task: Task,
    seed: int,
    params: Mapping[str, Tensor],
    conditions: Conditions | None,
    step: int,
    where: str,
    batch_size: int,
    mode: str,
    augment: Sequence[dict],
) -> Tensor:
    """Return the cross-entropy `(n,)` of n networks on the training batch of a step; see `losses_of_networks`.

    Args:
        task, seed, params, conditions, step: as there.
        where: the section of the training in the config.
        batch_size, mode, augment: as in the training.
    """
    check_positive(where, batch_size=batch_size)
    model, data = task.model.requires_grad_(False), task.splits["train"]
    change = build_augmentations(augment, f"{where}.augment")
    set_mode(model, list(params), mode, where)
    if isinstance(data, ConditionalSplit):
        values = data.values_of(conditions).to(data.data.device)
        inputs, answers = batch_of(data, values, seed, step, batch_size, change)
    else:
        inputs, answers = first_batch(data, seed, step, batch_size, change, where)
        answers = answers.expand(len(next(iter(params.values()))), -1)
    if not has_batch_statistics(model) or mode == "eval":
        logits = stacked_forward(model, params, inputs)
    else:
        apart = [{name: tensor[n : n + 1] for name, tensor in params.items()} for n in range(len(answers))]
        logits = torch.cat([stacked_forward(model, own, inputs) for own in apart])
    return cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none").view(answers.shape).mean(1)


def first_batch(
    data: Split, seed: int, step: int, batch_size: int, change: Callable[[Tensor], Tensor], where: str
) -> tuple[Tensor, Tensor]:
    """Return images and labels of a step in the training of the first network, or the first branch of the first."""
    if where == "collect.finetune":
        return finetuning_batch(data, seed, FIRST, step, batch_size, change)
    rows = rows_of(len(data), batch_size, seed, ("zoo", 0), step)
    torch.manual_seed(derive_seed(seed, "zoo", "step", 0, step))
    return images_of(data, rows, change)
