"""A network for every condition: many are trained at once, each as it would be alone.

The networks are divided into blocks, which several processes share: a block is the same whoever trains it and when, and
an interrupted collection goes on behind the last block that was trained. Networks that keep statistics of their batches
are trained one after another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pdiff_plugins.classification.stacking import has_batch_statistics
from pdiff_plugins.classification.together import train_together
from pdiff_plugins.images.classify import classify
from pdiff_plugins.images.collection import selected, train_base
from torch import Tensor, nn

from pdiff import (
    Conditions,
    PdiffError,
    Snapshot,
    Task,
    call,
    check_positive,
    known,
    pack,
    state_names,
    unpack,
)

EACH = "each"
STARTS = ("init", "base")


@dataclass(frozen=True)
class Block:
    """Networks that are trained together.

    Attributes:
        number: of the initialisation.
        conditions: which of the conditions they are for.
        first: running number of the first network.
        each: whether every network has an initialisation of its own.
    """

    number: int
    conditions: range
    first: int
    each: bool


def blocks_of(count: int, inits: int | str = 1, together: int = 256) -> list[Block]:
    """Return the blocks of all networks, those of the first initialisation first.

    Args:
        count: how many conditions there are.
        inits: how many initialisations, or `each`.
        together: networks of a block, at most.
    """
    check_positive("collect", together=together)
    if inits != EACH:
        check_positive("collect", inits=inits)
    numbers = range(1 if inits == EACH else inits)
    return [
        Block(number, range(count)[start : start + together], number * count + start, inits == EACH)
        for number in numbers
        for start in range(0, count, together)
    ]


def roots_of_many(count: int, inits: int | str = 1, start: str = "init", together: int = 256) -> list[int]:
    """Return for each block the number of the trained network it begins with; without one, none waits for another."""
    blocks = blocks_of(count, inits, together)
    return [block.number for block in blocks] if start == "base" else list(range(len(blocks)))


def snapshots_of_many(
    task: Task,
    names: Sequence[str],
    seed: int,
    network: Callable[[int], nn.Module],
    state: Mapping[str, Tensor] | None,
    networks: dict,
    inits: int | str = 1,
    start: str = "init",
    train: dict | None = None,
    together: int = 256,
    branch: int | None = None,
) -> Iterator[Snapshot]:
    """Yield a network for each condition, from each initialisation: those of all blocks, or of one of them.

    Args:
        task: whose splits are `ConditionalSplit`.
        names: the selection.
        seed: of the run.
        network: from a number to a network with the initial weights of that number.
        state: where an interrupted collection goes on.
        networks: settings of the training of each network.
        inits: initialisations, from each of which a network is trained for every condition; `each` gives every network
            its own.
        start: `init`, or `base`: a network that is trained on the data as they are, before any condition.
        train: settings of that base training.
        together: networks that are trained at once.
        branch: which block of networks; None for all.
    """
    data = task.splits["train"]
    blocks = blocks_of(len(data.table), inits, together)
    check_start(task, names, inits, start, train)
    state = unpack(state) if state else None
    reached = (state["seed"], state["branch"]) if state else (0, -1)
    base, trained = state.get("base") if state else None, reached[0]
    for place in range(len(blocks)) if branch is None else [branch]:
        block = blocks[place]
        if branch is None and (block.number, place) < reached:
            continue
        if base is None or block.number != trained:
            task.model.load_state_dict(network(block.number).state_dict())
            if start == "base":
                own = state if reached == (block.number, -1) else None
                yield from train_first(task, seed, block.number, train, own)
            base, trained = selected(task.model, names), block.number
        own = [selected(network(block.first + i), names) for i in range(len(block.conditions))] if block.each else []
        kept = {"seed": block.number, "branch": place, "base": base}
        begins = own or [base] * len(block.conditions)
        done = state if (block.number, place) == reached else None
        yield from train_block(task, seed, block, begins, networks, kept, done)


def check_start(
    task: Task, names: Sequence[str], inits: int | str, start: str, train: Mapping[str, Any] | None
) -> None:
    """Raise a `PdiffError` where the networks cannot begin as the settings say."""
    if start not in STARTS:
        raise PdiffError(f"collect.start: got {start!r}. {known(start, STARTS)}")
    if (start == "base") != (train is not None):
        words = "needs" if start == "base" else "has no use for"
        raise PdiffError(f"collect.train: `start: {start}` {words} it. Set `start: base`, or leave both out.")
    if start == "base" and inits == EACH:
        raise PdiffError("collect.start: got 'base' with `inits: each`, expected a number of inits. Change one.")
    if start == "base" and task.splits["train"].kind.outputs is not None:
        raise PdiffError(
            "collect.start: got 'base', but the conditions change what the networks are asked, so that there is "
            "nothing to train one on before. Set `start: init`."
        )
    frozen = [name for name in state_names(task.model) if name not in names]
    if inits != 1 and frozen:
        raise PdiffError(
            f"collect.inits: got {inits!r}, expected 1, since each would have another {frozen[0]!r}, which is not "
            "selected. Select all, with +buffers where the network has any."
        )


def train_first(
    task: Task, seed: int, number: int, train: Mapping[str, Any], state: Mapping[str, Any] | None
) -> Iterator[Snapshot]:
    """Train the network that others begin with, on the data as they are; rest after every epoch."""
    plain = replace(task, splits={"train": task.splits["train"].data})
    given = {"task": plain, "seed": seed, "number": number, "objective": classify}
    return call(train_base, train, "collect.train", state=state, **given)


def train_block(
    task: Task,
    seed: int,
    block: Block,
    begins: Sequence[Mapping[str, Tensor]],
    networks: Mapping[str, Any],
    kept: Mapping[str, Any],
    state: Mapping[str, Any] | None,
) -> Iterator[Snapshot]:
    """Yield the networks of a block; with the first of those that were trained together a state that holds them all.

    Args:
        task: whose splits are `ConditionalSplit`.
        seed: of the run.
        block: the networks.
        begins: the selection that each begins with.
        networks: settings of their training.
        kept: what every state holds.
        state: the last one of this block.
    """
    data, count = task.splits["train"], len(block.conditions)
    group = 1 if has_batch_statistics(task.model) else count
    done, trained = (state["done"], state["trained"]) if state else (0, {})
    for place in range(done, count):
        inside = place % group
        if inside == 0:
            members = slice(place, place + group)
            table = data.table.take(block.conditions[members])
            given = {"model": task.model, "data": data, "conditions": table.values, "begins": begins[members]}
            given |= {"seed": seed, "first": block.first + place}
            trained = call(train_together, networks, "collect.networks", **given)
        params = {name: tensor[inside] for name, tensor in trained["stack"].items()}
        figures = {name: values[inside].item() for name, values in trained["figures"].items()}
        network = block.first + place if block.each else block.number
        origin = {"network": network, "branch": block.first + place, **figures}
        origin |= data.kind.provenance(block.conditions[place])
        fresh = pack({**kept, "done": place + 1, "trained": trained}) if inside == 0 else None
        yield Snapshot(params, origin, fresh, data.table[block.conditions[place]])


def finetuned_networks(
    task: Task,
    seed: int,
    start: Mapping[str, Tensor],
    conditions: Conditions,
    steps: int,
    networks: dict,
    inits: int | str = 1,
    together: int = 256,
) -> Iterator[dict[str, Tensor]]:
    """Yield for each condition what a collection makes of `start`, in fewer steps: of several inits that of the first.

    Args:
        task: whose splits are `ConditionalSplit`.
        seed: of the run.
        start: the selection that each network begins with.
        conditions: of each network.
        steps: optimiser steps.
        networks: settings of the training, but for its steps.
        inits: initialisations of the collection.
        together: networks that are trained at once.
    """
    if inits == EACH:
        line = "got 'each', so that the networks have no common beginning to be fine-tuned from"
        raise PdiffError(f"collect.inits: {line}. Set the source `finetuned` to null, or give a number of inits.")
    data = task.splits["train"]
    begin = {name: tensor.to(data.data.device) for name, tensor in start.items()}
    group = 1 if has_batch_statistics(task.model) else together
    for first in range(0, len(conditions), group):
        values = data.values_of(conditions)[first : first + group]
        given = {"model": task.model, "data": data, "conditions": values, "begins": [begin] * len(values)}
        settings = {**networks, "steps": steps}
        stack = call(train_together, settings, "collect.networks", **given, seed=seed, first=first)["stack"]
        for place in range(len(values)):
            yield {name: tensor[place] for name, tensor in stack.items()}
