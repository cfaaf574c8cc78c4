"""A condition as a user writes it."""

import pytest
import torch

from pdiff.run.asking import read_condition
from pdiff.runtime.errors import PdiffError
from pdiff.weights.conditions import Conditions

ANGLE = Conditions(["sine", "cosine"], torch.tensor([[0.0, 1.0], [0.6, 0.8]]))
SUBSETS = Conditions([f"class{place}" for place in range(11)], torch.eye(11))
CLASSES = Conditions([f"classes.{name}" for name in ("0", "3", "10", "traffic light", "U.S.", "a=b")], torch.eye(6))
PARTS = Conditions(["size"] + [f"part{place}" for place in range(3)], torch.eye(4))


@pytest.mark.parametrize(
    ("texts", "seen", "condition"),
    [
        (["sine=0.5", "cosine=-1e-1"], ANGLE, {"sine": 0.5, "cosine": -0.1}),
        (["cosine=1", "sine=2"], ANGLE, {"sine": 2.0, "cosine": 1.0}),
        (["class=0,3, 10"], SUBSETS, {f"class{place}": float(place in (0, 3, 10)) for place in range(11)}),
        (["class="], SUBSETS, {f"class{place}": 0.0 for place in range(11)}),
        (["classes=3, 10"], CLASSES, {name: float(name in ("classes.3", "classes.10")) for name in CLASSES.names}),
        (["classes=traffic light,U.S."], CLASSES, {name: float(name[8] in "tU") for name in CLASSES.names}),
        (["classes=a=b"], CLASSES, {name: float("=" in name) for name in CLASSES.names}),
        (["classes="], CLASSES, dict.fromkeys(CLASSES.names, 0.0)),
        (["part=1", "size=0"], PARTS, {"size": 0.0, "part0": 0.0, "part1": 1.0, "part2": 0.0}),
        (["part0=1", "part1=0", "part2=0.5", "size=0"], PARTS, {"size": 0, "part0": 1, "part1": 0, "part2": 0.5}),
    ],
)
def test_condition_is_what_the_texts_say_in_the_order_of_the_names(texts, seen, condition):
    found = read_condition(texts, seen)
    assert found == condition
    assert list(found) == list(seen.names)


@pytest.mark.parametrize(
    ("texts", "seen", "words"),
    [
        (["sine"], ANGLE, "got 'sine', expected KEY=VALUE. Known: cosine, sine."),
        (["sin=1", "cosine=1"], ANGLE, "got the name 'sin'. Did you mean 'sine'? Known: cosine, sine."),
        (["sine=1"], ANGLE, "lacks 'cosine', expected sine, cosine. Give a number for each."),
        (["sine=1", "sine=2", "cosine=1"], ANGLE, "got 'sine' twice. Leave one out."),
        (["sine=high", "cosine=1"], ANGLE, "got 'high' for 'sine', expected a finite number. Mend it."),
        (["sine=nan", "cosine=1"], ANGLE, "got nan for 'sine', expected a finite number. Mend it."),
        (["sine=inf", "cosine=1"], ANGLE, "got inf for 'sine', expected a finite number. Mend it."),
        (["sine=", "cosine=1"], ANGLE, "got '' for 'sine', expected a finite number. Mend it."),
        (["class=3,11"], SUBSETS, "got '11' in class=3,11. Did you mean '1'? Known: 0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9."),
        (["class=3", "class4=1"], SUBSETS, "got 'class4' twice. Leave one out."),
        (["clas=3"], SUBSETS, "got the name 'clas'. Did you mean 'class'? Known: class, class0, "),
        (["classes=4"], CLASSES, "got '4' in classes=4. Known: 0, 10, 3, U.S., a=b, traffic light."),
        (["class=3"], CLASSES, "got the name 'class'. Did you mean 'classes'"),
        (["part=1"], PARTS, "lacks 'size', expected size, part0, part1, part2. Give a number for each."),
        (["=1"], SUBSETS, "got the name ''. Known: class, class0, "),
    ],
)
def test_condition_that_cannot_be_is_one_line(texts, seen, words):
    with pytest.raises(PdiffError) as caught:
        read_condition(texts, seen)
    assert str(caught.value).startswith(f"--condition: {words}")


def test_a_word_for_bits_is_for_bits_alone():
    tilted = Conditions(["class0", "class1"], torch.tensor([[0.5, 1.0]]))
    with pytest.raises(PdiffError, match="got the name 'class'. Did you mean 'class1'"):
        read_condition(["class=1"], tilted)


def test_a_name_with_a_comma_is_given_by_itself():
    seen = Conditions(["classes.cat", "classes.dog, small"], torch.eye(2))
    line = r"A name with a comma \('classes.dog, small'\) cannot be listed: give a number for each name\.$"
    with pytest.raises(PdiffError, match=line):
        read_condition(["classes=dog, small"], seen)
    found = read_condition(["classes.dog, small=1", "classes.cat=0"], seen)
    assert found == {"classes.cat": 0.0, "classes.dog, small": 1.0}
