"""Replay yields, bit for bit, what each candidate yields alone on a fresh copy of network and batch."""

import copy
import ctypes
import subprocess
import sys
import weakref
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten
from torch.utils.checkpoint import checkpoint

from pdiff.runtime.errors import PdiffError
from pdiff.task.defaults import LoadParams
from pdiff.task.replay import Prefix, Replay
from pdiff.task.task import Candidates
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.weights.layout import Layout
from pdiff.weights.select import select

CANDIDATES = 4
NETWORKS = 3  # that are trained side by side
Pair = namedtuple("Pair", "left right")


class Network(nn.Module):
    """Named children, and a function of network and batch as the forward pass."""

    def __init__(self, body, children):
        super().__init__()
        self.body = body
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x):
        return self.body(self, x)


class Frozen(nn.Module):
    """A linear layer, and what happens to its input and output inside the same module."""

    def __init__(self, after=lambda y, *args: y, before=lambda x, *args: x):
        super().__init__()
        self.linear = linear()
        self.before = before
        self.after = after

    def forward(self, x, *args):
        return self.after(self.linear(self.before(x, *args)), *args)


class Unseen(nn.Linear):
    """Scales by a number that it reads from its weight's memory, as a compiled kernel does: torch sees no operation."""

    def forward(self, x):
        return x * ctypes.cast(self.weight.data_ptr(), ctypes.POINTER(ctypes.c_float))[0]


