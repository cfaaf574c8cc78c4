import pytest
import torch
from torch import nn

from pdiff import Candidates, Evaluation, Layout, Metric, Task, hookimpl
from pdiff.plan.growth import Line
from pdiff.plan.stand_in import MOST, StandIn
from pdiff.task.plugins import register


class Counted:
    """A plugin that counts the candidates of each of its evaluations."""

    def __init__(self):
        self.counts = []

    @hookimpl
    def build(self):
        """Do nothing."""

    @hookimpl
    def evaluate(self, candidates):
        """Yield the sum of each candidate as its metric and its details."""
        self.counts.append(len(candidates))
        for vector in candidates.vectors:
            wrong = torch.tensor([True, False])
            yield Evaluation(vector.sum().item(), wrong, ~wrong, {"sum": vector.sum().item()})


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def task() -> Task:
    return Task(nn.Linear(2, 1), {}, Metric("accuracy"))


@pytest.fixture
def stand_in(counted, task) -> StandIn:
    layout = Layout.of(task.model.state_dict())
    return StandIn(register("counted", counted), layout, torch.arange(12.0).reshape(4, 3))


def evaluate(stand_in, task, count: int, split: str = "test") -> list[Evaluation]:
    """Return what the hook gives for so many candidates."""
    hook = stand_in.plugin.hook
    candidates = Candidates(torch.ones(count, 3), stand_in.layout, hook.load_params)
    return list(hook.evaluate(task=task, candidates=candidates, split=split))


def test_collection_yields_the_vectors(stand_in, task):
    snapshots = list(stand_in.plugin.hook.collect(task=task, names=(), cfg=None, state=None, folder=None, part=None))
    rows = [stand_in.layout.flatten(snapshot.params) for snapshot in snapshots]
    assert torch.equal(torch.stack(rows), stand_in.vectors)


def test_each_split_is_measured_once_with_few_candidates(stand_in, counted, task):
    for split in ("select", "test", "test", "select"):
        assert len(evaluate(stand_in, task, 500, split)) == 500
    measured = list(counted.counts)
    assert sorted(stand_in.lines) == ["select", "test"]
    assert max(measured) <= MOST
    evaluate(stand_in, task, 3)
    assert counted.counts == measured
    assert stand_in.counts == {"select": [500, 500], "test": [500, 500, 3]}


def test_fewer_candidates_than_are_measured_are_repeated(stand_in, counted, task):
    assert len(evaluate(stand_in, task, 1)) == 1
    assert min(counted.counts) == 2


def test_seconds_of_the_real_hook_are_owed(stand_in, task):
    evaluate(stand_in, task, 2)
    stand_in.lines["test"] = Line(2, 1000.0, 100.0)
    stand_in.owed = 0.0
    evaluate(stand_in, task, 12)
    assert stand_in.owed == pytest.approx(2000.0, abs=10)
    evaluate(stand_in, task, 2)
    assert stand_in.owed == pytest.approx(3000.0, abs=10)


def test_evaluations_have_real_shapes_and_metrics_away_from_chance(stand_in, task):
    found = evaluate(stand_in, task, 100)
    assert all(torch.equal(one.signature, torch.tensor([True, False])) for one in found)
    assert all(one.details == {"sum": 3.0} for one in found)
    metrics = [one.metric for one in found]
    assert len(set(metrics)) == 100
    assert 0.4 < min(metrics) < max(metrics) < 0.6
