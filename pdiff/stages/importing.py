"""A population from checkpoints that the user has, instead of a collection."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pdiff.files.checkpoint_conditions import read_conditions
from pdiff.files.finding import distinct, find_checkpoints
from pdiff.files.reader import Reader
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.progress import progress
from pdiff.runtime.storage import write_tensors
from pdiff.weights.population import Population

if TYPE_CHECKING:
    from pdiff.run.run import Run


def import_checkpoints(run: "Run") -> None:
    """Fill the population from files, all of one network with one frozen part."""
    settings, own = run.config.checkpoints, run.built.model.state_dict()
    reader = Reader(run.built.model, "checkpoints", settings.key, settings.prefix, settings.rename, settings.cast)
    files = distinct(find_checkpoints(settings.files), reader)
    given = settings.conditions
    conditions = [{}] * len(files) if given is None else read_conditions(given, files)
    frozen = [name for name in own if name not in run.selected]
    base_file = Path(settings.base) if settings.base else files[0]
    base = reader.read(base_file, frozen, "Or name a file with the frozen part as checkpoints.base.")
    wanted = run.layout.names if settings.base else list(own)
    population = Population.create(run.directory.folder("collect"), run.layout)
    with progress("read checkpoints", len(files)) as advance:
        for file, condition in zip(files, conditions, strict=True):
            tensors = reader.read(file, wanted, "Or give the file of the frozen part as checkpoints.base.")
            vector = population.layout.flatten(tensors, str(file))
            if settings.base is None:
                check_same_base(tensors, base, file, base_file)
            population.append(vector, {**run.origin, "file": file.name, **condition})
            advance()
    write_tensors(run.directory.base, {name: base.get(name, tensor) for name, tensor in own.items()})


def check_same_base(tensors: dict[str, Tensor], base: dict[str, Tensor], file: Path, base_file: Path) -> None:
    """Raise a `PdiffError` when two files differ in what is not selected."""
    for name, tensor in base.items():
        if not torch.equal(tensors[name], tensor):
            raise PdiffError(
                f"{file}: differs from {base_file} in {name!r}, which is not selected. "
                "Select it, or say whose frozen part to take with checkpoints.base."
            )