class Weight(nn.Module):
    """Hands out its own weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self):
        return self.weight


def linear():
    return nn.Linear(8, 8)


def relu():
    return nn.ReLU(inplace=True)


def matrix():
    return torch.randn(4, 8)


def image():
    return torch.randn(2, 3, 8, 8)


def tokens():
    return torch.randn(2, 5, 8)


def chain(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


@dataclass
class Case:
    """A network, what is selected in it, and what it is fed with."""

    body: object
    batch: object
    select: str
    children: dict

    def network(self, seed=0):
        torch.manual_seed(seed)
        return Network(self.body, {name: make() for name, make in self.children.items()}).eval()

    def names(self, network):
        return [name for name in network.state_dict() if name.startswith(tuple(self.select.split()))]


CASES: dict[str, Case] = {}


def case(batch=matrix, select="sel", **children):
    def add(body):
        CASES[body.__name__] = Case(body, batch, select, children)
        return body

    return add


def candidates_for(network, names, count=CANDIDATES):
    state = network.state_dict()
    layout = Layout.of(state, names)
    noise = torch.randn(count, layout.size, generator=torch.Generator().manual_seed(1))
    return Candidates((layout.flatten(state) + noise * 0.3).abs(), layout, LoadParams().load_params)


def alone(network, candidates, batch, index, forward=None):
    network = copy.deepcopy(network)
    candidates.load(network, index)
    with torch.no_grad():
        return (forward or (lambda network, batch: network(batch)))(network, copy.deepcopy(batch))


def bits(tensor):
    return tensor.to_dense().contiguous().reshape(-1).view(torch.uint8)


def same_value(first, second):
    if not isinstance(first, Tensor):
        return first == second
    alike = (first.dtype, first.shape, first.layout) == (second.dtype, second.shape, second.layout)
    return alike and torch.equal(bits(first), bits(second))


def same(first, second):
    (firsts, structure), (seconds, other) = tree_flatten(first), tree_flatten(second)
    return structure == other and all(map(same_value, firsts, seconds))


def spoil(result):
    for tensor in tree_flatten(result)[0]:
        if isinstance(tensor, Tensor):
            tensor.fill_(77)


def check(network, names, batches, forward=None):
    """Assert that Replay equals evaluating alone, whatever the caller does to the results, and changes nothing."""
    candidates = candidates_for(network, names)
    expected = [[alone(network, candidates, batch, i, forward) for i in range(CANDIDATES)] for batch in batches]
    assert not same(expected[0][0], expected[0][1]), "the candidates of this case do not differ"
    untouched = copy.deepcopy((network.state_dict(), batches))
    replay = Replay(network, candidates, forward and (lambda batch: forward(network, batch)))
    for batch, results in zip(batches, expected, strict=True):
        held = list(replay(batch))
        assert all(same(result, wanted) for result, wanted in zip(held, results, strict=True)), "collected"
        for result, wanted in zip(held, results, strict=True):
            assert same(result, wanted), "results share memory"
            spoil(result)
        for result, wanted in zip(replay(batch), results, strict=True):
            assert same(result, wanted), "results spoilt by the caller"
            spoil(result)
    assert same(batches, untouched[1])
    state = network.state_dict()
    selected = {state[name].data_ptr() for name in names}
    assert all(same(state[n], value) for n, value in untouched[0].items() if state[n].data_ptr() not in selected)


# In-place operations


@case(frozen=linear, act=relu, sel=linear)
def in_place_activation_module(net, x):
    return net.sel(net.act(net.frozen(x)))


@case(frozen=linear, act=relu, sel=linear)
def in_place_activation_module_whose_result_is_ignored(net, x):
    y = net.frozen(x)
    net.act(y)
    return net.sel(y)


@case(frozen=linear, act=relu, sel=linear)
def in_place_activation_of_a_value_computed_by_running_code(net, x):
    y = net.frozen(x) + x
    net.act(y)
    return net.sel(y)


@case(frozen=linear, sel=linear)
def functional_in_place_activation(net, x):
    return net.sel(F.relu_(net.frozen(x)))


@case(first=linear, second=linear, sel=linear)
def in_place_addition_between_frozen_modules(net, x):
    y = net.first(x)
    y.add_(1)
    y = net.second(y)
    y.add_(1)
    return net.sel(y) + y


@case(frozen=linear, sel=linear)
def in_place_operation_after_the_selected_module(net, x):
    y = net.frozen(x)
    z = net.sel(y)
    y.mul_(z)
    return y


@case(frozen=linear, sel=linear)
def out_argument(net, x):
    y = net.frozen(x)
    z = net.sel(y)
    return torch.add(z, y, out=y) * 1


@case(frozen=linear, sel=linear)
def item_assignment(net, x):
    y = net.frozen(x)
    y[1:, :2] = net.sel(y)[1:, :2]
    return y


@case(frozen=linear, other=linear, sel=linear)
def in_place_operation_on_a_list_of_tensors(net, x):
    y, z = net.frozen(x), net.other(x)
    torch._foreach_add_([y, z], 1)
    return net.sel(y) + z


@case(frozen=linear, sel=linear)
def write_through_data(net, x):
    y = net.frozen(x)
    y.data.add_(1)
    return net.sel(y)


@case(frozen=linear, sel=linear)
def write_through_a_view(net, x):
    y = net.frozen(x)
    y.view(2, 2, 8)[0].add_(1)
    return net.sel(y) + y


@case(frozen=linear, sel=linear)
def change_of_shape_in_place(net, x):
    return net.sel(net.frozen(x).unsqueeze_(0).transpose_(1, 2).contiguous().view(4, 8))


@case(frozen=linear, act=relu, last=linear, sel=linear)
def value_read_before_and_after_a_frozen_in_place_module(net, x):
    y = net.frozen(x)
    s = y * 2
    net.act(y)
    return net.sel(net.last(y)) + s + y


@case(frozen=linear, act=relu, sel=linear)
def value_written_before_and_read_after_a_frozen_in_place_module(net, x):
    y = net.frozen(x)
    y += 1
    net.act(y)
    return net.sel(y)


@case(frozen=linear, act=relu, sel=linear)
def two_names_of_one_tensor_written_through_one(net, x):
    y = net.frozen(x)
    z = net.act(y)
    y += 1
    return net.sel(z) + y


@case(frozen=lambda: Frozen(before=lambda x: x.mul_(2)), sel=linear)
def frozen_module_that_writes_into_the_batch(net, x):
    return net.sel(net.frozen(x)) + x


@case(frozen=linear, sel=linear)
def network_that_writes_into_the_batch(net, x):
    y = net.frozen(x)
    x.mul_(2)
    return net.sel(y) + x


@case(first=linear, frozen=lambda: Frozen(before=lambda x: x.data.mul_(2)), sel=linear)
def frozen_module_that_writes_through_data(net, x):
    y = net.first(x)
    z = y * 1
    w = net.frozen(y)
    return net.sel(w) + y + z


# Residuals and aliases


@case(frozen=linear, sel=linear)
def residual_addition(net, x):
    y = net.frozen(x)
    x = x + y
    return x + net.sel(x)


@case(frozen=linear, sel=linear)
def in_place_residual_on_a_remembered_tensor(net, x):
    shortcut = net.frozen(x)
    y = net.sel(shortcut)
    shortcut += y
    return shortcut


@case(frozen=linear, identity=nn.Identity, sel=linear)
def shortcut_through_an_identity(net, x):
    y = net.frozen(x)
    shortcut = net.identity(y)
    y += 1
    return net.sel(y) + shortcut


@case(identity=nn.Identity, sel=linear)
def identity_of_the_batch(net, x):
    y = net.identity(x)
    x += 1
    return net.sel(y)


@case(flatten=nn.Flatten, frozen=linear, sel=linear)
def flattened_batch(net, x):
    y = net.flatten(x)
    y += 1
    return net.sel(net.frozen(x)) + y


@case(frozen=linear, identity=nn.Identity, sel=linear)
def identity_of_a_value_computed_by_running_code(net, x):
    v = net.frozen(x) * 2
    w = net.identity(v)
    v += 1
    return net.sel(w) + v


@case(frozen=lambda: Frozen(lambda y: (y, y[:, :4])), sel=linear)
def outputs_that_overlap(net, x):
    whole, half = net.frozen(x)
    half += 1
    return net.sel(whole) + half.sum()


@case(frozen=lambda: Frozen(lambda y: y.chunk(2)), sel=linear)
def outputs_that_share_a_storage(net, x):
    left, right = net.frozen(x)
    left += right
    return net.sel(left) + right


@case(frozen=linear, sel=linear)
def views_and_slices_of_a_remembered_output(net, x):
    y = net.frozen(x)
    a, b = y[:2], y[2:].view(-1)
    y = net.sel(a)
    a -= y
    return a, b.view(2, 8), a.t()


@case(frozen=lambda: Frozen(lambda y: y.t()), sel=linear)
def transposed_output(net, x):
    y = net.frozen(x)
    y += 1
    return net.sel(y.t()) + y.t()


@case(frozen=lambda: Frozen(lambda y: y[:, ::2]), sel=lambda: nn.Linear(4, 4))
def output_with_gaps(net, x):
    y = net.frozen(x)
    y += 1
    return net.sel(y), torch.tensor(y.stride()), y


@case(frozen=lambda: Frozen(lambda y: y[:1].expand(4, 8)), sel=linear)
def expanded_output(net, x):
    y = net.frozen(x)
    y[0].add_(1)
    return net.sel(y) + y


@case(frozen=lambda: Frozen(lambda y: torch.view_as_complex(y.view(4, 4, 2)).conj()), sel=linear)
def conjugated_output(net, x):
    y = net.frozen(x)
    y += 1
    return net.sel(torch.view_as_real(y.resolve_conj()).view(4, 8))


@case(batch=lambda: torch.randn(8).expand(4, 8), frozen=linear, sel=linear)
def expanded_batch(net, x):
    return net.sel(net.frozen(x)) + x


@case(batch=lambda: torch.randn(8, 16)[2:6, ::2], frozen=linear, sel=linear)
def batch_with_gaps(net, x):
    x[0].add_(1)
    return net.sel(net.frozen(x)) + x


@case(frozen=linear, sel=linear)
def many_temporary_tensors_of_one_size(net, x):
    for _ in range(5):
        x = net.frozen(x)
        x = (x + 1) * 2
        x = net.frozen(x).add_(1)
    return net.sel(x)


# What is selected


@case(sel=linear, frozen=linear)
def selected_first_layer(net, x):
    return net.frozen(net.sel(x))


@case(frozen=linear, sel=linear)
def shared_module_called_twice(net, x):
    x = net.frozen(net.frozen(x))
    return net.frozen(net.sel(x))


@case(frozen=linear, sel=linear)
def selected_module_called_before_and_after_a_frozen_one(net, x):
    return net.sel(net.frozen(net.sel(net.frozen(x))))


def tied(net, x):
    return net.tied(net.middle(net.sel(x)))


@case(
    batch=image,
    select="bn.running_mean bn.running_var",
    conv=lambda: nn.Conv2d(3, 4, 3),
    bn=lambda: nn.BatchNorm2d(4),
    last=lambda: nn.Conv2d(4, 2, 3),
)
def selected_buffers(net, x):
    return net.last(net.bn(net.conv(x)))


@case(
    batch=tokens,
    select="mha.out_proj",
    frozen=linear,
    mha=lambda: nn.MultiheadAttention(8, 2, batch_first=True),
    last=linear,
)
def selected_output_projection_of_attention(net, x):
    y = net.frozen(x)
    return net.last(net.mha(y, y, y)[0])


@case(select="child.weight", frozen=linear, child=linear, last=linear)
def selected_parameter_used_by_the_parent(net, x):
    return net.last(F.linear(net.frozen(x), net.child.weight))


@case(batch=tokens, select="position", frozen=linear, position=lambda: nn.Parameter(torch.randn(1, 5, 8)), last=linear)
def selected_parameter_of_the_root(net, x):
    return net.last(net.frozen(x) + net.position)


@case(select="table", frozen=lambda: Frozen(lambda y, weight: y @ weight), table=lambda: nn.Embedding(8, 8))
def selected_parameter_handed_to_a_frozen_module(net, x):
    return net.frozen(x, net.table.weight)


@case(sel=Weight, drop=nn.Dropout, frozen=linear)
def selected_parameter_that_a_frozen_module_hands_through(net, x):
    weight = net.drop(net.sel())
    y = net.frozen(x)
    return y @ weight


@case(sel=linear, frozen=lambda: Frozen(lambda y, module: y @ module[0].weight))
def selected_module_handed_to_a_frozen_module(net, x):
    return net.frozen(x, [net.sel])


@case(frozen=linear, sel=linear)
def selected_tensor_read_as_a_number(net, x):
    scale = net.sel.weight[0, 0].item()
    return net.frozen(x) * scale


# What a frozen module returns, takes, and does besides


@case(frozen=lambda: Frozen(lambda y: (y, y + 1)), sel=linear)
def tuple_of_outputs(net, x):
    y, z = net.frozen(x)
    return net.sel(z) + y


@case(frozen=lambda: Frozen(lambda y: [y, [y * 2], 3, None]), sel=linear)
def list_of_outputs(net, x):
    outputs = net.frozen(x)
    outputs.append(net.sel(outputs[1][0]))
    return outputs


@case(frozen=lambda: Frozen(lambda y: {"y": y, "shape": y.shape}), sel=linear)
def dict_of_outputs(net, x):
    outputs = net.frozen(x)
    outputs["y"] = net.sel(outputs["y"]) + outputs["shape"][0]
    return outputs["y"]


@case(frozen=lambda: Frozen(lambda y: Pair(y, y.max(1))), sel=linear)
def named_tuples_of_outputs(net, x):
    outputs = net.frozen(x)
    return net.sel(outputs.left) + outputs.right.values[:, None], outputs.right.indices


@case(frozen=lambda: Frozen(lambda y: SimpleNamespace(y=y)), last=linear, sel=linear)
def opaque_output(net, x):
    state = net.frozen(x)
    state.y = net.last(state.y) + net.sel(state.y)
    return state.y


@case(frozen=lambda: Frozen(lambda y, states: (states.append(y), y)[1]), sel=linear)
def list_that_a_frozen_module_fills(net, x):
    states = []
    y = net.frozen(net.frozen(x, states), states)
    return net.sel(y) + states[0] + len(states)


@case(frozen=lambda: Frozen(lambda y, state: setattr(state, "y", y) or y), sel=linear)
def object_that_a_frozen_module_changes(net, x):
    state = SimpleNamespace(y=None)
    return net.sel(net.frozen(x, state)) + state.y


@case(frozen=lambda: Frozen(lambda y: (y > 0, y.argmax(1), y.to(torch.float64))), sel=linear)
def integer_boolean_and_double_outputs(net, x):
    mask, index, double = net.frozen(x)
    index += 1
    return net.sel(mask.float())[:, index % 8], double


@case(frozen=lambda: Frozen(lambda y: (y[:0], y, y.new_zeros(0, 3))), sel=linear)
def empty_outputs(net, x):
    none, y, nothing = net.frozen(x)
    return net.sel(torch.cat([none, y])), nothing.sum(), none.add_(1)


@case(frozen=lambda: Frozen(lambda y: y.relu().to_sparse()), sel=linear)
def sparse_output(net, x):
    return torch.sparse.mm(net.frozen(x), net.sel.weight)


@case(batch=lambda: torch.eye(8).to_sparse(), frozen=linear, sel=linear)
def sparse_batch(net, x):
    return net.sel(net.frozen(torch.sparse.mm(x, net.frozen.weight)))


@case(frozen=lambda: Frozen(lambda y: torch.nested.nested_tensor([y[:1], y[1:]], layout=torch.jagged)), sel=linear)
def nested_output(net, x):
    return torch.cat(net.sel(net.frozen(x)).unbind())


class Cached(nn.Module):
    """Computes a table once, and hands out the same tensor ever after."""

    def __init__(self):
        super().__init__()
        self.table = None

    def forward(self):
        if self.table is None:
            self.table = torch.arange(8.0)
        return self.table


@case(frozen=linear, table=Cached, sel=linear)
def cached_output(net, x):
    return net.sel(net.frozen(x) + net.table()) + net.table()


@case(frozen=linear, table=lambda: nn.Buffer(torch.randn(4, 8)), identity=nn.Identity, sel=linear)
def output_that_is_a_frozen_buffer(net, x):
    return net.sel(net.frozen(x) + net.identity(net.table)), net.identity(net.table) * 1


@case(frozen=lambda: Frozen(torch.inference_mode()(lambda y: y * 2)), sel=linear)
def output_of_inference_mode(net, x):
    with torch.inference_mode():
        y = net.frozen(x)
        z = net.sel(y)
        y += z
    return y.clone()


@case(frozen=lambda: Frozen(torch.enable_grad()(torch.func.grad(lambda t: (t**3).sum()))), sel=linear)
def gradient_inside_a_frozen_module(net, x):
    return net.sel(net.frozen(x))


@case(frozen=lambda: Frozen(lambda y: (y**3).sum(1)), sel=linear)
def gradient_across_a_frozen_module(net, x):
    with torch.enable_grad():
        x = x.requires_grad_()
        (force,) = torch.autograd.grad(net.frozen(x).sum(), x)
    return net.sel(force)


@case(frozen=linear, sel=linear)
def frozen_output_that_is_a_result(net, x):
    y = net.frozen(x)
    return {"features": y, "logits": net.sel(x)}


@case(frozen=linear, sel=linear)
def read_frozen_output_that_is_a_result(net, x):
    y = net.frozen(x)
    return {"features": y, "part": y[1:], "logits": net.sel(y), "input": x}


@case(frozen=linear, sel=linear)
def numpy_between_the_modules(net, x):
    y = net.frozen(x)
    return net.sel(torch.from_numpy(y.numpy() + 1)) + sum(y.tolist()[0])


@case(frozen=linear, sel=linear)
def list_of_numbers_between_the_modules(net, x):
    return net.sel(x) + sum(net.frozen(x).tolist()[0])


# Control flow


@case(first=linear, second=linear, sel=linear)
def output_that_only_some_candidates_touch(net, x):
    y, z = net.first(x), net.second(x)
    logits = net.sel(z)
    return logits + y if logits.sum().item() % 2 > 1 else logits * 2


@case(first=linear, second=linear, sel=linear)
def output_that_only_some_candidates_return(net, x):
    y, z = net.first(x), net.second(x)
    logits = net.sel(z)
    return [[logits, y], [logits, z[1:]], [logits], [logits, z.view(-1)]][int(logits.sum().item() * 1e3) % 4]


@case(first=linear, second=linear, sel=linear)
def output_that_only_some_candidates_write_into(net, x):
    y, z = net.first(x), net.second(x)
    s = y * 1
    logits = net.sel(z + s)
    if int(logits.sum().item() * 1e3) % 2:
        y += 1
        x += 1
    return logits + y + x


@case(first=linear, second=linear, sel=linear)
def output_that_only_some_candidates_write_into_and_return(net, x):
    y = net.first(x)
    logits = net.sel(net.second(x) + y)
    return logits, y.add_(1) if int(logits.sum().item() * 1e3) % 2 else y * 1


@case(first=linear, second=linear, sel=linear)
def write_into_the_batch_before_an_untouched_output_is_met(net, x):
    y, z = net.first(x), net.second(x)
    logits = net.sel(z)
    if int(logits.sum().item() * 1e3) % 2:
        x += 1
        return logits + x + y
    return logits + x


@case(frozen=linear, act=relu, sel=linear)
def frozen_modules_called_a_different_number_of_times(net, x):
    y = net.frozen(net.frozen(x))
    logits = net.sel(y)
    for _ in range(int(logits.sum().item() * 1e3) % 4):
        logits = net.act(net.frozen(logits))
    return logits


class Stop(Exception):
    pass


def stop(y, stops):
    if stops:
        raise Stop
    return y


@case(frozen=lambda: Frozen(stop), sel=linear)
def exception_as_control_flow(net, x):
    y = net.frozen(x, False)
    try:
        y = net.frozen(y, True)
    except Stop:
        y = net.frozen(y * 2, False)
    return net.sel(y)


@case(first=linear, second=linear, sel=linear)
def network_that_catches_every_exception(net, x):
    y, z = net.first(x), net.second(x)
    logits = net.sel(z)
    try:
        return logits + y if logits.sum().item() % 2 > 1 else logits
    except Exception:
        return x


# Batches and contexts


@case(batch=lambda: {"x": matrix(), "mask": torch.rand(4, 8) > 0.5, "id": 3}, frozen=linear, sel=linear)
def dict_batch(net, batch):
    y = net.frozen(batch["x"])
    y[batch["mask"]] = batch["id"]
    batch["mask"] &= False
    batch["x"] = net.sel(y)
    return batch


@case(batch=lambda: [matrix(), (matrix(), "name")], frozen=linear, sel=linear)
def list_batch(net, batch):
    x, (y, _name) = batch
    batch.clear()
    return net.sel(net.frozen(x) + net.frozen(y))


@case(frozen=chain(linear, relu, linear), sel=linear)
def checkpointed_modules(net, x):
    y = checkpoint(net.frozen, x, use_reentrant=False)
    return checkpoint(net.sel, y, use_reentrant=False)


@case(frozen=chain(linear, relu, linear), sel=linear)
def autocast_inside_the_network(net, x):
    with torch.autocast("cpu", torch.bfloat16):
        return net.sel(net.frozen(x)) + net.sel(x)


@case(batch=tokens, frozen=linear, sel=lambda: nn.LSTM(8, 8, batch_first=True), last=linear)
def selected_lstm(net, x):
    return net.last(net.sel(net.frozen(x))[0])


@case(batch=tokens, frozen=lambda: nn.LSTM(8, 8, num_layers=2, batch_first=True), sel=linear)
def frozen_lstm(net, x):
    y, (h, _c) = net.frozen(x)
    return net.sel(y) + h.sum()


@case(batch=tokens, frozen=lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), sel=linear)
def frozen_transformer_layer(net, x):
    return net.sel(net.frozen(x))


@case(
    batch=tokens,
    select="layer.norm2",
    frozen=linear,
    layer=lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
)
def selected_norm_of_a_transformer_layer(net, x):
    return net.layer(net.frozen(x))


@case(
    batch=tokens,
    select="encoder.layers.1.norm2",
    frozen=linear,
    encoder=lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
    ),
)
def selected_norm_of_a_transformer(net, x):
    return net.encoder(net.frozen(x), src_key_padding_mask=torch.arange(5).expand(2, 5) > 3)


@case(
    batch=image,
    conv=lambda: nn.Conv2d(3, 4, 3),
    bn=lambda: nn.BatchNorm2d(4),
    act=relu,
    sel=lambda: nn.Conv2d(4, 2, 3),
)
def batch_norm_and_in_place_activation(net, x):
    y = net.bn(net.conv(x))
    s = y * 2
    net.act(y)
    return net.sel(y) + s[:, :2, 2:, 2:]


@case(batch=matrix, first=linear, sel=lambda: Unseen(8, 8), frozen=linear, last=linear)
def selected_weight_that_is_read_by_its_address(net, x):
    return net.last(net.frozen(net.sel(net.first(x))))


@pytest.mark.parametrize("name", CASES)
def test_results_equal_those_of_each_candidate_alone(name):
    network, names = CASES[name].network(), CASES[name].names(CASES[name].network())
    check(network, names, [CASES[name].batch() for _ in range(2)])


def test_tied_weights_count_under_every_name():
    network = Case(tied, matrix, "sel", {"sel": linear, "middle": linear, "tied": linear}).network()
    network.tied.weight = network.sel.weight
    for names in (["sel.weight"], ["tied.weight"]):
        check(network, names, [matrix(), matrix()])


@pytest.mark.parametrize("names", [["sel.weight"], ["tied.weight"]])
@pytest.mark.parametrize("turned", [False, True])
def test_weights_of_one_memory_count_under_every_name(names, turned):
    network = Case(tied, matrix, "sel", {"sel": linear, "middle": linear, "tied": linear}).network()
    weight = network.sel.weight.data
    network.tied.weight = nn.Parameter(weight.T if turned else weight)
    candidates, batch = candidates_for(network, names), matrix()
    for index, result in enumerate(Replay(network, candidates)(batch)):
        candidates.load(network, index)  # no copy of the network would keep this tie
        assert same(result, network(batch).detach())


def test_a_layer_that_is_used_twice_is_selected_in_both_places():
    network = Case(tied, matrix, "sel", {"sel": linear, "middle": linear, "tied": linear}).network()
    network.tied = network.middle
    for names in (["sel.weight"], ["middle.weight"], ["tied.bias"]):
        check(network, names, [matrix(), matrix()])


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # deprecated, but networks hold such modules
def test_scripted_modules_are_handed_back_and_rerun():
    def body(net, x):
        y = net.frozen(x) + 1
        return net.sel(net.act(y)) + net.frozen(y)

    children = {name: lambda make=make: torch.jit.script(make()) for name, make in (("frozen", linear), ("act", relu))}
    check(Case(body, matrix, "sel", {**children, "sel": linear}).network(), ["sel.weight"], [matrix(), matrix()])


def _resnet18():
    import timm

    return timm.create_model("resnet18", num_classes=10), torch.randn(2, 3, 32, 32)


def _vit():
    import timm

    return timm.create_model("vit_tiny_patch16_224", img_size=32, depth=4, num_classes=10), torch.randn(2, 3, 32, 32)


def _convnext():
    import timm

    return timm.create_model("convnext_atto", num_classes=10), torch.randn(2, 3, 32, 32)


def _torchvision_with_frozen_norms():
    from torchvision.models import resnet18
    from torchvision.ops import FrozenBatchNorm2d

    return resnet18(num_classes=10, norm_layer=FrozenBatchNorm2d), torch.randn(2, 3, 32, 32)


def _channels_last():
    network, batch = _resnet18()
    return network.to(memory_format=torch.channels_last), batch.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("make", "selector"),
    [
        (_resnet18, "last_norms(2)"),
        (_resnet18, "last_norms(2)+buffers"),
        (_resnet18, "module(layer3.0.downsample)"),
        (_resnet18, "module(bn1)"),
        (_resnet18, "norms"),
        (_resnet18, "module(fc)"),
        (_channels_last, "last_norms(3)"),
        (_vit, "last_norms(2)"),
        (_vit, "regex(pos_embed)"),
        (_vit, "regex(blocks.2.attn.qkv)"),
        (_convnext, "last_norms(2)"),
        (_torchvision_with_frozen_norms, "last_norms(2)"),
        (_torchvision_with_frozen_norms, "module(layer2.1)"),
    ],
)
def test_real_networks_give_the_results_of_each_candidate_alone(make, selector):
    torch.manual_seed(0)
    network, batch = make()
    check(network.eval(), select(network, selector), [batch, batch.flip(0)])


def test_a_custom_forward_is_used():
    network = CASES["dict_of_outputs"].network()
    check(
        network,
        ["sel.weight"],
        [{"image": matrix(), "target": 3}],
        lambda network, batch: (network(batch["image"]).argmax(1), batch["target"]),
    )


def test_an_outer_autocast_does_not_keep_the_weights_of_the_last_candidate():
    with torch.autocast("cpu", torch.bfloat16):
        check(
            CASES["residual_addition"].network(),
            ["sel.weight"],
            [matrix()],
            lambda network, batch: (torch.clear_autocast_cache(), network(batch))[1],
        )
        network = CASES["residual_addition"].network()
        first, second, *_ = Replay(network, candidates_for(network, ["sel.weight"]))(matrix())
    assert not same(first, second)


def test_an_outer_inference_mode_changes_nothing():
    with torch.inference_mode():
        check(CASES["in_place_residual_on_a_remembered_tensor"].network(), ["sel.weight"], [matrix()])
        check(CASES["frozen_output_that_is_a_result"].network(), ["sel.weight"], [matrix()])


def test_a_hook_that_replaces_the_parameter_is_followed():
    def load(model, params):
        model.sel.weight = nn.Parameter(params["sel.weight"])

    network = CASES["shared_module_called_twice"].network()
    candidates = candidates_for(network, ["sel.weight"])
    candidates.load_params = load
    batch = matrix()
    expected = [alone(network, candidates, batch, i) for i in range(CANDIDATES)]
    assert same(list(Replay(network, candidates)(batch)), expected)


def test_two_batches_may_take_turns():
    network = CASES["in_place_residual_on_a_remembered_tensor"].network()
    candidates = candidates_for(network, ["sel.weight"])
    replay, batches = Replay(network, candidates), [matrix(), matrix()]
    for i, results in enumerate(zip(*(replay(batch) for batch in batches), strict=True)):
        assert same(list(results), [alone(network, candidates, batch, i) for batch in batches])


def test_weights_changed_between_batches_are_seen():
    network = CASES["residual_addition"].network()
    candidates = candidates_for(network, ["sel.weight"])
    replay, batch = Replay(network, candidates), matrix()
    before = list(replay(batch))
    with torch.no_grad():
        network.frozen.weight.mul_(2)
    after = list(replay(batch))
    assert not same(before, after)
    assert same(after, [alone(network, candidates, batch, i) for i in range(CANDIDATES)])


# The frozen prefix runs once


def runs_of(module):
    runs = []
    module.register_forward_hook(lambda *_: runs.append(1))
    return runs


def executions_of(module):
    executions, forward = [], module.forward
    module.forward = lambda *args: (executions.append(1), forward(*args))[1]
    return executions


def test_the_frozen_prefix_runs_once_per_batch():
    torch.manual_seed(0)
    network, batch = _resnet18()
    network.eval()
    candidates = candidates_for(network, select(network, "last_norms(2)"))
    prefix, suffix = runs_of(network.layer1[0].conv1), runs_of(network.layer4[1].conv2)
    replay = Replay(network, candidates)
    for batches in (1, 2, 3):
        list(replay(batch))
        assert (len(prefix), len(suffix)) == (batches, batches * CANDIDATES)


def test_a_replayed_pass_does_not_wait_for_a_gpu():
    torch.manual_seed(0)
    network, batch = _resnet18()
    candidates = candidates_for(network.eval(), select(network, "last_norms(2)"))
    expected = list(Replay(network, candidates)(batch))
    with simulated_cuda() as gpu:
        candidates.vectors = candidates.vectors.cuda()
        replay = Replay(network.cuda(), candidates)
        results = replay(batch.cuda())
        found = [next(results)]
        with gpu.no_sync("a replayed pass"):
            found += list(results)
        found = [result.cpu() for result in found]
    assert replay.misses == 0
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    "name",
    [
        "in_place_activation_module",
        "two_names_of_one_tensor_written_through_one",
        "in_place_residual_on_a_remembered_tensor",
        "selected_parameter_used_by_the_parent",
        "selected_output_projection_of_attention",
        "selected_parameter_of_the_root",
        "frozen_output_that_is_a_result",
        "read_frozen_output_that_is_a_result",
        "dict_of_outputs",
        "named_tuples_of_outputs",
        "expanded_output",
        "checkpointed_modules",
        "selected_parameter_that_a_frozen_module_hands_through",
        "frozen_lstm",
        "output_of_inference_mode",
    ],
)
def test_a_frozen_module_is_not_run_for_the_second_candidate(name):
    case = CASES[name]
    network = case.network()
    replay = Replay(network, candidates_for(network, case.names(network)))
    list(replay(case.batch()))  # what cannot be remembered is known from here on
    results = replay(case.batch())
    next(results)
    ran = executions_of(network.frozen)
    list(results)
    assert not ran


@pytest.mark.parametrize(
    "name", ["opaque_output", "list_that_a_frozen_module_fills", "frozen_module_that_writes_into_the_batch"]
)
def test_a_module_that_runs_again_hands_back_what_is_inside_it(name):
    case = CASES[name]
    network = case.network()
    replay = Replay(network, candidates_for(network, case.names(network)))
    list(replay(case.batch()))
    results = replay(case.batch())
    next(results)
    outer, inner = executions_of(network.frozen), executions_of(network.frozen.linear)
    list(results)
    assert outer
    assert not inner


def test_an_output_that_nobody_reads_is_not_kept_alive():
    def body(net, x):
        return net.sel(net.second(net.first(x)))

    network = Case(body, matrix, "sel", {"first": linear, "second": linear, "sel": linear}).network()
    outputs = {}
    for name in ("first", "second"):
        network.get_submodule(name).register_forward_hook(
            lambda module, args, result, name=name: outputs.setdefault(name, weakref.ref(result)) and None
        )
    results = Replay(network, candidates_for(network, ["sel.weight"]))(matrix())
    next(results)
    assert outputs["first"]() is None
    assert outputs["second"]() is not None
    list(results)
    assert outputs["second"]() is None


def test_recording_does_not_import_the_compiler():
    program = """
