"""Collection as published: train, freeze all but the selection, fine-tune it, a snapshot per step.

Every step draws its randomness from (seed, step) alone, so that a collection that was interrupted goes on from the
state of its last snapshot and ends with the same bytes.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from pdiff_plugins.images.augment import build_augmentations
from pdiff_plugins.images.data import Split, at
from torch import Tensor, nn

from pdiff import (
    PdiffError,
    Snapshot,
    Task,
    call,
    check_positive,
    derive_seed,
    known,
    pack,
    parameter_names,
    progress,
    state_names,
    training_modules,
    unpack,
)

MODES = ("train", "eval")
# From network, images `(B, C, size, size)` and labels `(B,)` to the loss and to further figures of the batch, all `()`.
Objective = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Mapping[str, Tensor]]]


def snapshots(
    task: Task,
    names: Sequence[str],
    seed: int,
    network: Callable[[int], nn.Module],
    objective: Objective,
    state: Mapping[str, Tensor] | None,
    train: dict,
    finetune: dict,
    seeds: int = 1,
    branches: int = 1,
    branch: int | None = None,
) -> Iterator[Snapshot]:
    """Yield the snapshots of every branch of every seed, or of one of them.

    Args:
        task: whose splits are `data.Split`.
        names: the selection.
        seed: of the run.
        network: from a number to a network with the initial weights of that number.
        objective: what is trained.
        state: where an interrupted collection goes on.
        train: settings of the base training.
        finetune: settings of the fine-tuning.
        seeds: independently initialised and trained networks; needs a selection that leaves nothing out.
        branches: fine-tunings of each trained network.
        branch: which of all seeds' branches (`roots`); None for all.
    """
    check_positive("collect", seeds=seeds, branches=branches)
    check_seeds(task.model, names, seeds)
    places = list(itertools.product(range(seeds), range(branches)))
    state = unpack(state) if state else None
    reached = (state["seed"], state["branch"]) if state else (0, -1)
    base, trained = state.get("base") if state else None, reached[0]
    for place in places if branch is None else [places[branch]]:
        number, _ = place
        if branch is None and place < reached:
            continue
        if base is None or number != trained:
            task.model.load_state_dict(network(number).state_dict())
            given = {"task": task, "seed": seed, "number": number, "objective": objective}
            own = state if reached == (number, -1) else None
            yield from call(train_base, train, "collect.train", state=own, **given)
            base = {name: tensor.detach().clone() for name, tensor in task.model.state_dict().items() if name in names}
            trained = number
        given = {"task": task, "names": names, "seed": seed, "place": place, "base": base, "objective": objective}
        own = state if place == reached else None
        yield from call(finetune_selection, finetune, "collect.finetune", state=own, **given)


def roots(seeds: int = 1, branches: int = 1) -> list[int]:
    """Return for each branch of each seed, which need not wait for each other, the number of its trained network."""
    check_positive("collect", seeds=seeds, branches=branches)
    return [number for number in range(seeds) for _ in range(branches)]


def check_seeds(model: nn.Module, names: Sequence[str], seeds: int) -> None:
    """Raise a `PdiffError` when several seeds would differ in what is not selected, running statistics included."""
    everything = state_names(model)
    frozen = [name for name in everything if name not in names]
    if seeds > 1 and frozen:
        selector = "all" if parameter_names(model) == set(everything) else "all+buffers"
        raise PdiffError(
            f"collect.seeds: got {seeds}, expected 1, since each seed would train another {frozen[0]!r}, which is not "
            f"selected. Use collect.branches, or select {selector}."
        )


def train_base(
    task: Task,
    seed: int,
    number: int,
    objective: Objective,
    state: Mapping[str, Any] | None,
    epochs: int,
    batch_size: int = 128,
    lr: float = 1e-3,
    weight_decay: float = 5e-4,
    augment: Sequence[dict] = (),
) -> Iterator[Snapshot]:
    """Train the whole network with AdamW and a cosine to 0; rest after every epoch.

    Args:
        task: whose splits are `data.Split`.
        seed: of the run.
        number: of the trained network.
        objective: what is trained.
        state: that of the last rest.
        epochs: passes over the training split; 0 keeps the weights that the network came with.
        batch_size: images per step.
        lr: first learning rate; cosine to 0.
        weight_decay: AdamW's.
        augment: augmentations of whole batches, in order: `[{type: flip}, {type: shift, share: 0.1}]`.
    """
    check_positive("collect.train", batch_size=batch_size)
    model, data = task.model, task.splits["train"]
    change = build_augmentations(augment, "collect.train.augment")
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    first = state["epoch"] if state else 0
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    steps = math.ceil(len(data) / batch_size)
    model.train().requires_grad_(True)
    with progress(f"train network {number}", epochs * steps, first * steps) as advance:
        for epoch in range(first, epochs):
            for step, rows in enumerate(epoch_rows(len(data), batch_size, derive_seed(seed, "train", number, epoch))):
                torch.manual_seed(derive_seed(seed, "train", number, epoch, step))
                rate = lr * 0.5 * (1 + math.cos(math.pi * (epoch * steps + step) / (epochs * steps)))
                training_step(model, objective, optimizer, images_of(data, rows, change), rate)
                advance()
            rest = {"seed": number, "branch": -1, "epoch": epoch + 1, "model": model.state_dict()}
            yield Snapshot({}, state=pack({**rest, "optimizer": optimizer.state_dict()}))


def epoch_rows(size: int, batch_size: int, seed: int) -> Sequence[Tensor]:
    """Return the rows of each batch of an epoch, in random order."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed)).split(batch_size)


