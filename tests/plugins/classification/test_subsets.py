"""Sets of classes as conditions: their bits, what they ask, and what a network is measured to do."""

import pytest
import torch
from pdiff_plugins.classification.conditions import build_kind
from pdiff_plugins.images.data import Split

from pdiff.runtime.errors import PdiffError


def split_of(classes: int = 4) -> Split:
    """Return three images of each class."""
    labels = torch.arange(classes).repeat(3)
    return Split(torch.rand(len(labels), 1, 2, 2), labels, classes, 2, 8, torch.device("cpu"))


def kind_of(seed: int = 0, **settings):
    """Return the kind of condition that the settings describe."""
    return build_kind({"type": "subsets", "classes": 4, **settings}, seed)


def test_every_set_that_is_neither_empty_nor_whole_is_a_condition():
    kind = kind_of()
    table = kind.table(split_of())
    assert table.names == ("class0", "class1", "class2", "class3")
    assert len(kind) == len(table) == 2**4 - 2
    assert len(table.values.unique(dim=0)) == 14
    assert set(table.values.sum(1).tolist()) == {1, 2, 3}


def test_ten_classes_have_1022_sets():
    assert len(build_kind({"type": "subsets"}, 0)) == 1022


def test_a_limit_draws_whole_pairs_of_a_set_and_its_complement():
    tables = [kind_of(seed, limit=6).table(split_of()).values for seed in (0, 0, 1)]
    sets = [{tuple(row) for row in table.tolist()} for table in tables]
    assert sets[0] == sets[1] != sets[2]
    assert all(len(found) == 6 for found in sets)
    assert all(tuple(1 - bit for bit in row) in sets[0] for row in sets[0])


def test_a_limit_of_many_classes_needs_no_list_of_all_sets():
    assert len(build_kind({"type": "subsets", "classes": 60, "limit": 100}, 0)) == 100


def test_an_image_is_in_a_set_where_the_bit_of_its_class_is_set():
    kind = kind_of()
    labels = torch.tensor([0, 1, 2, 3, 0])
    answers = kind.labels(labels, torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]]))
    assert answers.tolist() == [[1, 0, 0, 1, 1], [0, 1, 1, 0, 0]]


def test_a_bit_that_is_none_is_refused():
    line = r"^task\.conditions: got 0\.5 for class2, expected 0 or 1\. Mend the condition\.$"
    with pytest.raises(PdiffError, match=line):
        kind_of().checked(torch.tensor([[1.0, 0.0, 0.5, 1.0]]))


def test_what_a_network_does_is_the_share_of_each_class_that_it_puts_in_the_set():
    kind = kind_of()
    measured = kind.measured(torch.tensor([1, 0, 1, 1, 0]), torch.tensor([0, 0, 1, 3, 3]))
    assert measured == {"class0": 0.5, "class1": 1.0, "class3": 0.5}


def test_facts_say_what_one_answer_to_everything_reaches():
    kind = build_kind({"type": "subsets"}, 0)
    facts = kind.facts(kind.table(split_of(10)))
    assert facts["question"] == "is the image's class in the set?"
    assert "0.62 in the mean over the sets" in facts["one answer to all images"]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"classes": 1}, r"^task\.conditions\.classes: got 1, expected 2 to 60\. Give the number of classes of the"),
        ({"classes": 61}, r"^task\.conditions\.classes: got 61, expected 2 to 60\."),
        ({"classes": 20}, r"^task\.conditions\.limit: got null for 20 classes, expected a number\. Set it\.$"),
        ({"limit": 5}, r"^task\.conditions\.limit: got 5, expected an even number from 2 to 14, as a set and its c"),
        ({"limit": 16}, r"^task\.conditions\.limit: got 16, expected an even number from 2 to 14"),
        ({"limit": 0}, r"^task\.conditions\.limit: got 0, expected an even number"),
        ({"limits": 4}, r"^task\.conditions: got unknown key 'limits'\. Did you mean 'limit'\?"),
    ],
)
def test_settings_that_make_no_sets_are_refused(settings, line):
    with pytest.raises(PdiffError, match=line):
        kind_of(**settings)


def test_sets_of_another_number_of_classes_than_that_of_the_data_are_refused():
    line = r"^task\.conditions\.classes: got 4, expected 5, that of the data\. Change it\.$"
    with pytest.raises(PdiffError, match=line):
        kind_of().table(split_of(5))


def test_unknown_kind_of_condition_is_refused_with_those_that_exist():
    line = r"^task\.conditions\.type: got 'subset'\. Did you mean 'subsets'\? Known: .*subsets"
    with pytest.raises(PdiffError, match=line):
        build_kind({"type": "subset"}, 0)
