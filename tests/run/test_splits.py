"""Conditions are split by whole groups, every checkpoint once, and a leak is refused by name."""

from itertools import product

import numpy as np
import pytest
import torch

from pdiff.run.config import resolve
from pdiff.run.splits import PARTS, check_conditions, check_split, connected, split_conditions
from pdiff.run.symmetry import build_symmetry
from pdiff.runtime.errors import PdiffError
from pdiff.weights.conditions import Conditions
from pdiff.weights.layout import Layout

LAYOUT = Layout.of({"w": torch.zeros(2)})
COMPLEMENT = build_symmetry({"type": "complement", "swap": ["w"]}, LAYOUT)
SUBSETS = Conditions([f"bit{place}" for place in range(6)], torch.tensor(list(product([0.0, 1.0], repeat=6))[1:-1]))
ANGLES = Conditions(["angle"], torch.arange(40.0)[:, None])


def split(cfg, conditions=ANGLES, provenance=None, symmetry=None, seed=0) -> dict:
    """Return what a split gives."""
    provenance = provenance or [{}] * len(conditions)
    return split_conditions(cfg, conditions, provenance, symmetry, torch.Generator().manual_seed(seed))


def parts(record: dict, count: int) -> dict[str, set]:
    """Return the rows of each part of a record, each row in one of them."""
    found = {"select": set(record["select"]), "unseen": set(record["unseen"]), "left out": set(record["gap"])}
    found["seen"] = set(range(count)) - set().union(*found.values())
    assert sum(map(len, found.values())) == count
    assert record["rows"] == sorted(found["select"] | found["unseen"])
    return found


def test_equal_conditions_are_one_group():
    conditions = Conditions(["a"], torch.tensor([[1.0], [2.0], [1.0], [-0.0], [0.0]]))
    assert connected(conditions, [{}] * 5, None).tolist() == [0, 1, 0, 2, 2]


def test_a_label_joins_what_has_it_and_all_that_hangs_on_it():
    conditions = Conditions(["a"], torch.tensor([[1.0], [2.0], [3.0], [1.0], [4.0]]))
    provenance = [{}, {"group": "x"}, {"group": "x"}, {"group": "y"}, {"group": "y"}]
    assert connected(conditions, provenance, None).tolist() == [0, 1, 1, 0, 0]