def rows_of(size: int, batch_size: int, seed: int, names: Sequence[object], step: int) -> Tensor:
    """Return the rows of the batch of a step; `seed` and `names` settle, epoch by epoch, the order of so many."""
    epoch, batch = divmod(step, math.ceil(size / batch_size))
    return epoch_rows(size, batch_size, derive_seed(seed, *names, epoch))[batch]


def images_of(data: Split, rows: Tensor, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return some images `(B, C, size, size)`, augmented, and their labels `(B,)`."""
    return data.resized(change(data.pixels(rows))), at(data.answers, rows)


def finetuning_batch(
    data: Split, seed: int, place: tuple[int, int], step: int, batch_size: int, change: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return images and labels of a step of the fine-tuning of a branch; what else the step draws follows from torch.

    Args:
        data: the training images.
        seed: of the run.
        place: number of the trained network, and of the branch.
        step: of the branch, its warm-up included.
        batch_size: images per step.
        change: the augmentation.
    """
    rows = rows_of(len(data), batch_size, seed, ("finetune", *place), step)
    torch.manual_seed(derive_seed(seed, "finetune", *place, "step", step))
    return images_of(data, rows, change)


def training_step(
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    rate: float,
) -> dict[str, Tensor]:
    """Take one step of AdamW at learning rate `rate`; return loss and further figures of its batch, all `()`."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss, figures = objective(model, *batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return {"loss": loss.detach(), **figures}


def finetune_selection(
    task: Task,
    names: Sequence[str],
    seed: int,
    place: tuple[int, int],
    base: Mapping[str, Tensor],
    objective: Objective,
    state: Mapping[str, Any] | None,
    steps: int = 300,
    batch_size: int = 128,
    lr: float = 3e-2,
    weight_decay: float = 5e-4,
    mode: str = "eval",
    every: int = 1,
    warmup: int = 0,
    augment: Sequence[dict] = (),
) -> Iterator[Snapshot]:
    """Fine-tune the selection from the trained network with AdamW at a constant rate, a snapshot per `every` steps.

    Args:
        task: whose splits are `data.Split`.
        names: the selection.
        seed: of the run.
        place: number of the trained network, and of the branch.
        base: the selection of the trained network.
        objective: what is trained.
        state: that of the last snapshot of this branch.
        steps: optimiser steps after the warm-up.
        batch_size: images per step.
        lr: learning rate, constant.
        weight_decay: AdamW's.
        mode: `eval` keeps running statistics as they are (as published); `train` updates those of the selected
            layers, which then must be selected too.
        every: steps between snapshots.
        warmup: optimiser steps at the beginning of each branch that yield no snapshot.
        augment: as in the base training.
    """
    check_positive("collect.finetune", steps=steps, batch_size=batch_size, every=every)
    if warmup < 0:
        raise PdiffError(f"collect.finetune.warmup: got {warmup}, expected an integer from 0 on.")
    model, data = task.model, task.splits["train"]
    number, branch = place
    change = build_augmentations(augment, "collect.finetune.augment")
    set_mode(model, names, mode)
    tensors = model.state_dict(keep_vars=True)
    first = state["step"] if state else 0
    with torch.no_grad():
        for name in names:
            tensors[name].copy_((state["selected"] if state else base)[name])
    trainable = trainable_tensors(model, names)
    optimizer = torch.optim.AdamW(trainable, lr=lr, weight_decay=weight_decay)
    if state:
        optimizer.load_state_dict(state["optimizer"])
    with progress(f"collect {number}.{branch}", warmup + steps, first) as advance:
        for step in range(first, warmup + steps):
            batch = finetuning_batch(data, seed, place, step, batch_size, change)
            figures = training_step(model, objective, optimizer, batch, lr)
            advance()
            after = step + 1 - warmup
            if after > 0 and after % every == 0:
                params = {name: tensors[name].detach().clone() for name in names}
                origin = {"network": number, "branch": branch, "step": step + 1}
                origin |= {name: figure.item() for name, figure in figures.items()}
                kept = {"seed": number, "branch": branch, "step": step + 1, "selected": params, "base": base}
                yield Snapshot(params, origin, pack({**kept, "optimizer": optimizer.state_dict()}))
    for tensor in trainable:
        tensor.requires_grad_(False)


def set_mode(model: nn.Module, names: Sequence[str], mode: str, where: str = "collect.finetune") -> None:
    """Put the network into eval mode, and with `train` the modules that hold a selected tensor into training mode."""
    if mode not in MODES:
        raise PdiffError(f"{where}.mode: got {mode!r}. {known(mode, MODES)}")
    model.eval()
    for module in training_modules(model, names) if mode == "train" else ():
        module.training = True  # not `train()`, which would reach the modules inside


def selected(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """Return copies of a network's selected tensors."""
    tensors = model.state_dict()
    return {name: tensors[name].detach().clone() for name in names}


def trainable_tensors(model: nn.Module, names: Sequence[str]) -> list[Tensor]:
    """Return the selected tensors that gradients change, and let no other have a gradient."""
    model.requires_grad_(False)
    tensors, trainable = model.state_dict(keep_vars=True), parameter_names(model)
    return [tensors[name].requires_grad_(True) for name in names if name in trainable]
