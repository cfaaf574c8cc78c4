"""Candidates under conditions: many at a time as alone, each measured by what its own condition asks."""

import math

import pytest
import torch
from pdiff_plugins.classification import passes

from pdiff.runtime.errors import PdiffError
from pdiff.testing.evaluating import difference
from pdiff.weights.conditions import Conditions


@pytest.fixture
def case(subsets, conditional):
    """A tiny task of sets of classes."""
    subsets["task"]["eval_batch"] = 500
    return conditional(subsets)


@pytest.fixture
def candidates(case):
    """Its networks."""
    return case.candidates()


def assert_same(ones, others) -> None:
    """Assert that evaluations are equal bit for bit."""
    for one, other in zip(ones, others, strict=True):
        assert difference(one, other) == ""
        assert one.condition == other.condition


def test_a_candidate_is_measured_by_what_its_own_condition_asks(case, candidates):
    data = case.task.splits["test"].data
    for index, result in enumerate(case.evaluate(candidates)):
        candidates.load(case.task.model, index)
        answers = case.task.model.eval()(data.pixels(slice(None))).argmax(1)
        bits = torch.tensor(list(candidates.conditions[index].values()))
        right = answers == bits[data.labels].long()
        assert torch.equal(result.signature, ~right)
        assert result.metric == right.double().mean().item() == result.scores.double().mean().item()
        share = (answers[data.labels == 3] == 1).float().mean().item()
        assert result.condition["class3"] == pytest.approx(share)


def test_another_condition_makes_the_same_network_another_candidate(case, candidates):
    flipped = Conditions(candidates.conditions.names, 1 - candidates.conditions.values)
    candidates.conditions, right = flipped, case.evaluate(candidates)
    for one, other in zip(right, case.evaluate(candidates), strict=True):
        assert one.metric + other.metric == pytest.approx(1)
        assert one.condition == other.condition