def test_a_label_is_any_value_and_is_not_taken_for_a_condition():
    conditions = Conditions(["a", "b"], torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    labels = [{"group": [3.0, 4.0]}, {"group": 1}, {"group": "1"}]
    assert connected(conditions, labels, None).tolist() == [0, 1, 2]


def test_a_condition_and_its_image_are_one_group():
    groups = connected(SUBSETS, [{}] * 62, COMPLEMENT)
    assert len(np.unique(groups)) == 31
    assert groups.tolist() == groups[::-1].tolist(), "the complement of row i is row 61 - i"


@pytest.mark.parametrize("symmetry", [None, COMPLEMENT])
def test_random_draws_whole_groups_of_the_wanted_shares(symmetry):
    record = split({"type": "random", "select": 0.1, "unseen": 0.2}, SUBSETS, symmetry=symmetry)
    found, groups = parts(record, 62), np.array(record["groups"])
    size = 1 if symmetry is None else 2
    assert {name: len(rows) for name, rows in found.items()} == {
        "select": 6, "unseen": 12, "seen": 44, "left out": 0,
    }  # fmt: skip
    held = [set(groups[list(rows)]) for rows in found.values()]
    assert all(not one & other for one in held for other in held if one is not other)
    assert all(len(rows) == size * len(own) for rows, own in zip(found.values(), held, strict=True))


def test_split_is_the_same_for_the_same_seed_and_another_for_another():
    cfg = {"type": "random", "select": 0.2, "unseen": 0.2}
    assert split(cfg) == split(cfg)
    assert split(cfg)["unseen"] != split(cfg, seed=1)["unseen"]


def test_several_checkpoints_of_a_condition_stay_together():
    conditions = ANGLES.take(torch.arange(40).repeat(3))
    record = split({"type": "random", "select": 0.1, "unseen": 0.1}, conditions)
    for rows in (record["select"], record["unseen"]):
        assert len(rows) == 12
        assert {row % 40 for row in rows} == {row % 40 for row in rows if row < 40}
    assert record["line"] == (
        "96 checkpoints of 32 groups seen, 12 checkpoints of 4 groups select, 12 checkpoints of 4 groups unseen"
    )


def test_ball_leaves_no_seen_condition_within_its_radius():
    record = split({"type": "ball", "radius": 1, "select": 0.04, "unseen": 0.07}, SUBSETS, symmetry=COMPLEMENT)
    found = {name: sorted(rows) for name, rows in parts(record, 62).items()}
    distances = SUBSETS.take(record["rows"]).distances(SUBSETS.take(found["seen"]))
    assert distances.min() == 2
    assert found["left out"], "some lie within it"
    near = SUBSETS.take(found["left out"]).distances(SUBSETS.take(record["rows"])).min(1)
    assert (near <= 1).all()
    count = len(found["left out"])
    assert record["line"].endswith(f"{count} checkpoints of {count // 2} groups left out")


def test_ball_without_radius_is_random():
    ball, drawn = (split({"type": name, **cfg, "select": 0.1, "unseen": 0.1}, SUBSETS) for name, cfg in (
        ("ball", {"radius": 0}), ("random", {}),
    ))  # fmt: skip
    assert ball == drawn


def test_sum_splits_by_the_size_of_a_subset():
    record = split({"type": "sum", "seen": [1, 5], "unseen": [3], "select": 0.25}, SUBSETS, symmetry=COMPLEMENT)
    found = parts(record, 62)
    sums = {name: {int(SUBSETS.values[row].sum()) for row in rows} for name, rows in found.items()}
    assert sums == {"seen": {1, 5}, "select": {3}, "unseen": {3}, "left out": {2, 4}}
    assert len(found["select"]) == 4, "a quarter of ten pairs, rounded"


def test_sum_of_fractions_is_found_in_spite_of_rounding():
    conditions = Conditions(["a", "b"], torch.tensor([[0.1 * row, 0.2] for row in range(10)]))
    record = split({"type": "sum", "seen": [0.3, 0.4, 0.5, 0.6, 0.7], "unseen": [0.8, 0.9, 1.0]}, conditions)
    assert len(parts(record, 10)["seen"]) == 5
    assert record["rows"] == [6, 7, 8]


def test_given_takes_what_the_provenance_says():
    labels = ["seen"] * 6 + ["select"] * 2 + ["unseen"] * 3 + ["left out"]
    record = split({"type": "given"}, ANGLES.take(slice(0, 12)), [{"split": label} for label in labels])
    assert (record["select"], record["unseen"], record["gap"]) == ([6, 7], [8, 9, 10], [11])


@pytest.mark.parametrize("label", ["Seen", None, 3])
def test_given_names_a_checkpoint_whose_part_is_none(label):
    provenance = [{"split": "seen"}, {"split": label}]
    with pytest.raises(PdiffError) as caught:
        split({"type": "given"}, ANGLES.take(slice(0, 2)), provenance)
    assert str(caught.value).startswith(f"fit.split: checkpoint 1 is said to be {label!r} (provenance, 'split'). ")
    assert str(caught.value).endswith("Known: left out, seen, select, unseen.")


def given(conditions, labels, groups=(), symmetry=None) -> str:
    """Return the error line of a split that the provenance gives."""
    provenance = [{"split": label} for label in labels]
    for row, group in enumerate(groups):
        provenance[row] |= {} if group is None else {"group": group}
    with pytest.raises(PdiffError) as caught:
        split({"type": "given"}, conditions, provenance, symmetry)
    return str(caught.value)


def test_equal_conditions_in_two_parts_are_a_leak():
    line = given(ANGLES.take([3, 4, 3]), ["seen", "seen", "unseen"])
    assert line == (
        "fit.split: checkpoint 0 is seen and checkpoint 2 is unseen, but their conditions are equal (angle 3), so that "
        "one would leak to the other. Put them on one side."
    )


def test_a_group_in_two_parts_is_a_leak():
    line = given(ANGLES.take([3, 4, 5]), ["select", "seen", "unseen"], ["x", None, "x"])
    assert "checkpoint 0 is select and checkpoint 2 is unseen, but both are of the group 'x', so that" in line


def test_complements_in_two_parts_are_a_leak():
    line = given(SUBSETS.take([0, 61]), ["seen", "unseen"], symmetry=COMPLEMENT)
    first, second = ("bit0 0, bit1 0, bit2 0, bit3 0, bit4 0, bit5 1", "bit0 1, bit1 1, bit2 1, bit3 1, bit4 1, bit5 0")
    assert f"but {first} and {second} are joined by the symmetry of fit.symmetry, or by a group, so that" in line


def test_what_is_left_out_leaks_nothing():
    labels = ["seen"] * 6 + ["select"] * 2 + ["unseen"] * 3 + ["left out"]
    conditions = ANGLES.take([*range(11), 9])
    assert split({"type": "given"}, conditions, [{"split": label} for label in labels])["gap"] == [11]


def test_sum_that_tears_a_symmetry_apart_is_a_leak():
    with pytest.raises(PdiffError, match="is select and checkpoint 31 is seen, but .* joined by the symmetry"):
        split({"type": "sum", "seen": [1, 2], "unseen": [4, 5]}, SUBSETS, symmetry=COMPLEMENT)


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        ({"type": "random", "select": 0}, "fit.split.select: got 0, expected a share of the conditions between"),
        ({"type": "random", "unseen": 1.5}, "fit.split.unseen: got 1.5, expected a share of the conditions between"),
        ({"type": "random", "unseen": -0.1}, "fit.split.unseen: got -0.1, expected a share of the conditions between"),
        ({"type": "random", "select": 0.5, "unseen": 0.5}, "fit.split: got select and unseen that leave nothing to be"),
        ({"type": "ball", "select": 2}, "fit.split.select: got 2, expected a share"),
        ({"type": "sum", "seen": [1], "unseen": [2], "select": 1}, "fit.split.select: got 1, expected a share"),
        ({"type": "sum", "seen": [1, 2], "unseen": [2, 3]}, "fit.split: got the sum 2 in seen and in unseen, expected"),
        ({"type": "sum", "seen": ["a"], "unseen": [2]}, "fit.split.seen: got 'a' among the sums, expected a number."),
        ({"type": "sum", "seen": [1], "unseen": [100]}, "fit.split: got 1 groups of conditions that are seen"),
    ],
)
def test_shares_and_sums_that_cannot_be_are_refused(cfg, words):
    with pytest.raises(PdiffError) as caught:
        split(cfg)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "got 0 groups of conditions that are seen, expected at least 3. Take networks for more conditions, or"),
        (5, "got 2 groups of conditions that are seen, expected at least 3."),
    ],
)
def test_too_few_conditions_are_refused(count, words):
    with pytest.raises(PdiffError) as caught:
        split({"type": "random", "select": 0.05, "unseen": 0.1}, ANGLES.take(slice(0, count)))
    assert str(caught.value).startswith(f"fit.split: {words}")