import sys, torch
from torch import nn
from pdiff.task.recording import Recording
with Recording(set(), torch.ones(2)) as recording:
    nn.Linear(2, 2)(recording.batch.give({}))
raise SystemExit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# Refusals and restoration


def test_a_network_in_training_mode_is_refused():
    network = CASES["residual_addition"].network()
    network.frozen.train()
    with pytest.raises(PdiffError, match=r"replay: got a network in training mode, expected eval mode\. Call model"):
        list(Replay(network, candidates_for(network, ["sel.weight"]))(matrix()))


def forwards(network):
    return {name: module.__dict__.get("forward") for name, module in network.named_modules()}


def test_a_module_with_a_forward_of_its_own_keeps_it():
    network = CASES["residual_addition"].network()
    network.frozen.forward = own = lambda x: F.linear(x, network.frozen.weight) * 3
    results = list(Replay(network, candidates_for(network, ["sel.weight"]))(batch := matrix()))
    assert forwards(network) == {"": None, "frozen": own, "sel": None}
    with torch.no_grad():
        assert same(results[-1], network(batch))


@pytest.mark.parametrize("failing", range(3))
def test_an_exception_passes_through_and_restores_the_network(failing):
    network = CASES["residual_addition"].network()
    passes = []

    def forward(batch):
        result = network(batch)
        passes.append(1)
        if len(passes) > failing:
            raise ValueError("broken metric")
        return result

    with pytest.raises(ValueError, match="broken metric"):
        list(Replay(network, candidates_for(network, ["sel.weight"]), forward)(matrix()))
    assert not any(forwards(network).values())
    assert torch.is_grad_enabled()


