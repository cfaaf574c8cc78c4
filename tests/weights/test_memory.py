"""Which tensors are the same memory, and which share a part of it."""

import pytest
import torch
from torch import nn

from pdiff.weights.memory import is_dense, memory_of, share, viewed

WHOLE = torch.arange(24.0).view(2, 3, 4)
FORMS = {
    "itself": WHOLE,
    "parameter": nn.Parameter(WHOLE),
    "transposed": WHOLE.transpose(0, 2),
    "permuted": WHOLE.permute(1, 2, 0),
    "flat": WHOLE.flatten(),
    "longer": WHOLE.view(4, 1, 6, 1),
    "transposed of another shape": WHOLE.view(4, 6).T,
}
PARTS = {
    "first rows": WHOLE[:1],
    "columns": WHOLE[..., :2],
    "other columns": WHOLE[..., 2:],
    "every second": WHOLE.flatten()[::2],
    "expanded": WHOLE.flatten()[:3].expand(2, 3),
    "bits": WHOLE.view(torch.int32),
}


@pytest.mark.parametrize("name", FORMS)
def test_views_of_all_values_are_the_same_memory(name):
    assert memory_of(FORMS[name]) == memory_of(WHOLE)


@pytest.mark.parametrize("name", PARTS)
def test_views_of_a_part_are_other_memory_and_equal_views_the_same(name):
    assert memory_of(PARTS[name]) != memory_of(WHOLE)
    assert memory_of(PARTS[name]) == memory_of(PARTS[name].detach())


@pytest.mark.parametrize("make", [lambda: torch.empty(3, device="meta"), lambda: torch.empty(0, 3)])
def test_tensors_without_memory_are_the_same_only_if_they_are_one_object(make):
    one, other = make(), make()
    assert memory_of(one) == memory_of(one) != memory_of(other)


@pytest.mark.parametrize("tensor", [torch.eye(2).to_sparse(), nn.LazyLinear(2).weight], ids=["sparse", "lazy"])
def test_tensors_whose_memory_cannot_be_told_are_one_object_each(tensor):
    assert memory_of(tensor) == memory_of(tensor)


@pytest.mark.parametrize("of", FORMS)
@pytest.mark.parametrize("like", FORMS)
def test_values_in_one_form_become_those_of_another(of, like):
    values = torch.arange(24.0) + 100
    given, wanted = (torch.empty(24).as_strided(FORMS[n].shape, FORMS[n].stride()) for n in (of, like))
    for tensor in (given, wanted):
        tensor.copy_(values.as_strided(tensor.shape, tensor.stride()))
    assert torch.equal(viewed(given.contiguous(), FORMS[of], FORMS[like]), wanted)


def test_values_of_another_shape_stay_as_they_are():
    values = torch.zeros(5)
    assert viewed(values, WHOLE, WHOLE.T if WHOLE.ndim == 2 else WHOLE.permute(2, 1, 0)) is values


@pytest.mark.parametrize(
    ("name", "dense"), [*dict.fromkeys(FORMS, True).items(), ("columns", False), ("expanded", False)]
)
def test_dense_is_what_fills_its_memory(name, dense):
    assert is_dense({**FORMS, **PARTS}[name]) is dense


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (WHOLE, PARTS["columns"], True),
        (PARTS["columns"], PARTS["other columns"], False),
        (PARTS["every second"], PARTS["other columns"], True),
        (WHOLE[0], WHOLE[1], False),
        (WHOLE[1], WHOLE[0], False),
        (WHOLE.flatten()[::2], WHOLE.flatten()[1::2], False),
        (PARTS["bits"], WHOLE[1], True),
    ],
)
def test_tensors_share_where_a_value_of_each_lies_in_one_place(one, other, shared):
    assert share(one, other) is shared


@pytest.mark.parametrize(("name", "shared"), [("expanded", True), ("columns", False), ("first rows", False)])
def test_an_expanded_tensor_shares_with_itself(name, shared):
    assert share(PARTS[name], PARTS[name]) is shared
