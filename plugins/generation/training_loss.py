"""The denoising losses of networks with any selection: what the collection minimises, on the batch of one of its steps.

Without conditions the batches are those of the first branch of the first network. Every network is called by itself, as
in the training, so that its loss is the same to the last bit; what a step draws is drawn once for all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pdiff_plugins.generation.class_conditions import check_images, class_names
from pdiff_plugins.generation.denoising import Noisy, denoising_loss, with_noise
from pdiff_plugins.generation.many import batches_of, network_settings
from pdiff_plugins.images.augment import build_augmentations
from pdiff_plugins.images.class_sets import members
from pdiff_plugins.images.collection import finetuning_batch, set_mode
from torch import Tensor

from pdiff import Conditions, Task, call, check_positive

SETTINGS = ("batch_size", "mode", "augment")  # of a training, that its loss depends on
FIRST = (0, 0)


def losses_of_networks(
    task: Task,
    seed: int,
    collect: Mapping[str, Any],
    params: Mapping[str, Tensor],
    conditions: Conditions | None,
    step: int,
) -> Tensor:
    """Return the denoising losses `(n,)` of n networks on the training batch of a step.

    Args:
        task: whose split `train` is a `data.Split`.
        seed: of the run.
        collect: that section of the config.
        params: the selected tensors of each `(n, ...)`.
        conditions: the set of classes of each; None without conditions.
        step: of the training.
    """
    model = task.model.requires_grad_(False)
    where = "finetune" if conditions is None else "networks"
    section = collect.get(where) or {}
    settings = {name: section[name] for name in SETTINGS if name in section}
    given = {"task": task, "seed": seed, "names": list(params), "step": step}
    networks = [dict(zip(params, tensors, strict=True)) for tensors in zip(*params.values(), strict=True)]
    if conditions is None:
        batches = [call(batch_of_branch, settings, "collect.finetune", **given)] * len(networks)
    else:
        batches = batches_of_sets(**given, settings=settings, conditions=conditions)
    return torch.stack([denoising_loss(model, *each) for each in zip(batches, networks, strict=True)])


def batch_of_branch(
    task: Task,
    seed: int,
    names: Sequence[str],
    step: int,
    batch_size: int = 128,
    mode: str = "eval",
    augment: Sequence[dict] = (),
) -> Noisy:
    """Return what a step of the first branch is trained on, and put the network into its mode.

    Args:
        task, seed, step: as for `losses_of_networks`.
        names: the selection.
        batch_size, mode, augment: as in the fine-tuning.
    """
    check_positive("collect.finetune", batch_size=batch_size)
    change = build_augmentations(augment, "collect.finetune.augment")
    set_mode(task.model, names, mode)
    images, _ = finetuning_batch(task.splits["train"], seed, FIRST, step, batch_size, change)
    return with_noise(task.model.noise_schedule, images)


def batches_of_sets(
    task: Task, seed: int, names: Sequence[str], step: int, settings: Mapping[str, Any], conditions: Conditions
) -> list[Noisy]:
    """Return what a network for each set is trained on in a step, and put the network into its mode.

    Args:
        task, seed, step, conditions: as for `losses_of_networks`.
        names: the selection.
        settings: of the fine-tuning of each network.
    """
    data, given = task.splits["train"], {"model": task.model, "names": names, "steps": 1}
    found = call(network_settings, settings, "collect.networks", **given)
    sets = members(class_names(data), conditions)
    check_images(sets, {"train": data})
    return batches_of(data, sets, seed, step, found["batch_size"], found["change"], task.model.noise_schedule)