def test_a_split_of_a_third_party_must_give_a_part_for_each():
    def shorter(rows):
        return np.array(["seen"])

    def other(rows):
        return np.array(["train"] * len(rows.groups))

    for kind, words in ((shorter, r"got \(1,\) of seen"), (other, r"got \(40,\) of train")):
        with pytest.raises(PdiffError, match=f"fit.split: {words} .* expected one of {', '.join(PARTS)} for each"):
            split({"type": kind})


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        ({"type": "randon"}, "fit.split.type: got 'randon'. Did you mean 'random'? Known: ball, given, random, sum."),
        ({"type": "random", "radius": 1}, "fit.split: got unknown key 'radius'. Known: "),
        ({"type": "sum", "seen": [1]}, "fit.split: missing a required argument: 'unseen'. Arguments: "),
        ({"type": "ball", "radius": "1"}, "fit.split.radius: got '1', expected a number."),
        ({"type": "sum", "seen": 1, "unseen": [2]}, "fit.split.seen: got 1, expected a list."),
        ({"type": "random", "select": 0.9, "unseen": 0.9}, "fit.split: got select and unseen that leave nothing to be"),
        ({"type": "random", "select": 0.95}, "fit.split: got select and unseen that leave nothing to be seen."),
        ({"type": "ball", "unseen": 0}, "fit.split.unseen: got 0, expected a share of the conditions between 0 and 1."),
        ({"type": "sum", "seen": [1], "unseen": [2], "select": 1.5}, "fit.split.select: got 1.5, expected a share of"),
    ],
)
def test_section_that_is_no_split_is_told_before_there_is_a_population(cfg, words):
    with pytest.raises(PdiffError) as caught:
        check_split(cfg)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("section", "settings", "words"),
    [
        ("fit", {"split": None}, "fit.split: got None, expected a section."),
        ("fit", {"split": {"type": "randon"}}, "fit.split.type: got 'randon'. Did you mean 'random'?"),
        ("fit", {"split": {"radius": 2}}, "fit.split: got unknown key 'radius'."),
        ("fit", {"split": {"select": 0.9, "unseen": 0.9}}, "fit.split: got select and unseen that leave nothing"),
        ("fit", {"symmetry": {"type": "complemant"}}, "fit.symmetry.type: got 'complemant'. Did you mean"),
        ("fit", {"symmetry": {"swap": ["w"]}}, "fit.symmetry.type: got None. Known: complement."),
        ("fit", {"symmetry": {"type": "complement", "swop": []}}, "fit.symmetry: got unknown key 'swop'. Did you mean"),
        ("fit", {"symmetry": {"type": "complement", "swap": ["v"]}}, "fit.symmetry.swap: got 'v', which is not select"),
        ("generate", {"guidance": 1.5}, "generate.guidance: got 1.5, expected 1 where engine.condition_dropout is 0"),
    ],
)
def test_config_of_conditions_that_cannot_be_is_told_by_its_place(section, settings, words):
    engine = {"condition_dropout": 0}
    check_conditions(resolve({}), LAYOUT)
    check_conditions(resolve({"generate": {"guidance": 1.5}}), LAYOUT)
    check_conditions(resolve({"engine": engine, "fit": {"symmetry": {"type": "complement", "swap": ["w"]}}}), LAYOUT)
    with pytest.raises(PdiffError) as caught:
        check_conditions(resolve({"engine": engine, section: settings}), LAYOUT)
    assert str(caught.value).startswith(words)


def test_conditions_that_are_known_before_are_split_before():
    config = resolve({"fit": {"split": {"type": "random", "select": 0.1, "unseen": 0.2}}})
    check_conditions(config, LAYOUT, ANGLES)
    with pytest.raises(PdiffError, match=r"^fit\.split: got 2 groups of conditions that are seen, expected at least 3"):
        check_conditions(config, LAYOUT, ANGLES.take(range(5)))
