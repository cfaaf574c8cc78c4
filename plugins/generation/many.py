"""A network for every set of classes: the selection fine-tuned from one base on the images of these classes alone.

The networks are divided into blocks, which several processes share: a block is the same whoever trains it and when, and
an interrupted collection goes on behind the last block that was trained. All networks share what a step draws: images
of every class, each with a noise and a time step, of which each network takes those of its classes. So networks for
sets that are alike are trained alike.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from pdiff_plugins.generation.class_conditions import check_images, class_names, table_of
from pdiff_plugins.generation.denoising import Noisy, denoising_loss, objective, with_noise
from pdiff_plugins.images.augment import build_augmentations
from pdiff_plugins.images.blocks import blocks_of
from pdiff_plugins.images.class_sets import members
from pdiff_plugins.images.collection import selected, set_mode, train_base
from pdiff_plugins.images.data import Split
from torch import Tensor, nn

from pdiff import (
    Conditions,
    Snapshot,
    Task,
    call,
    check_positive,
    derive_seed,
    pack,
    parameter_names,
    progress,
    unpack,
)

TOGETHER = 10


def snapshots_of_sets(
    task: Task,
    names: Sequence[str],
    seed: int,
    network: Callable[[int], nn.Module],
    state: Mapping[str, Tensor] | None,
    conditions: dict,
    train: dict,
    networks: dict,
    together: int = TOGETHER,
    branch: int | None = None,
) -> Iterator[Snapshot]:
    """Yield a network for each set of classes: those of all blocks, or of one of them.

    Args:
        task: whose splits `train` is a `data.Split`.
        names: the selection.
        seed: of the run.
        network: from a number to a network with the initial weights of that number.
        state: where an interrupted collection goes on.
        conditions: the sets of classes.
        train: settings of the training of the base, on the images of all classes.
        networks: settings of the fine-tuning of each network from that base.
        together: networks that are trained at once.
        branch: which block of networks; None for all.
    """
    table = table_of(conditions, task.splits["train"], seed)
    blocks, state = blocks_of(len(table), together), unpack(state) if state else None
    call(network_settings, networks, "collect.networks", model=task.model, names=names)  # before any training
    base = state.get("base") if state else None
    if base is None:
        task.model.load_state_dict(network(0).state_dict())
        given = {"task": task, "seed": seed, "number": 0, "objective": denoise}
        yield from call(train_base, train, "collect.train", state=state, **given)
        base, state = selected(task.model, names), None
    reached = state["branch"] if state else 0
    for place in range(reached, len(blocks)) if branch is None else [branch]:
        own = state if state and place == reached else None
        yield from train_block(task, names, seed, table, networks, blocks[place], {"branch": place, "base": base}, own)


def denoise(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return what `denoising.objective` does with the noise schedule of the network itself."""
    return objective(model.noise_schedule, model, images, labels)


def train_block(
    task: Task,
    names: Sequence[str],
    seed: int,
    table: Conditions,
    networks: Mapping[str, Any],
    block: range,
    kept: Mapping[str, Any],
    state: Mapping[str, Any] | None,
) -> Iterator[Snapshot]:
    """Yield the networks of a block, with the first of them a state that holds them all.

    Args:
        task, names, seed, networks: as for `snapshots_of_sets`.
        table: all sets of classes.
        block: the networks' numbers.
        kept: what every state holds: number of the block, and the base's selection.
        state: the last one of this block.
    """
    if state is None:
        settings = call(network_settings, networks, "collect.networks", model=task.model, names=names)
        trained = train_together(task, kept["base"], table.take(block), seed, block[0], **settings)
    else:
        trained = state["trained"]
    for place in range(1 if state else 0, len(block)):
        params = {name: tensors[place] for name, tensors in trained["stack"].items()}
        origin = {"network": 0, "branch": block[place], "loss": trained["loss"][place].item()}
        fresh = pack({**kept, "trained": trained}) if place == 0 else None
        yield Snapshot(params, origin, fresh, table[block[place]])


def finetuned(
    task: Task,
    names: Sequence[str],
    seed: int,
    start: Mapping[str, Tensor],
    conditions: Conditions,
    steps: int,
    networks: Mapping[str, Any],
    together: int = TOGETHER,
) -> Iterator[dict[str, Tensor]]:
    """Yield for each set of classes the selection that the fine-tuning of the collection makes of `start`.

    Args:
        task, names, seed, networks, together: as for `snapshots_of_sets`.
        start: the selection of the base.
        conditions: sets of classes.
        steps: of the fine-tuning, in the place of those in `networks`; the learning rate falls to 0 over them.
    """
    settings = call(network_settings, networks, "collect.networks", model=task.model, names=names)
    for block in blocks_of(len(conditions), together):
        given = {**settings, "steps": steps}
        trained = train_together(task, start, conditions.take(block), seed, block[0], **given)
        for place in range(len(block)):
            yield {name: tensors[place] for name, tensors in trained["stack"].items()}


