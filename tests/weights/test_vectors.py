"""Vectors that are read or made a few at a time are the same as if they were in memory."""

import numpy as np
import pytest
import torch

from pdiff.weights import vectors as module
from pdiff.weights.vectors import (
    Joined,
    Made,
    Rows,
    along_columns,
    column_blocks,
    deviations,
    mean,
    moved,
    parts,
    pieces,
    row_slices,
)

WHOLE = torch.randn(7, 10, generator=torch.Generator().manual_seed(0)) + 3


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Let a part have two vectors of ten values."""
    monkeypatch.setattr(module, "VALUES", 20)


def noise(rows: slice, rng: torch.Generator) -> torch.Tensor:
    return torch.randn(rows.stop - rows.start, 10, generator=rng) + torch.arange(7.0)[rows, None]


def made() -> Made:
    return Made([7, 10], noise, torch.Generator().manual_seed(4))


def test_rows_are_indexed_like_the_matrix_they_are():
    chosen = WHOLE[[1, 3, 5, 6]]
    rows = Rows(WHOLE, [1, 3, 5, 6])
    assert (rows.shape, rows.ndim, len(rows)) == (chosen.shape, 2, 4)
    for place in (0, slice(1, 3), [2, 0], torch.tensor([3, 3]), slice(None)):
        assert torch.equal(rows[place], chosen[place])
        assert torch.equal(rows[place, 2:5], chosen[place, 2:5])


def test_parts_hold_no_more_than_a_few_values_and_all_vectors_in_order():
    for vectors in (WHOLE, Rows(WHOLE, range(7)), Made([7, 10], lambda rows, rng: WHOLE[rows], torch.Generator())):
        found = list(parts(vectors))
        assert [len(part) for part in found] == [2, 2, 2, 1]
        assert torch.equal(torch.cat(found), WHOLE)
    assert [len(part) for part in parts(WHOLE, most=1)] == [1] * 7
    assert [len(range(7)[rows]) for rows in row_slices((7, 1000))] == [1] * 7


def test_made_vectors_are_the_same_at_every_pass_and_in_any_order():
    vectors = made()
    whole = torch.cat(list(parts(vectors)))
    assert torch.equal(whole, torch.cat(list(parts(vectors))))
    assert torch.equal(vectors[:], whole)
    assert torch.equal(vectors[[5, 0, 5]], whole[[5, 0, 5]])
    assert torch.equal(vectors[torch.tensor([6])], whole[6:])


def test_making_vectors_draws_nothing_from_the_generator_that_it_was_given():
    rng = torch.Generator().manual_seed(4)
    vectors = Made([7, 10], noise, rng)
    before = vectors[:]
    torch.randn(9, generator=rng)
    assert torch.equal(vectors[:], before)


def test_in_one_part_vectors_are_made_with_the_draws_of_all_at_once(monkeypatch):
    monkeypatch.setattr(module, "VALUES", 70)
    rng = torch.Generator().manual_seed(4)
    assert torch.equal(made()[:], torch.randn(7, 10, generator=rng) + torch.arange(7.0)[:, None])


def test_columns_come_in_blocks_and_their_average_is_that_of_the_whole():
    assert [place.stop - place.start for place in column_blocks(WHOLE)] == [1] * 10
    torch.testing.assert_close(mean(Rows(WHOLE, range(7))), WHOLE.mean(0))
    torch.testing.assert_close(along_columns(lambda block: block.std(0), WHOLE), WHOLE.std(0))


@pytest.mark.parametrize("vectors", [WHOLE, Rows(WHOLE, [0, 3, 4]), made()], ids=["tensor", "rows", "made"])
def test_deviations_are_those_of_each_coordinate(vectors):
    torch.testing.assert_close(deviations(vectors), vectors[:].double().std(0))


def test_vectors_that_never_differ_deviate_by_nothing():
    assert (deviations(torch.full((5, 3), 0.1)) == 0).all()


@pytest.mark.parametrize("rows", [slice(0, 7), slice(1, 5), slice(4, 5), slice(6, 7)])
def test_pieces_are_successive_vectors_of_every_kind(rows):
    for vectors in (WHOLE, Rows(WHOLE, [6, 5, 4, 3, 2, 1, 0]), made()):
        found = list(pieces(vectors, rows))
        assert torch.equal(torch.cat([piece[:] for piece in found]), vectors[:][rows])
    assert isinstance(next(pieces(Rows(WHOLE, range(7)), rows)), Rows)


@pytest.mark.parametrize("base", [WHOLE, Rows(WHOLE, range(7)), made()])
def test_only_rows_that_are_asked_for_are_finished_and_the_others_cost_nothing(base):
    asked = []

    def finish(rows, numbers):
        asked.extend(numbers.tolist())
        rows += 100 * numbers[:, None]
        return rows

    before = base[:].clone()
    finished = Made.of(base, finish)
    whole = before + 100 * torch.arange(7)[:, None]
    assert torch.equal(finished[4], whole[4])
    assert torch.equal(finished[[5, 1]], whole[[5, 1]])
    assert asked == [4, 5, 1]
    assert torch.equal(torch.cat(list(pieces(finished, slice(3, 6)))), whole[3:6])
    assert asked == [4, 5, 1, 3, 4, 5]
    assert torch.equal(torch.cat(list(parts(finished))), whole)
    assert torch.equal(base[:], before)


def test_rows_are_brought_where_they_are_computed_with_when_they_are_asked_for():
    device = torch.device("meta")
    rows = Rows(WHOLE, [1, 3, 5, 6], device).some(slice(1, None))
    (piece,) = pieces(rows, slice(0, 2))
    assert (rows.device, rows.vectors.device, piece.device) == (device, torch.device("cpu"), device)
    assert {part.device for part in (rows[0], rows[:, 1:3], *parts(rows), mean(rows))} == {device}
    assert rows.rows.tolist() == [3, 5, 6]


def test_joined_vectors_are_indexed_by_any_whole_number():
    joined = Joined([WHOLE[:3], Rows(WHOLE, [3, 4, 5, 6])])
    for place in (5, -2, np.int64(5), torch.tensor(5)):
        assert torch.equal(joined[place], WHOLE[5])


def test_vectors_of_several_places_move_to_a_device_in_their_order():
    joined = Joined([WHOLE[:3], Rows(WHOLE, [6, 5]), WHOLE[3:4]])
    expected = torch.cat([WHOLE[:3], WHOLE[[6, 5]], WHOLE[3:4]])
    assert torch.equal(moved(joined, slice(0, 6), torch.device("cpu")), expected)
    assert torch.equal(moved(joined, slice(2, 5), torch.device("cpu")), expected[2:5])
    assert torch.equal(moved(Rows(WHOLE, [6, 5, 1]), slice(1, 3), torch.device("cpu")), WHOLE[[5, 1]])
