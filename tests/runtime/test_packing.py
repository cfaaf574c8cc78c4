"""Nested training states as named tensors: everything comes back as it was, and what cannot is refused."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.packing import pack, unpack
from pdiff.runtime.storage import read_tensors, write_tensors
from pdiff.testing.simulated_cuda import simulated_cuda

TENSORS = {
    "number": torch.tensor(0.1),
    "counter": torch.tensor(2**40 + 1),
    "double": torch.tensor([0.1, -0.0, float("inf")], dtype=torch.float64),
    "half": torch.tensor([0.1, 65504.0], dtype=torch.float16),
    "brain": torch.tensor([[0.1], [3e38]], dtype=torch.bfloat16),
    "mask": torch.tensor([True, False]),
    "bytes": torch.arange(256, dtype=torch.uint8),
    "empty": torch.empty(0, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
}
VALUES = [
    None,
    True,
    0,
    -(2**70),
    0.1,
    -0.0,
    float("inf"),
    "",
    'a "text" in {braces}, ü\n',
    [],
    (),
    {},
    [None, (True, [0.5, ()])],
    {"a": {"b": {"c": [1, 2.5, (3,)]}}},
    {0: "integer", "0": "text", True: "bool", (1, 2): "tuple", None: "none", 0.5: "float"},
    {"tensor": 1, "dict": [2], "list": {"tuple": 3}},
]


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor."""
    return tensor.contiguous().view(-1).view(torch.uint8)


def identical(one, other) -> bool:
    """Say whether two nested values are the same, types, orders and bits included."""
    if isinstance(one, Tensor):
        same = isinstance(other, Tensor) and (one.dtype, one.shape) == (other.dtype, other.shape)
        return same and torch.equal(bits(one), bits(other))
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return identical(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    return repr(one) == repr(other)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back_as_they_were(value):
    assert identical(unpack(pack(value)), value)


@pytest.mark.parametrize("name", TENSORS)
def test_every_tensor_comes_back_with_its_bits(name):
    assert identical(unpack(pack(TENSORS[name])), TENSORS[name])


def test_tensors_come_back_at_their_places_in_the_nesting():
    value = {"all": TENSORS, 3: [TENSORS["number"], (TENSORS["half"], {"deep": TENSORS["empty"]})]}
    assert identical(unpack(pack(value)), value)


def test_scalars_of_numpy_come_back_as_plain_numbers():
    packed = pack([np.float64(0.1), np.float32(0.5), np.int64(-3), np.bool_(True), np.str_("a")])
    assert identical(unpack(packed), [0.1, 0.5, -3, True, "a"])


def test_state_of_an_optimizer_comes_back():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.8, 0.9))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    assert identical(unpack(pack(state)), state)


def test_what_is_packed_is_tensors_that_a_file_keeps(tmp_path):
    value = {"all": TENSORS, 3: [None, (1, "ü")]}
    packed = pack(value)
    assert all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in packed.items())
    write_tensors(tmp_path / "state.safetensors", packed)
    assert identical(unpack(read_tensors(tmp_path / "state.safetensors")), value)


def test_more_than_ten_tensors_come_back_in_their_order(tmp_path):
    value = [torch.tensor(number) for number in range(25)]
    write_tensors(tmp_path / "state.safetensors", pack(value))
    assert identical(unpack(read_tensors(tmp_path / "state.safetensors")), value)


def test_what_is_packed_does_not_follow_the_training():
    weight = nn.Parameter(torch.zeros(3))
    packed = pack({"weight": weight})
    with torch.no_grad():
        weight += 1
    assert identical(unpack(packed), {"weight": torch.zeros(3)})
    assert not any(tensor.requires_grad for tensor in packed.values())


def test_what_is_unpacked_can_be_changed_without_changing_what_is_packed():
    packed = pack([torch.zeros(3)])
    unpack(packed)[0].add_(1)
    assert identical(unpack(packed), [torch.zeros(3)])


def test_what_lies_on_a_gpu_is_packed_by_one_copy_to_the_same_tensors():
    value = {"all": TENSORS, 3: [TENSORS["number"], (TENSORS["half"], {"deep": TENSORS["empty"]})]}
    with simulated_cuda() as gpu:
        away = {**value, "all": {name: tensor.cuda() for name, tensor in TENSORS.items()}}
        gpu.reset()
        packed = pack(away)
        assert gpu.copies_to_host == gpu.syncs == 1
        assert identical(packed, pack(value))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"a": [object()]}, "object"),
        ([np.zeros(3)], "ndarray"),
        (lambda: 0, "function"),
        ({frozenset(): 1}, "frozenset"),
        (b"bytes", "bytes"),
    ],
    ids=["object", "array", "function", "key", "bytes"],
)
def test_anything_else_is_refused_by_the_name_of_its_class(value, kind):
    with pytest.raises(PdiffError) as caught:
        pack(value)
    line = f"collect: a training state holds a {kind}, which cannot be kept for --resume."
    assert str(caught.value) == line


def test_a_dict_of_another_class_comes_back_as_a_plain_one_in_its_order():
    assert identical(unpack(pack(OrderedDict(b=1, a=torch.zeros(1)))), {"b": 1, "a": torch.zeros(1)})


def test_a_tuple_of_another_class_comes_back_as_a_plain_one():
    assert identical(unpack(pack({"shape": torch.Size([2, 3])})), {"shape": (2, 3)})
