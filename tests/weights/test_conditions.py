"""Conditions are finite numbers by name, and their distances are what they say."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from pdiff.runtime.errors import PdiffError
from pdiff.weights.conditions import Conditions, check_condition


def bits(*rows: str) -> Conditions:
    return Conditions.of([{f"bit{place}": int(bit) for place, bit in enumerate(row)} for row in rows])


def line(*values: float) -> Conditions:
    return Conditions.of([{"angle": value} for value in values])


def test_conditions_are_what_they_are_made_of():
    found = Conditions.of([{"a": 1, "b": 0.5}, {"b": np.float32(2), "a": Fraction(1, 4)}])
    assert found.names == ("a", "b")
    assert found.values.dtype == torch.float32
    assert list(found) == [{"a": 1.0, "b": 0.5}, {"a": 0.25, "b": 2.0}]
    assert [list(found.take(rows)) for rows in ([1], slice(1, 2), torch.tensor([1]), np.array([1]))] == [[found[1]]] * 4


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (None, "got no condition, expected numbers by name (a, b). Give each one, or none of them."),
        ([1.0, 2.0], "got list, expected numbers by name (a, b). Give each one, or none of them."),
        ({}, "got dict, expected numbers by name (a, b). Give each one, or none of them."),
        ({"a": 1.0}, "lacks 'b', expected a, b. Give a number for each."),
        ({"a": 1.0, "b": 1.0, "angel": 1.0}, "got the name 'angel'. Known: a, b."),
        ({"a": 1.0, 2: 1.0}, "got the name 2, expected a text. Name each number."),
        ({"a": 1.0, "b": float("nan")}, "got nan for 'b', expected a finite number. Mend it."),
        ({"a": 1.0, "b": float("inf")}, "got inf for 'b', expected a finite number. Mend it."),
        ({"a": 1.0, "b": 1e39}, "got 1e+39 for 'b', expected a finite number. Mend it."),
        ({"a": 1.0, "b": 10**400}, f"got {10**400} for 'b', expected a finite number. Mend it."),
        ({"a": 1.0, "b": True}, "got True for 'b', expected a finite number. Mend it."),
        ({"a": 1.0, "b": "2"}, "got '2' for 'b', expected a finite number. Mend it."),
        ({"a": 1.0, "b": torch.tensor(2.0)}, "got tensor(2.) for 'b', expected a finite number. Mend it."),
    ],
)
def test_condition_that_is_none_is_refused_by_name(second, words):
    with pytest.raises(PdiffError) as caught:
        Conditions.of([{"a": 1.0, "b": 2.0}, second], "files")
    assert str(caught.value) == f"files, number 1: {words}"


def test_a_name_close_to_a_known_one_is_named():
    with pytest.raises(PdiffError, match="got the name 'angel'. Did you mean 'angle'?"):
        check_condition({"angel": 1.0}, ("angle",), "condition")


def test_distance_of_bits_is_how_many_differ():
    found = bits("000", "101").distances(bits("001", "111", "000"))
    assert found.tolist() == [[1, 3, 0], [1, 1, 2]]


def test_distance_of_numbers_is_in_standard_deviations_of_the_others_of_each():
    seen = Conditions.of([{"a": 0.0, "b": 5.0}, {"a": 20.0, "b": 5.0}])  # of deviation 10 and 0
    wanted = Conditions.of([{"a": 30.0, "b": 5.0}, {"a": 20.0, "b": 7.0}])
    np.testing.assert_allclose(wanted.distances(seen), [[3, 1], [8**0.5, 2]])


def test_wanted_numbers_between_bits_have_a_distance_all_the_same():
    np.testing.assert_allclose(line(0.5).distances(line(0.0, 1.0)), [[1, 1]])


def test_what_lies_beyond_the_range_is_named():
    seen = Conditions.of([{"a": 0.1, "b": 0.0}, {"a": 0.7, "b": 1.0}])
    for a, b, names in ((0.1, 0.5, []), (0.7, 1.0, []), (0.8, 0.5, ["a"]), (0.0, -1.0, ["a", "b"])):
        assert Conditions.of([{"a": a, "b": b}]).outside(seen) == names


def test_each_condition_once_by_first_appearance():
    once, of = line(3.0, 1.0, 3.0, -0.0, 0.0, 1.0).distinct()
    assert once.values.flatten().tolist() == [3, 1, 0]
    assert of.tolist() == [0, 1, 0, 2, 2, 1]


def test_conditions_are_binary_where_every_number_is_a_bit():
    assert bits("01", "10").binary
    assert not line(0.0, 0.5).binary