def test_an_abandoned_batch_leaves_the_network_usable():
    network = CASES["residual_addition"].network()
    candidates = candidates_for(network, ["sel.weight"])
    results = Replay(network, candidates)(batch := matrix())
    next(results)
    results.close()
    assert not any(forwards(network).values())
    assert same(list(Replay(network, candidates)(batch)), [alone(network, candidates, batch, i) for i in range(4)])


# Passes that are trained behind a prefix that is computed once


def leaves(network, names, number):
    """Return the selection of one of several networks, leaves of its own."""
    state, rng = network.state_dict(), torch.Generator().manual_seed(number)
    found = {name: (state[name] + 0.3 * torch.randn(state[name].shape, generator=rng)).abs() for name in names}
    return {name: tensor.requires_grad_(tensor.is_floating_point()) for name, tensor in found.items()}


def learnt(forward, tensors):
    """Return results and gradients of one pass; the kind of the error where such a pass cannot be trained."""
    try:
        result = forward()
        sum(x.double().abs().sum() for x in tree_flatten(result)[0] if isinstance(x, Tensor)).backward()
    except (RuntimeError, AttributeError, TypeError) as error:
        return type(error)
    return [x.detach() for x in tree_flatten(result)[0] if isinstance(x, Tensor)], [t.grad for t in tensors.values()]


