"""What the networks of a collection began with, and what a short training for each condition makes of it.

A fine-tuning is dear, so the evaluation keeps what came of it, and whoever comes later reads that.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pdiff.run.frozen import check_frozen
from pdiff.run.keeping import read_kept, write_kept
from pdiff.runtime import processes
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_tensors
from pdiff.task.selection import check_finetuned, check_tensors_by_name, fault, kind
from pdiff.weights.conditions import Conditions, shown
from pdiff.weights.ties import merged

if TYPE_CHECKING:
    from pdiff.run.run import Run

TYPES = ("base", "finetuned")  # of sources that begin where the collection began


def base_vector(run: "Run") -> Tensor:
    """Return the selection that the networks of the collection began with `(P,)`, as it was collected.

    Raises:
        PdiffError: the checkpoints are files, or the frozen network on disk lacks a selected tensor.
    """
    check_collected(run, "evaluate.conditional")
    path = run.directory.base
    return run.layout.flatten(read_tensors(path), str(path))


def check_collected(run: "Run", where: str) -> None:
    """Raise a `PdiffError` where nobody can say what the networks began with; `where` names the source."""
    if run.config.checkpoints.files:
        line = "needs what the networks were fine-tuned from, which files do not say"
        raise PdiffError(f"{where}: {line}. Leave it out, or let the plugin collect.")


def finetune(run: "Run", conditions: Conditions, steps: int) -> tuple[Tensor, float]:
    """Return what the plugin makes of the beginning for each condition `(W, P)`, and the seconds that it took.

    Raises:
        PdiffError: the hook yields something else, or changes what is not selected.
    """
    base_vector(run)  # says what is wrong with the beginning
    run.load_base()
    base = read_tensors(run.directory.base)
    start = {name: base[name] for name in run.selected}
    begun = time.perf_counter()
    vectors = torch.stack(vectors_of_hook(run, start, conditions, steps))
    seconds = time.perf_counter() - begun
    check_frozen(run, "finetune")
    run.load_base()  # whatever the training left in the network
    return vectors, seconds


def vectors_of_hook(run: "Run", start: dict[str, Tensor], conditions: Conditions, steps: int) -> list[Tensor]:
    """Return the vector `(P,)` of each selection that the hook yields, one for each condition."""
    given = {"task": run.built, "names": run.selected, "cfg": run.config, "start": start}
    yielded = run.hook.finetune(**given, conditions=conditions, steps=steps)
    if not isinstance(yielded, Iterable):
        line = f"finetune returned {kind(yielded)}, expected an iterator of selections. Yield one for each condition."
        raise fault(run.name, line)
    yielded, count = iter(yielded), len(conditions)
    found = [vector_of(run, conditions[number], params) for number, params in zip(range(count), yielded, strict=False)]
    if len(found) < count or next(yielded, None) is not None:
        number = len(found) if len(found) < count else f"more than {count}"
        line = f"finetune yielded {number} selections for {count} conditions. Yield one for each, in order."
        raise fault(run.name, line)
    return found


def vector_of(run: "Run", condition: dict[str, float], params: Any) -> Tensor:
    """Return the vector `(P,)` of a selection that the hook yielded for a condition."""
    said = f"finetune yielded for {shown(condition)}"
    check_tensors_by_name(run.name, said, params)
    params = merged(run.built.model, params, f"plugin {run.name}: {said}")
    check_finetuned(run.name, said, params, run.layout, run.selected)
    return run.layout.flatten(params, f"plugin {run.name}: {said}")


def formed(run: "Run", vectors: Tensor) -> Tensor:
    """Return vectors `(M, P)` in the form of the population: the canonical one, where the config asks for it."""
    return vectors if run.form is None else run.form.apply(vectors)


def beginning(run: "Run") -> Tensor:
    """Return what `base_vector` returns `(P,)`, in the form of the population."""
    return formed(run, base_vector(run)[None])[0]


def file_of(run: "Run", steps: int) -> Path:
    """Return the file of what so many steps made for the wanted conditions."""
    return run.directory.folder("evaluate") / f"finetuned.{steps}.vectors.safetensors"


def keep_finetuned(run: "Run", conditions: Conditions, steps: int) -> tuple[Tensor, float]:
    """Return the same as `finetuned`, once it is on disk; the first process fine-tunes for all of them."""
    processes.on_main(lambda: write_finetuned(run, conditions, steps))
    return finetuned(run, conditions, steps)


def write_finetuned(run: "Run", conditions: Conditions, steps: int) -> None:
    """Write what `finetune` makes, unless it is there."""
    path = file_of(run, steps)
    if not path.exists():
        vectors, seconds = finetune(run, conditions, steps)
        write_kept(path, {"conditions": conditions.values, "vectors": vectors}, seconds)


def finetuned(run: "Run", conditions: Conditions, steps: int) -> tuple[Tensor, float]:
    """Return what is kept for these conditions, else what `finetune` makes, in the form of the population.

    Returns:
        Vectors `(W, P)`, and the seconds that they took; NaN where the log is gone.
    """
    kept = read_kept(file_of(run, steps), lambda tensors: torch.equal(tensors["conditions"], conditions.values))
    vectors, seconds = kept or finetune(run, conditions, steps)
    return formed(run, vectors), seconds
