"""Takes the place of a plugin's `collect` and `evaluate` in a rehearsal, so that all around them is done in full."""

import time
from collections.abc import Iterator, Sequence

import pluggy
import torch
from torch import Tensor

from pdiff.plan.growth import Line, line
from pdiff.task.hookspecs import hookimpl
from pdiff.task.task import Candidates, Evaluation, Snapshot, Task
from pdiff.weights.layout import Layout

MOST = 64  # candidates that are evaluated to tell what one costs


class StandIn:
    """A plugin over the plugin, whose snapshots and metrics are made up.

    The first time that a split is evaluated, the real hook evaluates a few candidates on it. Every evaluation then
    yields what it found for those, over and over.

    Args:
        plugin: the manager that holds the real plugin.
        layout: of the vectors.
        vectors: `(N, P)`, what the collection yields.

    Attributes:
        counts: number of candidates of each evaluation, by split.
        owed: seconds that the real hook would have taken, less those that were spent in its place.
    """

    def __init__(self, plugin: pluggy.PluginManager, layout: Layout, vectors: Tensor):
        self.plugin, self.layout, self.vectors = plugin, layout, vectors
        self.rng = torch.Generator().manual_seed(0)
        self.lines: dict[str, Line] = {}
        self.found: dict[str, list[Evaluation]] = {}
        self.counts: dict[str, list[int]] = {}
        self.owed = 0.0
        plugin.register(self, "rehearsal")

    @hookimpl
    def collect(self) -> Iterator[Snapshot]:
        """Yield the vectors."""
        for step, vector in enumerate(self.vectors):
            yield Snapshot(self.layout.unflatten(vector), {"step": step})

    @hookimpl
    def parts(self) -> Sequence[int]:
        """Leave the collection that is made up in one piece."""
        return [0]

    @hookimpl
    def evaluate(self, task: Task, candidates: Candidates, split: str) -> Sequence[Evaluation]:
        """Return made-up evaluations of the shape of real ones."""
        start = time.monotonic()
        if split not in self.lines:
            self.lines[split] = self.measure(task, candidates, split)
        self.counts.setdefault(split, []).append(len(candidates))
        self.owed += self.lines[split].at(len(candidates)) - (time.monotonic() - start)
        found = self.found[split]
        return [self.made_up(found[index % len(found)]) for index in range(len(candidates))]

    def measure(self, task: Task, candidates: Candidates, split: str) -> Line:
        """Time the real hook."""
        evaluate = self.plugin.subset_hook_caller("evaluate", [self])

        def evaluate_few(count: int) -> None:
            rows = candidates.vectors[torch.arange(count) % len(candidates)]
            few = Candidates(rows, candidates.layout, candidates.load_params)
            self.found[split] = list(evaluate(task=task, candidates=few, split=split))

        return line(evaluate_few, 2, MOST)

    def made_up(self, real: Evaluation) -> Evaluation:
        """Return an evaluation whose metric is well away from chance: that of an untrained network says nothing."""
        metric = 0.5 + 0.01 * torch.randn((), generator=self.rng).item()
        return Evaluation(metric, real.signature, real.scores, real.details)
