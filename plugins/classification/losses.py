"""The training losses of networks with any tensors: what the collection minimises, on the batch of one of its steps.

Of several branches, seeds or blocks the batches are those of the first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pdiff_plugins.classification.stacking import has_batch_statistics, stacked_forward
from pdiff_plugins.classification.together import batch_of
from pdiff_plugins.images.augment import build_augmentations
from pdiff_plugins.images.collection import rows_of, set_mode
from pdiff_plugins.images.data import Split
from torch import Tensor
from torch.nn.functional import cross_entropy

from pdiff import Conditions, Task, call, check_positive, derive_seed

SETTINGS = ("batch_size", "mode", "augment")  # of a training, that its loss depends on
FIRST = ("finetune", 0, 0)


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
        conditions: what they are for; None without conditions.
        step: of the training.
    """
    where = "networks" if conditions is not None or "networks" in collect else "finetune"
    section = collect.get(where) or {}
    settings = {name: section[name] for name in SETTINGS if name in section}
    given = {"task": task, "seed": seed, "params": params, "conditions": conditions, "step": step}
    return call(losses_on_batch, settings, f"collect.{where}", **given, zoo=where == "networks")


def losses_on_batch(
    task: Task,
    seed: int,
    params: Mapping[str, Tensor],
    conditions: Conditions | None,
    step: int,
    zoo: bool,
    batch_size: int | None = None,
    mode: str | None = None,
    augment: Sequence[dict] = (),
) -> Tensor:
    """Return the cross-entropy `(n,)` of n networks on the training batch of a step; see `losses_of_networks`.

    Args:
        task, seed, params, conditions, step: as there.
        zoo: whether networks are trained in blocks, not branches; their settings have other defaults.
        batch_size, mode, augment: as in the training.
    """
    size, mode = batch_size or (64 if zoo else 128), mode or ("train" if zoo else "eval")
    check_positive("collect", batch_size=size)
    model, data = task.model.requires_grad_(False), task.splits["train"]
    change = build_augmentations(augment, "collect.augment")
    set_mode(model, list(params), mode, "collect")
    if conditions is not None:
        inputs, answers = batch_of(data, conditions.values, seed, step, size, change)
    else:
        inputs, answers = first_batch(data, seed, step, size, change, zoo)
        answers = answers.expand(len(next(iter(params.values()))), -1)
    if not has_batch_statistics(model) or mode == "eval":
        logits = stacked_forward(model, params, inputs)
    else:
        apart = [{name: tensor[n : n + 1] for name, tensor in params.items()} for n in range(len(answers))]
        logits = torch.cat([stacked_forward(model, own, inputs) for own in apart])
    return cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none").view(answers.shape).mean(1)


def first_batch(data: Split, seed: int, step: int, batch_size: int, change: Any, zoo: bool) -> tuple[Tensor, Tensor]:
    """Return images and labels of a step in the training of the first network, or the first branch of the first."""
    order = ("zoo", 0) if zoo else FIRST
    rows = rows_of(len(data), batch_size, seed, order, step)
    torch.manual_seed(derive_seed(seed, *(("zoo", "step", 0) if zoo else (*FIRST, "step")), step))
    return data.resized(change(data.pixels(rows))), data.labels[rows].to(data.device)