@pytest.mark.parametrize("together", [1, 2, 5, 64])
def test_candidates_side_by_side_reach_what_each_reaches_alone(case, candidates, monkeypatch, together):
    monkeypatch.setattr(passes, "TOGETHER", together)
    whole = case.evaluate(candidates)
    assert_same(whole, [case.evaluate(candidates.take([index]))[0] for index in range(len(candidates))])
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(0)).tolist()
    assert_same([whole[index] for index in order], case.evaluate(candidates.take(order)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_dead_candidate_spoils_no_other_and_does_nothing(case, candidates, value):
    first = case.evaluate(candidates)
    candidates.vectors[1, 0] = value
    found = case.evaluate(candidates)
    assert found[1].metric == -math.inf
    assert found[1].condition is None
    assert found[1].signature.all()
    assert_same([found[0], *found[2:]], [first[0], *first[2:]])


@pytest.mark.parametrize("select", ["head", "all"])
def test_parts_of_a_network_are_evaluated_with_the_rest_of_it(subsets, conditional, select):
    case = conditional({**subsets, "select": select})
    candidates = case.candidates()
    whole = case.evaluate(candidates)
    assert len({tuple(result.signature.tolist()) for result in whole}) > 1
    assert_same(whole, [case.evaluate(candidates.take([index]))[0] for index in range(len(candidates))])


def test_evaluation_leaves_the_network_as_it_is(case, candidates):
    before = {name: tensor.clone() for name, tensor in case.task.model.state_dict().items()}
    case.evaluate(candidates)
    assert all(torch.equal(tensor, before[name]) for name, tensor in case.task.model.state_dict().items())


def test_no_candidates_are_no_evaluations(case, candidates):
    assert case.evaluate(candidates.take([])) == []


def test_an_ensemble_averages_class_probabilities_under_one_condition(case, candidates):
    alone = candidates.take([2])
    result = case.ensemble(alone)
    assert_same([result], case.evaluate(alone))
    three = candidates.with_vectors(candidates.vectors[:3], [2, 2, 2])
    data, total = case.task.splits["test"].data, 0
    for index in range(3):
        three.load(case.task.model, index)
        total = total + case.task.model.eval()(data.pixels(slice(None))).softmax(1)
    right = total.argmax(1) == torch.tensor(list(three.conditions[0].values()))[data.labels].long()
    assert torch.equal(case.ensemble(three).scores, right)


def test_candidates_without_conditions_are_refused(case, candidates):
    candidates.conditions = None
    line = r"^task\.conditions: got candidates without them, expected class0, class1, .*\. Give one for each\.$"
    with pytest.raises(PdiffError, match=line):
        case.evaluate(candidates)


def test_candidates_for_other_conditions_are_refused(case, candidates):
    candidates.conditions = Conditions(["angle"], torch.zeros(len(candidates), 1))
    with pytest.raises(PdiffError, match=r"^task\.conditions: got candidates for angle, expected class0, .*Name these"):
        case.evaluate(candidates)


def test_whole_networks_side_by_side_reach_what_each_reaches_alone(zoo, conditional):
    candidates = conditional(zoo).candidates()
    whole = conditional(zoo).evaluate(candidates)
    zoo["task"]["eval_networks"] = 4
    case = conditional(zoo)
    assert_same(case.evaluate(candidates), whole)
    assert_same(case.evaluate(candidates.take([3])), whole[3:4])
    assert case.evaluate(candidates.take([])) == []


def test_an_ensemble_is_the_same_side_by_side(zoo, conditional):
    candidates = conditional(zoo).candidates()
    whole = conditional(zoo).ensemble(candidates)
    zoo["task"]["eval_networks"] = 5
    assert_same([conditional(zoo).ensemble(candidates)], [whole])


KINDS = {
    "sets": {},
    "sets, of heads": {"select": "head"},
    "angles": {"task": {"conditions": {"type": "rotation", "angles": [0, 180, 6]}}},
}


@pytest.fixture(params=[*KINDS, "zoo", "zoo at once", "heads"])
def grouped(request, subsets, zoo, conditional):
    """A tiny task of each way to evaluate, its networks, and ensembles of them."""
    values = KINDS.get(request.param)
    if values is None:
        zoo["task"]["eval_networks"] = 4 if request.param == "zoo at once" else 1
        values = {**zoo, "select": "head" if request.param == "heads" else "all"}
        values["collect"]["seeds"] = 1 if request.param == "heads" else 6
    else:
        values = {**subsets, **values, "task": subsets["task"] | values.get("task", {})}
    values["task"]["eval_batch"] = 300
    case = conditional(values)
    candidates = case.candidates()
    rows = [[0, 1, 2], [2], [1] * 5] if candidates.conditions is None else [[1] * 3, [0], [2] * 5]
    own = [candidates.with_vectors(candidates.vectors[: len(few)], few) for few in rows]
    return case, candidates, own


def test_ensembles_and_candidates_reach_together_what_each_reaches_alone(grouped):
    case, candidates, ensembles = grouped
    together = case.evaluate(candidates, ensembles=ensembles)
    assert_same(together, [*case.evaluate(candidates), *map(case.ensemble, ensembles)])


def test_a_dead_network_side_by_side_spoils_no_other(zoo, conditional):
    zoo["task"]["eval_networks"] = 4
    case = conditional(zoo)
    candidates = case.candidates()
    first = case.evaluate(candidates)
    candidates.vectors[1, 0] = math.nan
    found = case.evaluate(candidates)
    assert found[1].metric == -math.inf
    assert_same([found[0], *found[2:]], [first[0], *first[2:]])


def test_parts_of_networks_are_not_evaluated_side_by_side(zoo, conditional):
    zoo["task"]["eval_networks"], zoo["collect"]["seeds"] = 4, 1
    case = conditional({**zoo, "select": "head"})
    with pytest.raises(PdiffError, match=r"^task\.eval_networks: got 4, expected 1 for networks in part, or with runn"):
        case.evaluate(case.candidates())
