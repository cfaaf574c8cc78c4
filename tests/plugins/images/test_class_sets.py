"""Sets of classes: drawn without replacement, named, and every way to ask for them wrongly."""

import pytest
import torch
from pdiff_plugins.images.class_sets import class_sets, count_sets, members

from pdiff import Conditions, PdiffError

DIGITS = tuple("0123456789")
CELLS = ("RBC", "WBC", "platelets")


def test_drawn_sets_are_distinct_sorted_and_of_their_sizes():
    table = class_sets(DIGITS, 0, 120, [1, 5])
    assert table.names == tuple(f"classes.{digit}" for digit in DIGITS)
    assert table.values.shape == (120, 10)
    assert table.binary
    assert len(table.distinct()[0]) == 120
    counts = table.values.sum(1).tolist()
    assert counts == sorted(counts)
    assert {1, 5} <= set(counts) <= {1, 2, 3, 4, 5}


def test_the_draw_depends_on_the_seed_alone():
    one, again, other = (class_sets(DIGITS, seed, 40).values for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_all_sets_can_be_asked_for():
    table = class_sets(CELLS, 0, 7)
    assert members(CELLS, table) == [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]]


def test_every_set_of_these_sizes_is_equally_likely():
    draws = torch.stack([class_sets(CELLS, seed, 1).values[0] for seed in range(700)])
    _, counts = draws.unique(dim=0, return_counts=True)
    assert len(counts) == 7
    assert 60 < counts.min() <= counts.max() < 145


def test_sets_of_a_thousand_classes_can_be_drawn():
    assert class_sets([str(number) for number in range(2000)], 0, 3).values.shape == (3, 2000)


def test_named_sets_keep_their_order():
    table = class_sets(DIGITS, 0, [["7", "3"], ["0"], [1, 9]])
    assert members(DIGITS, table) == [[3, 7], [0], [1, 9]]


@pytest.mark.parametrize(("subsets", "count"), [(120, 120), ([["a"], ["b", "a"]], 2)])
def test_the_number_of_sets_is_known_without_the_classes(subsets, count):
    assert count_sets(subsets) == count


@pytest.mark.parametrize("subsets", [0, -1, 1.5, True, "120", None, [], ["0", "1"], [["0"], 1], {"0": 1}])
def test_what_asks_for_no_sets_is_refused(subsets):
    with pytest.raises(PdiffError, match=r"^collect.conditions.subsets: got .*, expected how many sets"):
        count_sets(subsets)


@pytest.mark.parametrize(
    ("subsets", "size", "line"),
    [
        (8, None, "subsets: got 8, but of 3 classes there are 7 sets of 1 to 3. Ask for at most 7."),
        (4, [2, 2], "subsets: got 4, but of 3 classes there are 3 sets of 2 to 2. Ask for at most 3."),
        (
            [["RBC"], ["WBCs"]],
            None,
            "subsets[1]: got the class 'WBCs'. Did you mean 'WBC'? Known: RBC, WBC, platelets.",
        ),
        ([["RBC"], []], None, "subsets[1]: got an empty set, expected some classes. Leave it out."),
        ([["RBC", "WBC"], ["WBC", "RBC"]], None, "subsets[1]: got the set of number 0 again."),
        ([["RBC", "RBC"]], None, "subsets[0]: got ['RBC', 'RBC'], expected each class once."),
        ([["RBC"]], [1, 2], "size: got [1, 2] beside sets that are named, expected null. Leave it out."),
    ],
)
def test_sets_that_cannot_be_are_refused(subsets, size, line):
    with pytest.raises(PdiffError) as caught:
        class_sets(CELLS, 0, subsets, size)
    assert str(caught.value).startswith(f"collect.conditions.{line}")


@pytest.mark.parametrize("size", [[0, 2], [2, 1], [1, 4], [1], [1, 2, 3], 2, "12", [1.0, 2], [True, 2]])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(PdiffError, match=r"^collect.conditions.size: got .*two integers from 1 to 3 in order"):
        class_sets(CELLS, 0, 2, size)


@pytest.mark.parametrize(
    ("names", "values", "line"),
    [
        (["a", "b"], [1, 0], "got the names a, b, expected classes.x, classes.y"),
        (["classes.y", "classes.x"], [1, 0], "got the names classes.y, classes.x, expected"),
        (["classes.x", "classes.y"], [1, 0.5], "got 0.5 for a class, expected 0 or 1"),
        (["classes.x", "classes.y"], [0, 0], "got the set of no class, expected some of x, y"),
    ],
)
def test_conditions_that_are_no_sets_of_these_classes_are_refused(names, values, line):
    with pytest.raises(PdiffError, match=f"^condition: {line}"):
        members(["x", "y"], Conditions(names, torch.tensor([values])))
