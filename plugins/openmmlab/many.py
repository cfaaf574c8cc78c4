"""A network for every condition: the selection is fine-tuned from one trained network, for many conditions in lockstep.

All networks of a block take a step on the same images under the same augmentations, so that these are loaded once, and
what comes before the selection is computed once; only the labels differ. So each is trained as it would be alone. The
blocks are shared by processes, and an interrupted collection goes on where it rested.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from pdiff_plugins.images.blocks import blocks_of
from pdiff_plugins.openmmlab.collection import check_training, restore_settings, settings_of, train_base
from pdiff_plugins.openmmlab.hooks import SECONDS_BETWEEN_RESTS
from pdiff_plugins.openmmlab.libraries import Library
from pdiff_plugins.openmmlab.lockstep import Lockstep, put
from torch import Tensor, nn

from pdiff import (
    Conditions,
    Snapshot,
    Task,
    call,
    check_positive,
    pack,
    to_host,
    unpack,
)

TOGETHER = 40  # networks that are trained at once, at most


def roots_of_many(count: int, together: int = TOGETHER) -> list[int]:
    """Return for each block the number of the trained network it begins with: there is one."""
    return [0] * len(blocks_of(count, together))


def snapshots_of_many(
    task: Task,
    names: Sequence[str],
    seed: int,
    device: torch.device,
    state: Mapping[str, Tensor] | None,
    folder: Path,
    library: Library,
    conditions: dict,
    networks: dict,
    train: dict | None = None,
    together: int = TOGETHER,
    draws: str = "seeded",
    branch: int | None = None,
) -> Iterator[Snapshot]:
    """Yield a network for each condition, all from one trained network: those of all blocks, or of one of them.

    Args:
        task: whose split `train` is a `data.Split` with a kind of condition.
        names: the selection.
        seed: of the run.
        device: where the network is.
        state: where an interrupted collection goes on.
        folder: for mmengine's logs.
        library: mmdet or mmseg.
        conditions: `type` and settings of what the networks are made for.
        networks: settings of the training of each network.
        train: settings of the base training.
        together: networks that are trained at once.
        draws: of the base training: `seeded` makes every draw of training data a function of seed and step, so that an
            interrupted one ends with the same bytes; `config` keeps the samplers of the config.
        branch: which block of networks; None for all.
    """
    table = task.splits["train"].kind.table
    blocks = blocks_of(len(table), together)
    about = {"model": task.model, "names": names, "config": task.model.cfg}
    settings = call(network_settings, networks, "collect.networks", **about)
    state = unpack(state) if state else None
    base = state.get("base") if state else None
    if base is None:
        own = settings_of(task.model)
        given = {"task": task, "seed": seed, "config": task.model.cfg, "library": library, "draws": draws}
        yield from call(train_base, train or {}, "collect.train", state=state, folder=folder, device=device, **given)
        restore_settings(own)
        tensors = task.model.state_dict()
        base, state = {name: tensors[name].detach().clone() for name in names}, None
    if state and "model" in state:  # before the first snapshot nothing else holds what the base training has made
        task.model.load_state_dict(state["model"])
    reached = state["block"] if state else -1
    for number in range(max(reached, 0), len(blocks)) if branch is None else [branch]:
        own = state if number == reached else None
        yield from train_block(task, seed, number, blocks[number], base, own, settings)


def network_settings(
    model: nn.Module,
    names: Sequence[str],
    config: Config,
    steps: int,
    optimizer: dict | None = None,
    mode: str = "eval",
) -> dict[str, Any]:
    """Return the settings of the training of each network, all of them checked before anything is trained.

    Args:
        model: the network.
        names: the selection.
        config: the library's.
        steps: optimiser steps of each network, of the config's batch size.
        optimizer: `{type: AdamW, lr: 1.0e-3}`, any of mmengine's, its rate falling to 0 by a cosine; null takes the
            config's. Other settings of the config's `optim_wrapper`, clipping or mixed precision, stay.
        mode: `eval` keeps the running statistics of every normalisation as they are; `train` updates those of the
            selected ones, which then must be selected too.
    """
    check_positive("collect.networks", steps=steps)
    check_training(model, names, config, optimizer, mode, "collect.networks")
    return {"steps": steps, "optimizer": optimizer, "mode": mode}


def train_block(
    task: Task,
    seed: int,
    number: int,
    block: range,
    base: Mapping[str, Tensor],
    state: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> Iterator[Snapshot]:
    """Yield the networks of a block; while they are trained, and with the first of them, a state that holds them all.

    Args:
        task: whose split `train` has a kind of condition.
        seed: of the run.
        number: of the block.
        block: which of the kind's conditions.
        base: the selection that each begins with.
        state: the last one of this block.
        settings: of the training; see `network_settings`.
    """
    table = task.splits["train"].kind.table.take(block)
    kept = {"block": number, "base": dict(base)}
    done = state["done"] if state else 0
    trained = state["trained"] if state and done else None
    if trained is None:
        frozen = {"model": dict(task.model.state_dict())} if number == 0 else {}
        lockstep = Lockstep(task, base, table, seed, f"train {number}", **settings)
        if state:
            lockstep.restore(state["networks"], state["step"])
        rested = time.monotonic()
        for _ in lockstep.run():
            if time.monotonic() - rested > SECONDS_BETWEEN_RESTS:
                rest = {**kept, **frozen, "done": 0, "networks": lockstep.state(), "step": lockstep.step}
                yield Snapshot({}, state=pack(rest))
                rested = time.monotonic()
        trained = [[network.tensors, network.losses] for network in lockstep.networks]
    for place in range(done, len(block)):
        tensors, losses = trained[place]
        origin = {"network": 0, "branch": block[place], "step": settings["steps"]}
        figures = to_host([*losses.values()])
        origin |= {name: value.item() for name, value in zip(losses, figures, strict=True)}
        fresh = pack({**kept, "done": place + 1, "trained": trained}) if place == done else None
        yield Snapshot({name: tensor.detach() for name, tensor in tensors.items()}, origin, fresh, table[place])


def finetuned(
    task: Task,
    names: Sequence[str],
    seed: int,
    start: Mapping[str, Tensor],
    conditions: Conditions,
    steps: int,
    networks: dict,
) -> Iterator[dict[str, Tensor]]:
    """Yield the selection that `steps` steps of the training make of `start`, for each condition; see the hook.

    Args:
        task, names, seed, networks: as for `snapshots_of_many`.
        start: the selection that each begins with.
        conditions: n of them.
        steps: in place of those of the config.
    """
    about = {"model": task.model, "names": names, "config": task.model.cfg}
    settings = call(network_settings, {**networks, "steps": steps}, "collect.networks", **about)
    put(task.model, start)
    lockstep = Lockstep(task, start, conditions, seed, "fine-tune", **settings)
    for _ in lockstep.run():
        pass
    for network in lockstep.networks:
        yield {name: tensor.detach() for name, tensor in network.tensors.items()}