@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_are_those_of_whole_passes(name):
    case = CASES[name]
    network = case.network().requires_grad_(False)
    names = case.names(network)
    prefix = Prefix(network, names)
    for batch in (case.batch() for _ in range(2)):
        whole, behind = [], []
        for number in range(NETWORKS):
            tensors = leaves(network, names, number)
            alone = copy.deepcopy(network)
            given = copy.deepcopy(batch)
            whole.append(learnt(lambda net=alone, own=tensors, x=given: functional_call(net, own, (x,)), tensors))
        prefix.begin(batch, network)
        for number in range(NETWORKS):
            tensors = leaves(network, names, number)
            behind.append(learnt(lambda own=tensors: prefix(lambda x: functional_call(network, own, (x,))), tensors))
        for one, other in zip(whole, behind, strict=True):
            assert one == other if isinstance(one, type) else same(one, other)


def test_the_frozen_prefix_runs_once_for_each_batch():
    network = nn.Sequential(linear(), relu(), linear(), linear()).requires_grad_(False)
    calls = []
    own = network[0].forward
    network[0].forward = lambda x: (calls.append(1), own(x))[1]
    prefix = Prefix(network, ["2.weight"])
    for _ in range(2):
        prefix.begin(matrix(), network)
        for number in range(NETWORKS):
            tensors = leaves(network, ["2.weight"], number)
            prefix(lambda x, own=tensors: functional_call(network, own, (x,))).sum().backward()
            assert tensors["2.weight"].grad.abs().sum() > 0
    assert len(calls) == 2