def network_settings(
    model: nn.Module,
    names: Sequence[str],
    steps: int,
    batch_size: int = 16,
    lr: float = 1e-2,
    weight_decay: float = 0.0,
    eps: float = 1e-8,
    mode: str = "eval",
    augment: Sequence[dict] = (),
) -> dict[str, Any]:
    """Return the settings of the fine-tuning of each network, checked, and put the base into its mode.

    Args:
        model: the base.
        names: the selection.
        steps: optimiser steps.
        batch_size: images per step; all of them, where a set's classes have fewer.
        lr: first learning rate; cosine to 0.
        weight_decay: AdamW's.
        eps: AdamW's; near the gradients' own size, networks of near sets stay near each other.
        mode: `eval`, or `train` for the modules that hold a selected tensor.
        augment: augmentations of whole pools, in order: `[{type: flip}, {type: shift, share: 0.1}]`.
    """
    check_positive("collect.networks", steps=steps, batch_size=batch_size)
    set_mode(model, names, mode, "collect.networks")
    change = build_augmentations(augment, "collect.networks.augment")
    given = {"steps": steps, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "eps": eps}
    return {**given, "change": change}


def train_together(
    task: Task,
    start: Mapping[str, Tensor],
    conditions: Conditions,
    seed: int,
    first: int,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    eps: float,
    change: Callable[[Tensor], Tensor],
) -> dict[str, Any]:
    """Train n networks with AdamW and a cosine to 0; the model's own parameters stay as they are.

    Args:
        task: its network, in the mode of the training, and its split `train`.
        start: the selection that each network begins with.
        conditions: the set of classes of each.
        seed: of the run.
        first: number of the first network, for the progress.
        steps, batch_size, lr, weight_decay, eps, change: see `network_settings`.

    Returns:
        The `stack` of their tensors `(n, ...)`, and the `loss` of each one's last batch `(n,)`.
    """
    model, data = task.model.requires_grad_(False), task.splits["train"]
    sets = members(class_names(data), conditions)
    check_images(sets, {"train": data})
    begin = {name: tensor.to(data.device) for name, tensor in start.items()}
    networks = [{name: tensor.detach().clone() for name, tensor in begin.items()} for _ in sets]
    learnt = [name for name in begin if name in parameter_names(model)]
    trainable = [network[name].requires_grad_(True) for network in networks for name in learnt]
    optimizer = torch.optim.AdamW(trainable, lr=lr, weight_decay=weight_decay, eps=eps, fused=True)
    with progress(f"train networks {first} to {first + len(sets) - 1}", steps) as advance:
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.zero_grad()
            batches = batches_of(data, sets, seed, step, batch_size, change, model.noise_schedule)
            losses = [backward(model, *each) for each in zip(networks, batches, strict=True)]
            optimizer.step()
            advance()
    stack = {name: torch.stack([network[name].detach() for network in networks]) for name in begin}
    return {"stack": stack, "loss": torch.tensor(losses)}


def batches_of(
    data: Split,
    sets: Sequence[Sequence[int]],
    seed: int,
    step: int,
    batch_size: int,
    change: Callable[[Tensor], Tensor],
    noise_schedule: Any,
) -> list[Noisy]:
    """Return what the network of each set is trained on in a step, whichever are trained with it.

    Args:
        data: the training images.
        sets: the labels of each set's classes.
        seed: of the run.
        step: of the training.
        batch_size, change: see `network_settings`.
        noise_schedule: of the network.
    """
    torch.manual_seed(derive_seed(seed, "networks", "step", step))
    labels, pool = pool_of(data, batch_size, change, noise_schedule)
    own = [torch.isin(labels, torch.tensor(classes)).nonzero().flatten()[:batch_size] for classes in sets]
    return [pool.take(rows) for rows in own]


def pool_of(
    data: Split, batch_size: int, change: Callable[[Tensor], Tensor], noise_schedule: Any
) -> tuple[Tensor, Noisy]:
    """Return images of all classes with noise, in random order, and their labels; torch's own generator draws.

    Of each class there are `batch_size` images, or all, the first ones in an order of all images: so the first
    `batch_size` images of whichever classes are what one would draw from all images of these.
    """
    order = torch.randperm(len(data))
    found = [(data.labels[order] == label).nonzero().flatten()[:batch_size] for label in range(data.classes)]
    rows = order[torch.cat(found).sort().values]
    return data.labels[rows], with_noise(noise_schedule, data.resized(change(data.pixels(rows))))


def backward(model: nn.Module, tensors: Mapping[str, Tensor], batch: Noisy) -> float:
    """Add the gradients of the denoising loss of a network, the model with these tensors in it, and return the loss."""
    loss = denoising_loss(model, batch, tensors)
    loss.backward()
    return loss.item()
