"""A zoo: networks that are trained independently of each other, many at once, several snapshots of each.

Every network has its own initial weights and its own order of the images. They are divided into blocks, which several
processes share: a block is the same whoever trains it and when, and an interrupted collection goes on behind the last
block that was trained. Networks that keep statistics of their batches are trained one after another.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from pdiff_plugins.classification.stacking import has_batch_statistics, stacked_step, trainable_stack
from pdiff_plugins.images.augment import build_augmentations
from pdiff_plugins.images.blocks import blocks_of
from pdiff_plugins.images.collection import check_seeds, epoch_rows, selected
from pdiff_plugins.images.data import Split, at
from torch import Tensor, nn

from pdiff import (
    PdiffError,
    Snapshot,
    Task,
    call,
    check_positive,
    derive_seed,
    pack,
    progress,
    unpack,
)


def blocks_of_zoo(seeds: int, together: int = 256) -> list[range]:
    """Return the numbers of the networks of each block.

    Args:
        seeds: how many networks there are.
        together: networks of a block, at most.
    """
    check_positive("collect", seeds=seeds)
    return blocks_of(seeds, together)


def snapshots_of_zoo(
    task: Task,
    names: Sequence[str],
    seed: int,
    network: Callable[[int], nn.Module],
    state: Mapping[str, Tensor] | None,
    networks: dict,
    seeds: int,
    together: int = 256,
    branch: int | None = None,
) -> Iterator[Snapshot]:
    """Yield the snapshots of every network, those of all blocks or of one of them.

    Args:
        task: whose splits are `data.Split`.
        names: the selection; of several networks, all of it.
        seed: of the run.
        network: from a number to a network with the initial weights of that number.
        state: where an interrupted collection goes on.
        networks: settings of the training of each network.
        seeds: independently initialised and trained networks.
        together: networks that are trained at once.
        branch: which block of networks; None for all.
    """
    blocks = blocks_of_zoo(seeds, together)
    check_seeds(task.model, names, seeds)
    state = unpack(state) if state else None
    reached = state["block"] if state else 0
    for place in range(reached, len(blocks)) if branch is None else [branch]:
        own = state if place == reached else None
        yield from train_block(task, names, seed, network, networks, blocks[place], place, own)


def train_block(
    task: Task,
    names: Sequence[str],
    seed: int,
    network: Callable[[int], nn.Module],
    networks: Mapping[str, Any],
    block: range,
    place: int,
    state: Mapping[str, Any] | None,
) -> Iterator[Snapshot]:
    """Yield the snapshots of a block; with the first of those that were trained together a state that holds them all.

    Args:
        task: whose splits are `data.Split`.
        names: the selection.
        seed: of the run.
        network: from a number to a network with the initial weights of that number.
        networks: settings of their training.
        block: the networks' numbers.
        place: number of the block.
        state: the last one of this block.
    """
    group = 1 if has_batch_statistics(task.model) else len(block)
    for start in range(state["start"] if state else 0, len(block), group):
        numbers = block[start : start + group]
        resumed = state is not None and start == state["start"]
        if not resumed:
            begins = [selected(network(number), names) for number in numbers]
            given = {"model": task.model, "data": task.splits["train"], "begins": begins}
            trained = call(train_apart, networks, "collect.networks", **given, numbers=numbers, seed=seed)
        found = snapshots_in(state["trained"] if resumed else trained, numbers)
        if resumed:
            next(found)
        else:
            yield Snapshot(*next(found), pack({"block": place, "start": start, "trained": trained}))
        for params, origin in found:
            yield Snapshot(params, origin)


def snapshots_in(trained: Mapping[str, Any], numbers: Sequence[int]) -> Iterator[tuple[dict[str, Tensor], dict]]:
    """Yield parameters and origin of each snapshot, network by network; `trained` is what `train_apart` returns."""
    for index, number in enumerate(numbers):
        for taken, step in enumerate(trained["steps"].tolist()):
            figures = {name: values[index, taken].item() for name, values in trained["figures"].items()}
            params = {name: tensor[index, taken] for name, tensor in trained["stack"].items()}
            yield params, {"network": number, "branch": 0, "step": step, **figures}


def steps_of(steps: int, snapshots: int, every: int) -> list[int]:
    """Return after which steps the snapshots are taken, the last one after the last step."""
    check_positive("collect.networks", steps=steps, snapshots=snapshots, every=every)
    first = steps - (snapshots - 1) * every
    if first < 1:
        raise PdiffError(
            f"collect.networks.snapshots: got {snapshots}, one every {every} steps, expected at most "
            f"{1 + (steps - 1) // every} within {steps} steps. Take fewer, or train longer."
        )
    return list(range(first, steps + 1, every))


def train_apart(
    model: nn.Module,
    data: Split,
    begins: Sequence[Mapping[str, Tensor]],
    numbers: Sequence[int],
    seed: int,
    steps: int,
    batch_size: int = 64,
    lr: float = 1e-2,
    weight_decay: float = 0.0,
    eps: float = 1e-8,
    mode: str = "train",
    snapshots: int = 1,
    every: int = 1,
    augment: Sequence[dict] = (),
) -> dict[str, Any]:
    """Train n networks with AdamW and a cosine to 0, each on its own order of the images.

    Args:
        model: the architecture, and what they share; it stays as it is.
        data: the training split.
        begins: the tensors that each begins with, and that are its own.
        numbers: of the networks; with `seed` they settle the order of the images.
        seed: of the run.
        steps: optimiser steps.
        batch_size: images per step and network.
        lr: first learning rate; cosine to 0.
        weight_decay: AdamW's.
        eps: AdamW's.
        mode: `train`, or `eval`, which drops nothing out and keeps running statistics as they are.
        snapshots: of each network, the last one after the last step.
        every: steps between two snapshots.
        augment: augmentations of whole batches, in order: `[{type: flip}, {type: shift, share: 0.1}]`.

    Returns:
        The `stack` of their tensors `(n, k, ...)`, the `figures` of the batch that led to each of the k snapshots
        `(n, k)`, and the `steps` after which they were taken `(k,)`.
    """
    taken = steps_of(steps, snapshots, every)
    check_positive("collect.networks", batch_size=batch_size)
    change = build_augmentations(augment, "collect.networks.augment")
    stack, optimizer = trainable_stack(model, begins, mode, lr, weight_decay, eps)
    batches, found = math.ceil(len(data) / batch_size), []
    with progress(f"train networks {numbers[0]} to {numbers[-1]}", steps) as advance:
        for step in range(steps):
            epoch, batch = divmod(step, batches)
            if batch == 0:
                order = [epoch_rows(len(data), batch_size, derive_seed(seed, "zoo", n, epoch)) for n in numbers]
            rows = torch.stack([own[batch] for own in order])
            torch.manual_seed(derive_seed(seed, "zoo", "step", numbers[0], step))
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            images = data.resized(change(data.pixels(rows.flatten()))).unflatten(0, rows.shape)
            figures = stacked_step(model, stack, optimizer, images, at(data.answers, rows))
            if step + 1 in taken:
                found.append(({name: tensor.detach().clone() for name, tensor in stack.items()}, figures))
            advance()
    stacks, figures = (
        {name: torch.stack([part[name] for part in parts], 1) for name in parts[0]}
        for parts in zip(*found, strict=True)
    )
    figures = {name: values.cpu() for name, values in figures.items()}
    return {"stack": stacks, "figures": figures, "steps": torch.tensor(taken)}
