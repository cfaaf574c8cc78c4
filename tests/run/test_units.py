"""What the hooks inputs and symmetries hand over, and how outputs are compared."""

import math

import pytest
import torch
from torch import nn

from pdiff.run.units import change, check_symmetries, evaluating, few, outputs_of
from pdiff.runtime.errors import PdiffError
from pdiff.weights.layout import Layout
from pdiff.weights.units import Gain, Group, Place, Symmetries

LAYOUT = Layout.of({"weight": torch.empty(4, 6), "bias": torch.empty(4)})
ROWS = torch.arange(4)[:, None]


def group(*places, size=4):
    return Symmetries((Group("weight", size, tuple(Place(*place) for place in places)),))


def test_units_that_are_there_pass():
    check_symmetries("zoo", group(("weight", 0, ROWS), ("bias", 0, ROWS)), LAYOUT)
    twice = Place("weight", 0, ROWS)
    gain = Gain("weight", 4, (twice,), (Place("weight", 1, ROWS),))
    check_symmetries("zoo", Symmetries((), (gain,)), LAYOUT)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "symmetries returned None, expected pdiff.Symmetries. Return"),
        (Symmetries(()), "symmetries returned no group of units, so that there is nothing to bring into a form"),
        (group(("wieght", 0, ROWS)), "a place in 'wieght', which is not selected."),
        (group(("weight", 2, ROWS)), "a place in 'weight', axis 2, expected 0 to 1. Mend the axis."),
        (group(("weight", 0, ROWS[:3])), r"with entries \(3, 1\) of torch.int64, expected int64 \(4, k\): a row"),
        (group(("weight", 0, ROWS.float())), r"with entries \(4, 1\) of torch.float32, expected int64"),
        (group(("weight", 0, ROWS + 1)), "with entries beyond 0 to 3. Mend them."),
        (group(("bias", 0, ROWS), ("bias", 0, ROWS)), "with an entry of axis 0 twice. Name each once."),
        (group(), "symmetries returned for the units of 'weight' no place. Leave the group out."),
        (group(("weight", 0.0, ROWS)), "axis 0.0, expected 0 to 1. Mend the axis."),
        (group(("weight", 0, ROWS.tolist())), "with entries of list, expected torch.Tensor. Mend them."),
        (
            group(("weight", 0, ROWS[:0]), size=0),
            "symmetries returned 0 units of name 'weight', expected a text and at",
        ),
        (
            Symmetries(group().groups[0]),
            r"symmetries returned Group as groups, expected a tuple of pdiff.Group. Return",
        ),
        (Symmetries(("weight",)), "symmetries returned str as groups, expected a tuple of pdiff.Group"),
        (Symmetries((), None), "symmetries returned None as gains, expected a tuple of pdiff.Gain"),
        (Symmetries((Group("weight", 4, ("bias",)),)), "str as places of the units of 'weight', expected a tuple of"),
        (Symmetries((), (Gain("weight", 4, (), None),)), "None as read of the units of 'weight', expected a tuple of"),
    ],
)
def test_units_that_are_not_there_are_one_line(found, words):
    with pytest.raises(PdiffError, match=f"^plugin zoo: .*{words}"):
        check_symmetries("zoo", found, LAYOUT)


def test_few_samples_of_a_batch_are_taken_where_all_its_tensors_have_as_many():
    images, labels = torch.arange(80.0)[:, None], torch.arange(80)
    found = few(({"x": images}, [labels], "tensor"))
    assert torch.equal(found[0]["x"], images[:32])
    assert torch.equal(found[1][0], labels[:32])
    assert found[2] == "tensor"
    unlike = (images, labels[:3])
    assert few(unlike) is unlike, "nobody knows which axis is that of the samples"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1.0, -4.0], [1.0, -4.2], 0.05),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [0.0, 1e-9], math.inf),
        ([math.nan, 2.0], [math.nan, 1.0], 0.5),
        ([math.nan, 2.0], [1.0, 2.0], math.inf),
        ([math.inf, math.nan], [math.inf, math.nan], 0.0),
    ],
)
def test_change_is_relative_to_the_largest_output(before, after, expected):
    pair = ([torch.tensor(values, dtype=torch.float64)] for values in (before, after))
    assert change(*pair) == pytest.approx(expected)


def test_change_of_other_shapes_is_infinite():
    assert change([torch.zeros(2)], [torch.zeros(3)]) == math.inf


def test_outputs_are_the_floating_point_tensors_of_whatever_a_network_gives():
    found = outputs_of({"logits": torch.ones(2), "labels": torch.ones(2, dtype=torch.long), "more": [torch.zeros(3)]})
    assert [tuple(leaf.shape) for leaf in found] == [(2,), (3,)]
    for nothing, words in (("logits", "str"), (torch.zeros(0, 2), "Tensor")):
        with pytest.raises(PdiffError, match=f"the network gives {words} without a tensor of floating-point numbers"):
            outputs_of(nothing)


def test_a_network_goes_back_to_the_mode_of_each_module():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False, False]
