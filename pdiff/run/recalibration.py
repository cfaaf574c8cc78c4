"""Running statistics of candidates, measured anew on training data (`evaluate.recalibrate`).

What normalises by running statistics is only right where these are those of the network's own activations: an average
of networks has other ones than the average of theirs (arXiv 2211.08403, section 3). Trained networks, and ensembles of
them, keep their own; the members of `ensemble_of` those that they have in their source.
"""

import copy
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.progress import logger
from pdiff.weights.vectors import Made, Vectors

if TYPE_CHECKING:
    from pdiff.run.run import Run

KEEP_THEIR_OWN = ("trained", "oracle", "ensemble", "ensemble_of", "base", "finetuned")
STATISTICS = ("running_mean", "running_var")


def check_recalibration(run: "Run") -> None:
    """Raise a `PdiffError` where statistics are to be measured anew and there are none, or no data to do so."""
    where = f"evaluate.recalibrate: got {run.config.evaluate.recalibrate}"
    if not run.config.evaluate.recalibrate:
        return
    if not run.has_hook("inputs"):
        line = f"but plugin {run.name} has no hook `inputs`, which yields batches of the training data"
        raise PdiffError(f"{where}, {line}. Implement it, or set 0.")
    if not next(normalising(run.built.model, run.layout.names), None):
        line = "but no running statistics are selected that torch measures (BatchNorm, SyncBatchNorm, InstanceNorm)"
        raise PdiffError(f"{where}, {line}. Select them (select: ...+buffers), or set 0.")


def normalising(model: nn.Module, names: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers, by name, of which running statistics are among the names."""
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and any(f"{name}.{kind}" in names for kind in STATISTICS):
            yield name, module


def recalibrated(run: "Run", kind: str, vectors: Vectors) -> Vectors:
    """Return the vectors of a source with their running statistics measured anew; they are when they are asked for.

    Args:
        run: the run; without `evaluate.recalibrate` the vectors are returned as they are.
        kind: type of the source; some keep their own statistics.
        vectors: `(M, P)`, or `(M, K, P)`, each member of a group for itself.
    """
    if not run.config.evaluate.recalibrate or kind in KEEP_THEIR_OWN:
        return vectors
    check_recalibration(run)
    measured: dict[int, Tensor] = {}
    recalibrate = Recalibration(run)

    def finish(found: Tensor, numbers: Tensor) -> Tensor:
        for row, number in zip(found, numbers.tolist(), strict=True):
            if number not in measured:
                measured[number] = torch.stack([recalibrate(vector) for vector in row.view(-1, row.shape[-1])])
            row.view(-1, row.shape[-1])[:, recalibrate.places] = measured[number]
        return found

    return Made.of(vectors, finish)


class Recalibration:
    """Measures the running statistics of one vector at a time, on a copy of the task's network.

    The mean over the first batches of the split `train`, of each batch's statistics, as the layers compute them.

    Args:
        run: the run.

    Attributes:
        places: of the statistics in a vector `(S,)`.
    """

    def __init__(self, run: "Run"):
        self.layout, self.load_params = run.population.layout, run.hook.load_params
        self.model = copy.deepcopy(run.task.model).eval()
        layers = dict(normalising(self.model, self.layout.names))
        self.layers = list(layers.values())
        names = {f"{name}.{kind}" for name in layers for kind in STATISTICS}
        self.entries = [entry for entry in self.layout if entry.name in names]
        self.places = torch.cat([torch.arange(entry.slice.start, entry.slice.stop) for entry in self.entries])
        self.batches = batches(run)

    @torch.no_grad()
    def __call__(self, vector: Tensor) -> Tensor:
        """Return the statistics `(S,)` of a vector `(P,)`; its own where those measured are not finite."""
        self.load_params(model=self.model, params=self.layout.unflatten(vector))
        for layer in self.layers:
            layer.reset_running_stats()
            layer.momentum = None  # the mean of all batches
            layer.train()
        for number, batch in enumerate(self.batches):
            self.take(batch, number)
        for layer in self.layers:
            layer.eval()
        found = self.layout.flatten(self.model.state_dict())[self.places]
        if found.isfinite().all():
            return found
        logger.warning("evaluate.recalibrate: a candidate's activations are not finite; it keeps its own statistics")
        return vector[self.places]

    def take(self, batch: tuple, number: int) -> None:
        """Let the layers see a batch; raise a `PdiffError` for one that is too small to have statistics."""
        try:
            self.model(*batch)
        except ValueError as error:  # torch's, of a single value per channel
            line = f"batch {number + 1} of the hook `inputs` has no statistics ({error})"
            todo = f"Set {number}" if number else "Set 0"
            raise PdiffError(f"evaluate.recalibrate: {line}. {todo}, or take larger batches.") from error


def batches(run: "Run") -> list[tuple]:
    """Return the first batches of the split `train`, as many as `evaluate.recalibrate` says."""
    count = run.config.evaluate.recalibrate
    found = list(islice(run.hook.inputs(task=run.task, split="train"), count))
    if len(found) < count:
        line = f"got {count}, expected at most {len(found)}, the batches of training data that the hook `inputs` yields"
        raise PdiffError(f"evaluate.recalibrate: {line}. Lower it.")
    return found
