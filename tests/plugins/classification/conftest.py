"""A tiny conditional task: twelve sets of digits, and its networks."""

import copy

import pytest
import torch

from pdiff.run.config import resolve
from pdiff.task.plugins import load_plugin
from pdiff.task.task import Candidates
from pdiff.weights.conditions import Conditions
from pdiff.weights.layout import Layout

HOOK = load_plugin("classification").hook
SUBSETS = {
    "plugin": "classification",
    "device": "cpu",
    "select": "all",
    "task": {
        "network": {"type": "mlp", "hidden": [8]},
        "data": {"type": "digits", "size": 8, "train": 96, "select": 64},
        "eval_batch": 900,
        "conditions": {"type": "subsets", "limit": 12},
    },
    "collect": {"together": 5, "networks": {"steps": 20, "batch_size": 32}},
}
ZOO = {
    "plugin": "classification",
    "device": "cpu",
    "select": "all",
    "task": {
        "network": {"type": "mlp", "hidden": [8], "activation": "relu"},
        "data": {"type": "digits", "size": 8, "train": 96, "select": 64},
        "eval_batch": 900,
    },
    "collect": {
        "seeds": 6,
        "together": 4,
        "networks": {"steps": 30, "batch_size": 32, "snapshots": 3, "every": 10},
    },
}


class Conditional:
    """A task, mostly with conditions, and what is collected for it.

    Args:
        values: of the config.
    """

    def __init__(self, values: dict):
        self.cfg = resolve(values)
        self.task = HOOK.build(cfg=self.cfg, folder=None)
        self.names = HOOK.select_params(task=self.task, cfg=self.cfg)
        self.layout = Layout.of(self.task.model.state_dict(), self.names)

    def collect(self, state=None, branch=None) -> list:
        """Return the snapshots from a state on, those that only rest included."""
        given = {"task": self.task, "names": self.names, "cfg": self.cfg, "folder": None}
        return list(HOOK.collect(**given, state=state, branch=branch))

    def candidates(self, snapshots=None) -> Candidates:
        """Return networks as candidates for their own conditions; default: all that are collected."""
        kept = [snapshot for snapshot in snapshots or self.collect() if snapshot.params]
        vectors = torch.stack([self.layout.flatten(snapshot.params) for snapshot in kept])
        stated = [snapshot.condition for snapshot in kept]
        conditions = None if None in stated else Conditions.of(stated)
        return Candidates(vectors, self.layout, HOOK.load_params, conditions)

    def evaluate(self, candidates, split: str = "test", ensembles=()) -> list:
        """Return what `evaluate` yields."""
        return list(HOOK.evaluate(task=self.task, candidates=candidates, split=split, ensembles=ensembles))

    def ensemble(self, candidates, split: str = "test"):
        """Return what all candidates reach together."""
        (result,) = self.evaluate(candidates.take([]), split, [candidates])
        return result


@pytest.fixture
def subsets() -> dict:
    """The values of the tiny config, to be changed at will."""
    return copy.deepcopy(SUBSETS)


@pytest.fixture
def zoo() -> dict:
    """The values of a tiny config of independent networks, to be changed at will."""
    return copy.deepcopy(ZOO)


@pytest.fixture
def conditional():
    """The class `Conditional`."""
    return Conditional
