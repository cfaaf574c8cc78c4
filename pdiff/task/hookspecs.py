"""The hooks: all that a plugin tells the core. Two have defaults, and the last ones may be left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pdiff.task.markers import hookspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from pdiff.task.task import Candidates, Evaluation, Picture, Snapshot, Task
    from pdiff.weights.conditions import Conditions
    from pdiff.weights.units import Symmetries


@hookspec(firstresult=True)
def build(cfg, folder: Path) -> Task:
    """Build the network, its data splits and its metric from the resolved config.

    `folder` keeps what belongs to the run and must not be made again: it lives and is checked with the population.
    """


@hookspec(firstresult=True)
def select_params(task: Task, cfg) -> Sequence[str]:
    """Return the names of the parameters and buffers that are regenerated."""


@hookspec(firstresult=True)
def collect(
    task: Task, names: Sequence[str], cfg, state: Mapping[str, Tensor] | None, folder: Path, branch: int | None
) -> Iterator[Snapshot]:
    """Train or fine-tune, and yield one snapshot after another.

    `state` is that of the last snapshot on disk when a run is resumed, else None. A plugin that does not take it
    is run from its beginning, and the snapshots that are there already are compared with what it yields.
    `folder` is for logs; pdiff reads nothing in it. `branch` is one of those that the hook `branches` names, else None.
    """


@hookspec(firstresult=True)
def branches(cfg) -> Sequence[int]:
    """Name for each branch of the collection the trained network that it begins with; several processes share them.

    `collect` is then called for one branch after another. It trains the network where `state` is None; a branch that
    begins with the network of an earlier one gets a state of that one's.
    """


@hookspec
def load_params(model: nn.Module, params: Mapping[str, Tensor]) -> None:
    """Put one selection, whose tensors are on the device of the run, into the network."""


@hookspec(firstresult=True)
def evaluate(
    task: Task, candidates: Candidates, split: str, ensembles: Sequence[Candidates]
) -> Iterator[Evaluation]:
    """Yield the metric and the signature of each candidate, in order, and then those of each ensemble.

    It is called once for the candidates of many sources, so that data are loaded, and what is frozen is computed, once
    for all of them. `ensembles` are groups of candidates whose predictions count averaged; a plugin that takes them
    measures them in the same pass (see `Candidates.joined`), and then may get no candidates but ensembles alone. One
    that does not take them may have the hook `ensemble`. Tensors of evaluations may lie on the
    device: they are brought together.
    """


@hookspec(firstresult=True)
def ensemble(task: Task, candidates: Candidates, split: str) -> Evaluation:
    """Return what all candidates reach together, their predictions averaged; for an `evaluate` without `ensembles`."""


@hookspec(firstresult=True)
def draw(task: Task, picks: Mapping[str, Candidates], folder: Path) -> Sequence[Picture]:
    """Write pictures for the report into `folder`, and say what they show.

    `picks` holds a few candidates of each source, from the best on the split `select` to the worst.
    """


@hookspec(firstresult=True)
def inputs(task: Task, split: str) -> Iterator[tuple]:
    """Yield the batches of a split as the network takes them: `task.model(*batch)` is what an evaluation calls.

    Nothing is drawn, so that a batch is the same at every call. They serve to follow the units of the network through
    a pass (`fit.canonical`), and to measure running statistics anew (`evaluate.recalibrate`, on `train`).
    """


@hookspec(firstresult=True)
def symmetries(task: Task, names: Sequence[str]) -> Symmetries:
    """Return what may change in a selection without a change of the function, where following a pass cannot find it."""


@hookspec(firstresult=True)
def finetune(
    task: Task, names: Sequence[str], cfg, start: Mapping[str, Tensor], conditions: Conditions, steps: int
) -> Iterator[Mapping[str, Tensor]]:
    """Yield for each condition, in order, the selection that `steps` steps of its training make of `start`.

    What `collect` does for a condition, with fewer steps: so a generated network is held against a training that costs
    as much. `start` is the selection that the networks of the collection began with.
    """


@hookspec(firstresult=True)
def loss(task: Task, cfg, params: Mapping[str, Tensor], condition: Mapping[str, float] | None, step: int) -> Tensor:
    """Return the loss `()` that `collect` minimises, of one selection, on the training batch of step `step`.

    `params` go into a pass by `torch.func.functional_call`, so that gradients reach them; nothing else may change. The
    batch, and whatever is drawn for it, follow from `cfg` and `step` alone; the steps may be more than those of
    `collect`. `condition` is what the selection is for; None where there are no conditions.
    """


@hookspec(firstresult=True)
def losses(task: Task, cfg, params: Mapping[str, Tensor], conditions: Conditions | None, step: int) -> Tensor:
    """Return the losses `(n,)` of n selections at once, each as `loss` gives it; for where that is faster.

    `params` are stacked `(n, ...)`. A plugin may have this hook, or `loss`, or both.
    """