class Pooled(nn.Module):
    """A frozen prefix with dropout, rows of it chosen by labels, a frozen layer on these, and the selected one."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(linear(), nn.Dropout(0.5))
        self.pool, self.head, self.weigh = linear(), linear(), nn.L1Loss()

    def forward(self, x, labels):
        features = self.backbone(x)
        chosen = self.pool(features[labels])
        weight = self.weigh(chosen, labels[:, None].expand_as(chosen).float())
        return self.head(nn.functional.dropout(chosen)) * weight


@pytest.mark.parametrize("sets", [[[0, 1], [2, 1]], [[0, 1, 2], [0], [1, 0]]])
def test_networks_that_differ_in_labels_too_are_those_of_whole_passes(sets):
    network = Pooled().requires_grad_(False).train()
    names = ["head.weight", "head.bias"]
    prefix = Prefix(network, names)
    calls = []
    own = network.backbone[0].forward
    network.backbone[0].forward = lambda x: (calls.append(1), own(x))[1]

    def forward(x, labels, tensors):
        torch.manual_seed(3)
        return functional_call(network, tensors, (x, torch.tensor(labels)))

    for step in range(3):
        batch = matrix()
        calls.clear()
        prefix.begin(batch, lambda x: forward(x, [0, 1, 2], {}))
        found = []
        for number, labels in enumerate(sets):
            tensors = leaves(network, names, number)
            result = prefix(lambda x, labels=labels, tensors=tensors: forward(x, labels, tensors))
            result.sum().backward()
            found.append((result, tensors["head.weight"].grad))
        assert step == 0 or len(calls) == 1
        for number, labels in enumerate(sets):
            tensors = leaves(network, names, number)
            result = forward(batch, labels, tensors)
            result.sum().backward()
            assert torch.equal(result, found[number][0])
            assert torch.equal(tensors["head.weight"].grad, found[number][1])


def test_a_value_that_one_pass_writes_into_is_recorded_anew_for_the_next():
    network = nn.Sequential(linear(), linear()).requires_grad_(False)
    prefix, batch = Prefix(network, ["1.weight"]), matrix()
    features = network[0](batch)
    prefix.begin(batch, network)
    assert torch.equal(prefix(lambda x: network[1](network[0](x).mul_(2))), network[1](features * 2))
    assert torch.equal(prefix(network), network[1](features))
