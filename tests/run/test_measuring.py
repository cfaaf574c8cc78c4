"""Candidates of many sources in one call of the plugin."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from pdiff import Candidates, Evaluation, Metric
from pdiff.run import measuring
from pdiff.runtime.errors import PdiffError
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Made, Rows

LAYOUT = Layout.of({"weight": torch.empty(2)})
VECTORS = torch.arange(20.0).view(10, 2)


class Plugin:
    """Measures a candidate by its first number, an ensemble by the sum of those of its members; counts its calls."""

    def __init__(self, ensembles: bool):
        self.calls: list[tuple[int, int]] = []
        self.takes_ensembles = ensembles

    def evaluate(self, task, candidates, split, ensembles):
        self.calls.append((len(candidates), len(ensembles) if self.takes_ensembles else 0))
        assert self.takes_ensembles or len(candidates)
        for tensors in candidates:
            yield self.result(tensors["weight"][0])
        for members in ensembles if self.takes_ensembles else ():
            yield self.ensemble(task, members, split)

    def ensemble(self, task, candidates, split):
        return self.result(sum(tensors["weight"][0] for tensors in candidates))

    def result(self, value):
        return Evaluation(value.item(), torch.tensor([True]))


def run_of(ensembles: bool) -> SimpleNamespace:
    """Return as much of a run as measuring looks at."""
    plugin = Plugin(ensembles)
    task = SimpleNamespace(metric=Metric("value"))
    device = torch.device("cpu")
    return SimpleNamespace(name="made", hook=plugin, task=task, device=device, ensembles_in_evaluate=ensembles)


def candidates_of(vectors) -> Candidates:
    return Candidates(vectors, LAYOUT, lambda model, params: None)


def asked() -> dict[str, Candidates]:
    """Return candidates of every kind: stored, some of them, made, and ensembles of three."""
    made = Made([7, 2], lambda rows, rng: 100 + VECTORS[rows], torch.Generator())
    groups = Made([2, 3, 2], lambda rows, rng: VECTORS[:6].view(2, 3, 2)[rows], torch.Generator())
    vectors = {"stored": VECTORS, "some": Rows(VECTORS, [9, 0]), "groups": groups, "made": made}
    return {name: candidates_of(each) for name, each in vectors.items()}


EXPECTED = {
    "stored": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18],
    "some": [18, 0],
    "groups": [6, 24],
    "made": [100, 102, 104, 106, 108, 110, 112],
}


def values(results) -> dict[str, list[float]]:
    return {name: [result.metric for result in found] for name, found in results.items()}


@pytest.mark.parametrize("ensembles", [True, False])
def test_all_sources_are_measured_in_one_call(ensembles):
    run = run_of(ensembles)
    assert values(measuring.evaluate_sources(run, asked(), "test")) == EXPECTED
    assert run.hook.calls == [(19, 2 if ensembles else 0)]


@pytest.mark.parametrize("most", [2, 6, 9])
@pytest.mark.parametrize("ensembles", [True, False])
def test_what_is_made_is_in_memory_a_few_at_a_time(monkeypatch, most, ensembles):
    run = run_of(ensembles)
    monkeypatch.setattr(measuring, "VALUES", most)
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", most)
    assert values(measuring.evaluate_sources(run, asked(), "test")) == EXPECTED
    assert len(run.hook.calls) > 1


@pytest.mark.parametrize("ensembles", [True, False])
def test_the_shares_of_processes_are_all_of_them(ensembles):
    parts = [measuring.evaluate_sources(run_of(ensembles), asked(), "test", slice(i, i + 3)) for i in range(0, 21, 3)]
    assert {name: [v for part in parts for v in values(part)[name]] for name in EXPECTED} == EXPECTED


def test_one_ensemble_alone_is_measured_without_a_candidate():
    run = run_of(True)
    results = measuring.evaluate_sources(run, asked(), "test", slice(12, 13))
    assert values(results) == {"stored": [], "some": [], "groups": [6], "made": []}
    assert run.hook.calls == [(0, 1)]


def test_a_result_too_few_is_told():
    run = run_of(True)
    run.hook.evaluate = lambda **given: [run.hook.result(torch.tensor(1.0))]
    with pytest.raises(PdiffError, match=r"plugin made: evaluate yielded 1 results for 21 candidates\. Yield one for"):
        measuring.evaluate_sources(run, asked(), "test")


def test_an_unsound_result_is_told_by_its_source_and_number():
    run = run_of(True)
    own = run.hook.result
    run.hook.result = lambda value: own(value) if value != 104 else Evaluation("good", torch.tensor([True]))
    with pytest.raises(PdiffError, match=r"evaluate gave for candidate 2 of made a metric that is str"):
        measuring.evaluate_sources(run, asked(), "test")


def test_vectors_reach_a_device_once(monkeypatch):
    moves = []

    def moved(vectors, rows, device):
        moves.append(rows)
        return torch.stack([vectors[row] for row in range(rows.start, rows.stop)])

    monkeypatch.setattr(measuring, "moved", moved)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (16 * 12, 0))
    run = run_of(True)
    run.device = SimpleNamespace(type="cuda")
    monkeypatch.setattr(measuring, "exact", lambda device: nullcontext())
    assert values(measuring.evaluate_sources(run, asked(), "test")) == EXPECTED
    assert sum(rows.stop - rows.start for rows in moves) == 10 + 2 + 2 + 7


@pytest.mark.parametrize("field", ["signature", "scores"])
def test_sources_that_are_measured_on_other_samples_are_told(field):
    run = run_of(True)
    values = {"signature": torch.tensor([True]), "scores": torch.ones(1)}
    run.hook.result = lambda value: Evaluation(1.0, **values)
    run.hook.ensemble = lambda *given: Evaluation(1.0, **{**values, field: torch.ones(3)})
    line = rf"^plugin made: evaluate yielded {field} of shape \(1,\) for stored and \(3,\) for groups, expected one\."
    with pytest.raises(PdiffError, match=line):
        measuring.evaluate_sources(run, asked(), "test")


def test_a_source_may_have_no_scores_where_another_has_some():
    run = run_of(True)
    run.hook.ensemble = lambda *given: Evaluation(1.0, torch.tensor([True]), torch.ones(3))
    assert len(measuring.evaluate_sources(run, asked(), "test")["groups"]) == 2


def test_what_a_plugin_leaves_on_a_gpu_is_brought_by_one_copy():
    with simulated_cuda() as gpu:
        run = run_of(True)
        run.hook.result = lambda value: Evaluation(1.0, torch.tensor([True], device="cuda"))
        gpu.reset()
        found = measuring.evaluate_sources(run, asked(), "test")
        assert gpu.copies_to_host == 1
        signatures = [result.signature for results in found.values() for result in results]
        assert len(signatures) == 21
        assert all(signature.device.type == "cpu" and signature.tolist() == [True] for signature in signatures)

