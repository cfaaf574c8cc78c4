"""The bijection between named tensors and one float32 vector."""

import json

import pytest
import torch

from pdiff.runtime.errors import PdiffError
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.weights.layout import Layout


def finite_patterns(dtype: torch.dtype) -> torch.Tensor:
    """Return every finite value of a 16-bit floating type, both zeros and the subnormal ones included."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    return values[values.isfinite()]


TENSORS = {
    "matrix": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
    "scalar": torch.tensor(-1.5),
    "half": finite_patterns(torch.float16),
    "brain": finite_patterns(torch.bfloat16),
    "counter": torch.tensor([0, 2**24, -(2**24)]),
    "int32": torch.tensor([5, -5], dtype=torch.int32),
    "short": torch.tensor([-(2**15), 2**15 - 1], dtype=torch.int16),
    "byte": torch.tensor([0, 255], dtype=torch.uint8),
    "mask": torch.tensor([[True], [False]]),
    "empty": torch.empty(0, 2),
    "no_counter": torch.empty(0, dtype=torch.int64),
}


def layout_of(*shape: int, dtype: torch.dtype = torch.float32) -> Layout:
    """Return the layout of one tensor called `w`."""
    return Layout.of({"w": torch.zeros(shape, dtype=dtype)})


@pytest.mark.parametrize("name", TENSORS)
def test_unflatten_restores_every_bit(name):
    tensor = TENSORS[name]
    layout = Layout.of({name: tensor})
    found = layout.unflatten(layout.flatten({name: tensor}))[name]
    assert found.dtype == tensor.dtype
    assert found.shape == tensor.shape
    assert torch.equal(found.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_unflatten_restores_every_tensor():
    tensors = {name: tensor for name, tensor in TENSORS.items() if name != "no_counter"}
    layout = Layout.of(tensors)
    found = layout.unflatten(layout.flatten(tensors))
    assert list(found) == list(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_what_shares_its_memory_is_one_tensor():
    tensor = torch.arange(6.0).view(2, 3)
    tensors = {"a": tensor, "b": tensor.T, "c": tensor[:1], "d": tensor.clone(), "e": tensor}
    assert Layout.of(tensors).names == ("a", "c", "d")
    assert Layout.of(tensors, ["e", "d"]).names == ("e", "d")


def test_flatten_restores_every_vector():
    layout = Layout.of({"a": torch.zeros(2, 3), "b": torch.tensor(0.0), "c": torch.zeros(4)})
    vector = torch.randn(layout.size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layout.flatten(layout.unflatten(vector)), vector)


def test_a_layout_keeps_the_order_of_the_names_and_covers_the_vector_without_gap():
    layout = Layout.of({"a": torch.zeros(2, 3), "b": torch.tensor(0.0), "c": torch.zeros(4)}, ["c", "b", "a"])
    assert layout.names == ("c", "b", "a")
    assert [entry.slice for entry in layout] == [slice(0, 4), slice(4, 5), slice(5, 11)]
    assert layout.size == 11


def test_flatten_takes_what_the_layout_names_and_no_gradient():
    layout = Layout.of({"a": torch.zeros(2)})
    vector = layout.flatten({"other": torch.ones(9), "a": torch.ones(2, requires_grad=True)})
    assert torch.equal(vector, torch.ones(2))
    assert not vector.requires_grad


def test_a_network_on_a_gpu_becomes_a_vector_of_the_host_by_one_copy():
    tensors = {
        "weight": torch.randn(3, 2),
        "bn.running_var": torch.rand(3),
        "half": torch.randn(2).half(),
        "mask": torch.tensor([True, False]),
        "counters": torch.tensor([2**24, -3]),
    }
    layout = Layout.of(tensors)
    with simulated_cuda() as gpu:
        away = {name: tensor.cuda() for name, tensor in tensors.items()}
        gpu.reset()
        vector = layout.flatten(away)
        assert vector.device.type == "cpu"
        assert gpu.copies_to_host == gpu.syncs == 1
    assert torch.equal(vector, layout.flatten(tensors))


def test_values_between_integers_become_the_nearest():
    layout = layout_of(4, dtype=torch.int64)
    assert layout.unflatten(torch.tensor([0.4, 0.6, -3.7, 2.0]))["w"].tolist() == [0, 1, -4, 2]


MANY = {**TENSORS, "bn.running_var": torch.tensor([0.5, 2.0])}


@pytest.mark.parametrize("name", MANY)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_many_vectors_become_what_each_of_them_becomes(name, count):
    layout = Layout.of({name: MANY[name]})
    vectors = 40 * torch.randn(count, layout.size, generator=torch.Generator().manual_seed(0))
    found = layout.unflatten_many(vectors)[name]
    assert (found.shape, found.dtype) == ((count, *MANY[name].shape), MANY[name].dtype)
    for own, vector in zip(found, vectors, strict=True):
        expected = layout.unflatten(vector)[name]
        assert torch.equal(own.reshape(-1).view(torch.uint8), expected.reshape(-1).view(torch.uint8))


def test_gradients_pass_to_many_vectors_but_through_integers():
    layout = Layout.of({name: MANY[name] for name in ("matrix", "scalar", "counter", "bn.running_var")})
    vectors = torch.randn(2, layout.size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tensors = layout.unflatten_many(vectors)
    assert not tensors["counter"].requires_grad
    loss = tensors["matrix"].square().sum() + tensors["scalar"].sum() + 3 * tensors["bn.running_var"][0].sum()
    loss.backward()
    own = {entry.name: vectors.grad[:, entry.slice] for entry in layout}
    assert torch.equal(own["matrix"], 2 * tensors["matrix"].detach().flatten(1))
    assert torch.equal(own["scalar"], torch.ones(2, 1))
    assert not own["counter"].any()
    entry = next(entry for entry in layout if entry.code)
    torch.testing.assert_close(own["bn.running_var"][0], 3 * vectors[0, entry.slice].detach().exp())
    assert not own["bn.running_var"][1].any()


@pytest.mark.parametrize("shape", [(2,), (3, 1), (3, 3), (3, 2, 1), ()])
def test_vectors_of_another_length_are_refused(shape):
    with pytest.raises(PdiffError, match=r"^vectors: got shape \(.*\), expected \(n, 2\)\. Give vectors\.$"):
        layout_of(2).unflatten_many(torch.zeros(shape))


@pytest.mark.parametrize(
    ("dtype", "nearest"), [(torch.bool, [False, False, True, True]), (torch.uint8, [0, 0, 1, 255])]
)
def test_values_beyond_a_narrow_type_become_the_nearest_it_can_hold(dtype, nearest):
    values = torch.tensor([-1.7, 0.3, 0.7, 300.0])
    assert layout_of(4, dtype=dtype).unflatten(values)["w"].tolist() == nearest


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_values_beyond_a_wide_type_keep_their_sign(dtype):
    limits = torch.iinfo(dtype)
    values = torch.tensor([-1e19, -3.7, 2.0**31, 1e19])
    middle = min(2**31, limits.max)
    assert layout_of(4, dtype=dtype).unflatten(values)["w"].tolist() == [limits.min, -4, middle, limits.max]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
def test_a_dtype_that_float32_cannot_hold_is_refused_by_name(dtype):
    with pytest.raises(PdiffError, match=rf"^w: got dtype {dtype}, which float32 cannot hold .* Cast the network"):
        layout_of(2, dtype=dtype)


def test_a_name_that_the_network_lacks_is_refused():
    with pytest.raises(PdiffError, match=r"^selection: got 'absent', which the network does not have"):
        Layout.of({"w": torch.zeros(1)}, ["absent"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_left_to_the_gate(value):
    torch.testing.assert_close(
        layout_of(2).flatten({"w": torch.tensor([0.0, value])}), torch.tensor([0.0, value]), equal_nan=True
    )


@pytest.mark.parametrize("value", [1e300, 0.1])
def test_a_double_is_refused_by_file_and_name(value):
    with pytest.raises(PdiffError, match=r"^epoch_3\.pth: 'w' is torch.float64, which float32 cannot hold exactly"):
        layout_of(1).flatten({"w": torch.tensor([value], dtype=torch.float64)}, "epoch_3.pth")


def test_a_missing_tensor_is_refused_by_file_and_name():
    with pytest.raises(PdiffError, match=r"^epoch_3\.pth: lacks 'w'\. Check the file, the prefix and the selector\.$"):
        layout_of(2).flatten({"v": torch.zeros(2)}, "epoch_3.pth")


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1), ()])
def test_a_tensor_of_another_shape_is_refused_by_file_and_name(shape):
    with pytest.raises(PdiffError, match=r"^epoch_3\.pth: 'w' has shape \(.*\), expected \(2,\)\. All checkpoints"):
        layout_of(2).flatten({"w": torch.zeros(shape)}, "epoch_3.pth")


@pytest.mark.parametrize("value", [2**24 + 1, -(2**24) - 1, 2**62, torch.iinfo(torch.int64).min])
def test_integers_that_float32_cannot_hold_are_refused_by_name(value):
    with pytest.raises(PdiffError, match=r"^epoch_3\.pth: 'w' holds integers above 2\*\*24\. Leave it out"):
        layout_of(1, dtype=torch.int64).flatten({"w": torch.tensor([value])}, "epoch_3.pth")


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 2), ()])
def test_a_vector_of_another_length_is_refused(shape):
    with pytest.raises(PdiffError, match=r"^vector: got shape \(.*\), expected \(2,\), the layout's length\.$"):
        layout_of(2).unflatten(torch.zeros(shape))


def test_a_layout_comes_back_from_json():
    layout = Layout.of(TENSORS)
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


def test_the_fingerprint_is_that_of_equal_layouts_only():
    layouts = [layout_of(2), layout_of(3), layout_of(2, 1), layout_of(2, dtype=torch.float16)]
    layouts.append(Layout.of({"v": torch.zeros(2)}))
    assert len({layout.fingerprint() for layout in layouts}) == len(layouts)
    assert layout_of(2).fingerprint() == layouts[0].fingerprint()
