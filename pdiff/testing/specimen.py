"""A plugin at work in a folder: what the checks look at, each thing made when a check first asks for it."""

import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor

from pdiff.run.directory import RunDirectory
from pdiff.run.measuring import evaluate_split
from pdiff.run.run import Run
from pdiff.runtime.seeding import generator
from pdiff.stages.importing import import_checkpoints
from pdiff.stages.snapshots import recorded
from pdiff.task.task import Evaluation
from pdiff.weights.conditions import Conditions
from pdiff.weights.population import Population

SNAPSHOTS = 4
STOP = 2  # so many snapshots are out when the collection is stopped, to be resumed from there
DESTROYED = 6
STRENGTH = 3.0  # of the noise that destroys a tensor, over the root mean square of its values


class Specimen:
    """A plugin with a config, and runs of it that stop after a few snapshots.

    Args:
        config: the resolved config.
        folder: where the runs write.
    """

    def __init__(self, config: Config, folder: Path):
        self.config = config
        self.folder = Path(folder)

    def run(self, name: str) -> Run:
        """Return a run that has done nothing yet, in a folder of its own or in that of an earlier one."""
        return Run(self.config, RunDirectory(self.folder / name))

    @cached_property
    def built(self) -> Run:
        """A run whose task is as `build` returned it."""
        return self.run("built")

    @cached_property
    def collected(self) -> Run:
        """A run whose collection was stopped after a few snapshots; a copy of it stopped even earlier."""
        run = self.run("collected")
        if self.config.checkpoints.files:
            import_checkpoints(run)
            return run
        snapshots = recorded(run)
        advance(snapshots, STOP)
        if run.directory.path.exists():
            shutil.copytree(run.directory.path, self.folder / "stopped")
        advance(snapshots, SNAPSHOTS)
        snapshots.close()
        return run

    @cached_property
    def vectors(self) -> Tensor:
        """The first collected vectors `(N, P)`."""
        return self.collected.collected.tensor()[:SNAPSHOTS]

    @cached_property
    def conditions(self) -> Conditions | None:
        """What the first collected vectors are for `(N, C)`; None where the plugin has no conditions."""
        conditions = self.collected.collected.conditions
        return None if conditions is None else conditions.take(slice(SNAPSHOTS))

    @cached_property
    def destroyed(self) -> Tensor:
        """Vectors `(D, P)` with noise in place of what was learnt."""
        rng = generator(0, "destroyed")
        vectors = torch.randn(DESTROYED, self.vectors.shape[1], generator=rng)
        for entry in self.collected.collected.layout:
            size = self.vectors[-1, entry.slice].square().mean().sqrt()
            vectors[:, entry.slice] *= STRENGTH * (size if size > 0 else 1.0)
        return vectors

    @cached_property
    def trained(self) -> Run:
        """A run that did not collect but has the frozen network and the population, as another process would."""
        return self.run(self.collected.directory.path.name)

    @cached_property
    def results(self) -> list[Evaluation]:
        """What the collected vectors reach on `select`."""
        return self.evaluate(self.vectors)

    @cached_property
    def results_of_destroyed(self) -> list[Evaluation]:
        """What the destroyed vectors reach on `select`."""
        return self.evaluate(self.destroyed)

    def evaluate(self, vectors: Tensor, split: str = "select", rows: Sequence[int] | None = None) -> list[Evaluation]:
        """Return what vectors `(M, P)`, or one ensemble of them `(1, M, P)`, reach on a split.

        Args:
            vectors: the candidates.
            split: where they are measured.
            rows: which of the collected vectors have the conditions that they are for; default: the first, the
                second, ..., and from the last on the first again.
        """
        conditions = self.conditions
        if conditions is not None:
            conditions = conditions.take(rows or [row % len(conditions) for row in range(len(vectors))])
        return evaluate_split(self.trained, "the check", self.trained.candidates(vectors, conditions), split)


def advance(snapshots: Iterator[Population], count: int) -> None:
    """Let a collection go on until it has `count` vectors, or none is left."""
    for population in snapshots:
        if len(population) >= count:
            return
