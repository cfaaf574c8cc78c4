"""What a collection consists of, and some of it done, for the plan of a run."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pdiff_plugins.images.collection import Objective, check_seeds, finetune_selection, train_base

from pdiff import Snapshot, Task, Work
from pdiff.runtime.errors import check_positive
from pdiff.runtime.registry import call


def setting(function: Callable, section: Mapping[str, Any], name: str) -> Any:
    """Return what a config section, the arguments of `function`, says about one of them."""
    return section.get(name, inspect.signature(function).parameters[name].default)


def collection_work(
    task: Task,
    names: Sequence[str],
    seed: int,
    objective: Objective,
    train: dict,
    finetune: dict,
    seeds: int = 1,
    branches: int = 1,
) -> Iterator[Work]:
    """Yield the base training, its rests, and the fine-tuning.

    Args:
        task: whose splits are `data.Split`.
        names: the selection.
        seed: of the run.
        objective: what is trained.
        train, finetune, seeds, branches: as for `snapshots`.
    """
    check_positive("collect", seeds=seeds, branches=branches)
    check_seeds(task.model, names, seeds)
    yield from train_work(task, seed, objective, train, seeds)
    yield from finetune_work(task, names, seed, objective, finetune, seeds * branches)


def train_work(task: Task, seed: int, objective: Objective, train: dict, seeds: int) -> Iterator[Work]:
    """Yield the steps of the base training, which are epochs of one batch here, and the rests, one for each epoch."""
    place = {"seed": seed, "number": 0, "objective": objective, "state": None}
    call(train_base, train, "collect.train", task=task, **place)  # which knows whether the settings are sound
    batch_size = setting(train_base, train, "batch_size")
    check_positive("collect.train", batch_size=batch_size)
    data = task.splits["train"]
    epochs = seeds * train["epochs"]
    steps = epochs * math.ceil(len(data) / batch_size)
    one_batch = replace(task, splits={**task.splits, "train": data.first(batch_size)})
    rests = call(train_base, {**train, "epochs": steps}, "collect.train", task=one_batch, **place)
    last = Snapshot({})

    def step() -> None:
        nonlocal last
        last = next(rests)

    yield Work("train", steps, 0, step)
    yield Work("rest", epochs, 0, lambda: last)


def finetune_work(
    task: Task, names: Sequence[str], seed: int, objective: Objective, finetune: dict, branches: int
) -> Iterator[Work]:
    """Yield the fine-tuning, a unit of it the steps from one snapshot to the next."""
    tensors = task.model.state_dict()
    base = {name: tensors[name].clone() for name in names}
    given = {"names": names, "seed": seed, "base": base, "objective": objective, "state": None}
    snapshots = itertools.chain.from_iterable(
        call(finetune_selection, finetune, "collect.finetune", task=task, place=(0, branch), **given)
        for branch in range(branches)
    )
    steps, every = (setting(finetune_selection, finetune, name) for name in ("steps", "every"))
    check_positive("collect.finetune", steps=steps, every=every)
    count = branches * (steps // every)
    yield Work("finetune", count, count, lambda: next(snapshots))
