"""What a collection consists of, and some of it done, for the plan of a run.

The base training is begun without its schedule, whose first learning rates may be next to nothing: a network that has
learnt nothing finds nothing, and to evaluate that is cheap. Validations during the training are not counted.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from mmengine.config import Config
from pdiff_plugins.openmmlab.collection import base_training, finetune_selection, finetune_settings, train_base
from pdiff_plugins.openmmlab.libraries import Library

from pdiff import Snapshot, Task, Work
from pdiff.runtime.errors import check_positive
from pdiff.runtime.registry import call


def collection_work(
    task: Task,
    names: Sequence[str],
    seed: int,
    device: torch.device,
    library: Library,
    finetune: dict,
    train: dict | None = None,
    branches: int = 1,
    draws: str = "seeded",
) -> Iterator[Work]:
    """Yield the base training and the fine-tuning.

    Args:
        task, names, seed, device, library, finetune, train, branches, draws: as for `collection.snapshots`.
    """
    check_positive("collect", branches=branches)
    train = train or {}
    config = Config({**task.model.cfg.to_dict(), "param_scheduler": []}, filename=task.model.cfg.filename)
    settings = call(finetune_settings, finetune, "collect.finetune", model=task.model, names=names, config=config)
    initial = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        given = {"task": task, "seed": seed, "config": config, "library": library, "draws": draws}
        given |= {"folder": Path(folder), "device": device, "state": None}
        with closing(call(train_base, train, "collect.train", ticks=True, **given)) as ticks:
            steps = base_training(task, seed, config, draws)[1] if train.get("enabled", True) else 0
            yield Work("train", steps, 0, lambda: next(ticks))
        if not all(torch.isfinite(tensor).all() for tensor in task.model.state_dict().values()):
            task.model.load_state_dict(initial)  # some trainings diverge without their schedule
        with closing(finetunings(names, branches, given, settings)) as snapshots:
            count = branches * (settings["steps"] // settings["every"])
            yield Work("finetune", count, count, lambda: next(snapshots))


def finetunings(names: Sequence[str], branches: int, given: dict, settings: dict) -> Iterator[Snapshot]:
    """Yield the snapshots of one branch after another."""
    tensors = given["task"].model.state_dict()
    base = {name: tensors[name].clone() for name in names}
    for branch in range(branches):
        yield from finetune_selection(names=names, branch=branch, base=base, **given, **settings)
