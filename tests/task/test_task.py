"""Candidates come one by one, some at a time, or in groups, and each keeps its condition."""

import pytest
import torch

from pdiff.task.task import Candidates, Snapshot
from pdiff.weights.conditions import Conditions
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Made, Rows

LAYOUT = Layout.of({"weight": torch.zeros(3)})
VECTORS = torch.arange(15.0).view(5, 3)


def load(model, params) -> None:
    model.update(params)


@pytest.fixture(params=["tensor", "rows", "made"])
def candidates(request, monkeypatch) -> Candidates:
    """Return five candidates for the conditions 0 to 4; made ones come two at a time."""
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 6)
    vectors = {
        "tensor": VECTORS,
        "rows": Rows(VECTORS.flip(0), [4, 3, 2, 1, 0]),
        "made": Made([5, 3], lambda rows, rng: VECTORS[rows], torch.Generator()),
    }[request.param]
    return Candidates(vectors, LAYOUT, load, Conditions(["number"], torch.arange(5.0)[:, None]))


def pairs(candidates: Candidates) -> list[tuple[float, float]]:
    """Return the first parameter of each, over three, and its condition."""
    numbers = [params["weight"][0].item() / 3 for params in candidates]
    return list(zip(numbers, [condition["number"] for condition in candidates.conditions], strict=True))


@pytest.mark.parametrize(("rows", "numbers"), [(None, range(5)), (slice(1, 4), (1, 2, 3)), (slice(3, 5), (3, 4))])
def test_pieces_keep_the_condition_of_each(candidates, rows, numbers):
    found = [pair for piece in candidates.pieces(rows) for pair in pairs(piece)]
    assert found == [(number, number) for number in numbers]


def test_some_are_taken_with_their_conditions(candidates):
    assert pairs(candidates.take([3, 0])) == [(3, 3), (0, 0)]
    assert pairs(candidates.take(slice(2, 4))) == [(2, 2), (3, 3)]


def test_members_of_an_ensemble_are_for_its_condition():
    conditions = Conditions(["number"], torch.tensor([[7.0], [8.0]]))
    ensembles = Candidates(VECTORS[:4].view(2, 2, 3), LAYOUT, load, conditions)
    found = [[condition["number"] for condition in group.conditions] for group in ensembles.members()]
    assert found == [[7, 7], [8, 8]]
    assert [len(group) for group in ensembles.members()] == [2, 2]


def test_without_conditions_there_are_none_anywhere():
    candidates = Candidates(VECTORS, LAYOUT, load)
    assert candidates.take([1]).conditions is None
    assert [piece.conditions for piece in candidates.pieces()] == [None]
    assert [group.conditions for group in Candidates(VECTORS[None], LAYOUT, load).members()] == [None]


def test_a_candidate_is_put_into_the_network(candidates):
    model = {}
    candidates.load(model, 2)
    assert model["weight"].tolist() == [6, 7, 8]


def test_a_snapshot_of_a_network_is_a_copy_with_its_condition():
    model = torch.nn.Linear(2, 1)
    found = Snapshot.of(model, ["bias"], condition={"angle": 1.0})
    model.bias.data += 1
    assert found.condition == {"angle": 1.0}
    assert found.params["bias"].item() == pytest.approx(model.bias.item() - 1)
