"""What each operation of torch does to the units along its axes: permuted ones, and scaled ones.

A rule says which axes of the arguments are the same units, pins those whose order (or scale) it depends on, and returns
the axes of the result; it returns None where it does not hold. What has no rule pins all that it touches, which is
always right.
"""

import re
from collections.abc import Callable, Collection, Sequence

import torch

from pdiff.canonical.axes import ONE, Axis, cut, join, length, pin, reshape, unify, whole
from pdiff.canonical.call import Call, Value, pinned

Rule = Callable[[Call], object | None]


def keep(call: Call) -> Value | None:
    """Entry by entry, and f(cx) = c f(x) for every c above 0, but where numbers become integers."""
    return Value(call.first.axes) if call.result.is_floating_point() or not call.scale else None


def shared_slopes(call: Call) -> Value:
    """A PReLU: the slopes do not scale."""
    x, slopes = call["self"], call["weight"]
    if call.scale:
        pin(*slopes.axes)
    elif length(slopes.axes[0]) > 1:
        unify(slopes.axes[0], x.axes[1])
    return Value(x.axes)


def view(call: Call) -> Value:
    """The same entries in another shape."""
    return Value(reshape(call.first.axes, call.result.shape))


def reorder(call: Call) -> Value:
    """The same axes in another order, which a tensor of distinct sizes shows."""
    operation = getattr(torch.ops.aten, call.name)
    x, *others = call.given.values()
    probe = operation(torch.empty(*range(2, 2 + len(x.axes)), device="meta"), *others)
    return Value(tuple(x.axes[size - 2] for size in probe.shape))


def broadcast(values: Sequence[Value], shape: Sequence[int]) -> tuple[Axis, ...]:
    """Return the axes of tensors that are computed entry by entry: those that meet are the same units."""
    axes = []
    for back in range(len(shape), 0, -1):
        meeting = [value.axes[-back] for value in values if len(value.axes) >= back]
        first, *others = [axis for axis in meeting if length(axis) > 1] or [ONE]
        for other in others:
            unify(first, other)
        axes.append(first)
    return tuple(axes)


def pointwise(call: Call) -> Value:
    """Any function of single entries."""
    return Value(broadcast(list(call.values()), call.result.shape))


def add(call: Call) -> Value:
    """A sum: what is added is scaled as that is which it is added to."""
    values = list(call.values())
    if call.scale:
        number = len(values) == 1 and call["other"] != 0
        for value in values:
            missing = len(call.result.shape) - len(value.axes)
            for other in values:
                for axis, own in zip(other.axes[::-1], [*value.axes[::-1], *[ONE] * missing], strict=False):
                    if number or length(own) < length(axis):
                        pin(axis)
    return pointwise(call)


def multiply(call: Call) -> Value:
    """A product: only one factor of it scales its units, a parameter such as a layer's scale first."""
    values = list(call.values())
    if not call.scale:
        return pointwise(call)
    if call["rounding_mode"]:
        return None
    if len(values) == 1:
        return keep(call)
    if call.inplace or call.name in ("div", "divide"):
        return None
    by, other = sorted(values, key=lambda value: value.parameter is None)
    if by.parameter is None:
        return None
    pin(*other.axes)
    missing = (ONE,) * (len(call.result.shape) - len(by.axes))
    ours = zip(missing + by.axes, call.result.shape, strict=True)
    return Value(tuple(axis if length(axis) == size else whole(size, pinned=True) for axis, size in ours))


def expand(call: Call) -> Value:
    """Copies along axes; those of one entry are all alike, but have one scale."""
    x, shape, axes = call.first, call.result.shape, []
    for axis, size in zip((ONE,) * (len(shape) - len(x.axes)) + x.axes, shape, strict=True):
        if length(axis) == size:
            axes.append(axis)
        elif length(axis) == 1:
            axes.append(whole(size, pinned=call.scale))
        else:
            axes.append(join([whole(size // length(axis), pinned=True), axis]))
    return Value(tuple(axes))


def select(call: Call) -> object | None:
    """One entry of an axis, or each by itself."""
    x = call["self"]
    (dim,) = call.dimensions(call["dim"] or 0, x)
    pin(x.axes[dim])
    rest = Value(x.axes[:dim] + x.axes[dim + 1 :])
    return rest if isinstance(call.result, torch.Tensor) else [rest] * len(call.result)


def split(call: Call) -> list[Value]:
    """All parts of an axis."""
    x = call["self"]
    (dim,) = call.dimensions(call["dim"] or 0, x)
    parts = cut(x.axes[dim], [part.shape[dim] for part in call.result])
    return [Value((*x.axes[:dim], part, *x.axes[dim + 1 :])) for part in parts]


def part(call: Call) -> object | None:
    """One part of an axis."""
    x = call["self"]
    (dim,) = call.dimensions(call["dim"] or 0, x)
    size, now = length(x.axes[dim]), call.result.shape[dim]
    if size == now:
        return keep(call)
    if (call["step"] or 1) != 1:
        return _spatial(x, {dim}, call.result)
    start = call["start"] or 0
    start = min(start + size if start < 0 else start, size)
    _, kept, _ = cut(x.axes[dim], [start, now, size - start - now])
    return Value((*x.axes[:dim], kept, *x.axes[dim + 1 :]))


def concatenate(call: Call) -> Value:
    """Axes behind one another."""
    values = [value for value in call["tensors"] if len(value.axes) == call.result.ndim]
    (dim,) = call.dimensions(call["dim"] or 0, values[0])
    axes = []
    for place, axis in enumerate(values[0].axes):
        for other in values[1:] if place != dim else ():
            unify(axis, other.axes[place])
        axes.append(axis if place != dim else tuple(segment for value in values for segment in value.axes[dim]))
    return Value(tuple(axes))


def stack(call: Call) -> Value:
    """A new axis of tensors that are the same units."""
    first, *others = call["tensors"]
    dim = (call["dim"] or 0) % call.result.ndim
    for other in others:
        for one, two in zip(first.axes, other.axes, strict=True):
            unify(one, two)
    return Value((*first.axes[:dim], whole(len(others) + 1, pinned=True), *first.axes[dim:]))


def take(call: Call) -> object | None:
    """Rows of a table by their numbers."""
    x, indices = call["self"], call["indices"]
    at = [dim for dim, index in enumerate(indices) if index is not None]
    if at != list(range(at[0], at[-1] + 1)):
        return None
    pin(*(x.axes[dim] for dim in at), *(axis for dim in at for axis in indices[dim].axes))
    made = call.result.ndim - len(x.axes) + len(at)
    taken = call.result.shape[at[0] : at[0] + made]
    return Value((*x.axes[: at[0]], *(whole(size, pinned=True) for size in taken), *x.axes[at[-1] + 1 :]))


def choose(call: Call) -> Value:
    """Entries of an axis by their numbers, or windows of it along a new one."""
    x = call["self"]
    (dim,) = call.dimensions(call["dimension"] if call.name == "unfold" else call["dim"], x)
    chosen = _spatial(x, {dim}, call.result)
    return Value((*chosen.axes, *(whole(size, pinned=True) for size in call.result.shape[len(x.axes) :])))


def constant(call: Call) -> Value:
    """Entries that are all alike."""
    return Value(tuple(whole(size, pinned=call.scale) for size in call.result.shape))


def embedding(call: Call) -> Value:
    """Rows of a table by their numbers."""
    rows, units = call["weight"].axes
    pin(rows)
    return Value((*(whole(size, pinned=True) for size in call.result.shape[:-1]), units))


def pad(call: Call) -> object | None:
    """More entries, or fewer, at the ends of an axis."""
    x = call["self"]
    if call.scale and call["value"]:
        return None
    padded = {len(x.axes) - 1 - place // 2 for place, number in enumerate(call["pad"]) if number}
    return _spatial(x, padded, call.result)


def shift(call: Call) -> Value:
    """The same entries in another order along some axes."""
    return _spatial(call["self"], set(call.dimensions(call["dims"], call["self"])), call.result)


def pool(call: Call) -> object | None:
    """Something of neighbours along the last axes, as many as the operation's name says."""
    number = int(re.search(r"(\d)d", call.name)[1])
    x, several = call.first, not isinstance(call.result, torch.Tensor)
    result = call.result[0] if several else call.result
    value = _spatial(x, set(range(len(x.axes) - number, len(x.axes))), result)
    return [value, pinned(call.result[1])] if several else value


def _spatial(x: Value, dims: set[int], result: torch.Tensor) -> Value:
    """Return the axes of a tensor, some of which have an order and perhaps a new length."""
    pin(*(x.axes[dim] for dim in dims))
    sizes = result.shape
    return Value(tuple(whole(sizes[dim], True) if dim in dims else axis for dim, axis in enumerate(x.axes)))


def reduce(call: Call) -> Value:
    """Something of all entries of some axes, in whatever order they are."""
    x = call.first
    dims = call.dimensions(call["dim"], x)
    if call.scale:
        pin(*(x.axes[dim] for dim in dims))
    kept = [ONE if dim in dims else axis for dim, axis in enumerate(x.axes) if dim not in dims or call["keepdim"]]
    return Value(tuple(kept))


def linear(call: Call) -> object | None:
    """Rows of a matrix make units, its columns read them."""
    x, weight, bias = call["input"], call["weight"], call["bias"]
    if call.scale and weight.parameter is None:
        return None
    unify(x.axes[-1], weight.axes[1])
    if bias is not None:
        unify(weight.axes[0], bias.axes[0])
        if call.scale:  # it is as large whatever the rest of the inputs is scaled by
            pin(*x.axes[:-1])
    return Value((*x.axes[:-1], weight.axes[0]))


def convolution(call: Call) -> object | None:
    """Filters make channels, and read channels of their group; along the other axes there is an order."""
    x, weight, bias, groups = call["input"], call["weight"], call["bias"], call["groups"] or 1
    dim = len(x.axes) + 1 - len(weight.axes)
    made, read = (1, 0) if "transpose" in call.name else (0, 1)
    if call.scale and (weight.parameter is None or (groups > 1 and made)):
        return None
    pin(*x.axes[dim + 1 :], *weight.axes[2:])
    if call.scale:
        pin(*x.axes[: dim + (groups > 1)])
    channels = weight.axes[made]
    if groups == 1:
        unify(x.axes[dim], weight.axes[read])
    elif not call.scale:
        channels = _grouped(x.axes[dim], weight, groups, made)
    else:
        pin(*weight.axes[1:])
    if bias is not None:
        unify(channels, bias.axes[0])
    spatial = (whole(size, pinned=True) for size in call.result.shape[dim + 1 :])
    return Value((*x.axes[:dim], channels, *spatial))


def _grouped(x: Axis, weight: Value, groups: int, made: int) -> Axis:
    """Return the channels that groups of channels make: groups may change places, channels in a group may not."""
    lanes = whole(groups)
    unify(x, join([lanes, whole(length(x) // groups, pinned=True)]))
    unify(weight.axes[0], join([lanes, whole(length(weight.axes[0]) // groups, pinned=True)]))
    pin(weight.axes[1])
    return join([lanes, weight.axes[1]]) if made else weight.axes[0]


def batch_norm(call: Call) -> Value:
    """Each channel by its own mean and variance."""
    affine = [call["weight"], call["bias"]]
    return _normalised(call, affine, [call["running_mean"], call["running_var"]], [1])


def layer_norm(call: Call) -> Value:
    """The last axes by the mean and variance of all their entries."""
    number = len(call["normalized_shape"])
    dims = range(len(call["input"].axes) - number, len(call["input"].axes))
    return _normalised(call, [call["weight"], call["bias"]], [], list(dims))


def group_norm(call: Call) -> Value:
    """Groups of channels, each by its own mean and variance: groups may change places, channels in a group may not."""
    groups, axis = call["num_groups"], call["input"].axes[1]
    if groups > 1 and not call.scale:
        unify(axis, join([whole(groups), whole(length(axis) // groups, pinned=True)]))
    return _normalised(call, [call["weight"], call["bias"]], [], [1])


def _normalised(call: Call, affine: list[Value | None], statistics: list[Value | None], dims: list[int]) -> Value:
    """Tie a norm's parameters to its input; what they make has a scale of its own, where its input has none."""
    x = call["input"]
    affine, statistics = ([value for value in values if value is not None] for values in (affine, statistics))
    axes = list(x.axes)
    if call.scale:
        pin(*x.axes, *(axis for value in statistics for axis in value.axes))
        axes = list(pinned(call.result).axes)
        for value in affine:  # a gain for each of several axes would be more than one for each entry
            pin(*value.axes[1:])
        if affine and affine[0] is call["weight"]:
            axes[dims[0]] = affine[0].axes[0]
        else:
            pin(*(value.axes[0] for value in affine))
    for value in affine + statistics if not call.scale else affine:
        for dim, axis in zip(dims, value.axes, strict=True):
            unify(axes[dim], axis)
    return Value(tuple(axes))


def normed_weight(call: Call) -> Value:
    """Each row of a weight with a norm of its own."""
    weight, norms = call["v"], call["g"]
    dim = call["dim"] or 0
    unify(weight.axes[dim], norms.axes[dim])
    return Value(weight.axes)


def gate(call: Call) -> Value:
    """One half of an axis times a function of the other half."""
    x = call["self"]
    (dim,) = call.dimensions(-1 if call["dim"] is None else call["dim"], x)
    half, other = cut(x.axes[dim], [length(x.axes[dim]) // 2] * 2)
    unify(half, other)
    return Value((*x.axes[:dim], half, *x.axes[dim + 1 :]))


def einsum(call: Call) -> Value | None:
    """Sums of products: the same letter means the same units."""
    operands, arrow, result = call["equation"].replace(" ", "").partition("->")
    if not arrow or "." in operands:
        return None
    axes: dict[str, Axis] = {}
    for letters, value in zip(operands.split(","), call["tensors"], strict=True):
        for letter, axis in zip(letters, value.axes, strict=True):
            if length(axes.setdefault(letter, axis)) == 1:
                axes[letter] = axis
            elif length(axis) > 1:
                unify(axes[letter], axis)
    return Value(tuple(axes[letter] for letter in result))


def product(call: Call) -> Value:
    """A product of matrices, of an operation's last two tensors; the one before them is added."""
    *added, one, other = call.values()
    rows = one.axes if len(one.axes) > 1 else (ONE, *one.axes)
    columns = other.axes if len(other.axes) > 1 else (*other.axes, ONE)
    unify(rows[-1], columns[-2])
    shape = list(call.result.shape)
    ends = [rows[-2]] * (len(one.axes) > 1) + [columns[-1]] * (len(other.axes) > 1)
    batch = broadcast([Value(rows[:-2]), Value(columns[:-2])], shape[: len(shape) - len(ends)])
    value = Value((*batch, *ends))
    for more in added:
        broadcast([value, more], shape)
    return value


def attention(call: Call) -> object | None:
    """Softmax of queries times keys, times values; tokens keep their order."""
    query, key, value = call["query"], call["key"], call["value"]
    if call["enable_gqa"]:
        return None
    unify(query.axes[-1], key.axes[-1])
    pin(query.axes[-2], key.axes[-2], value.axes[-2])
    shape = list(call.result.shape)[:-2]
    batch = broadcast([Value(tensor.axes[:-2]) for tensor in (query, key, value)], shape)
    if call["attn_mask"] is not None:
        scores = Value((*batch, query.axes[-2], key.axes[-2]))
        broadcast([scores, call["attn_mask"]], [length(axis) for axis in scores.axes])
    return Value((*batch, query.axes[-2], value.axes[-1]))


def named(rule: Rule, *names: str) -> dict[str, Rule]:
    """Return one rule for several operations."""
    return dict.fromkeys(names, rule)


CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
POOLS = tuple(f"{kind}{n}d" for n in (1, 2, 3) for kind in ("max_pool", "avg_pool", "adaptive_avg_pool"))
# Rules that hold for permuted and for scaled units.
BOTH: dict[str, Rule] = {
    **named(keep, "relu", "leaky_relu", "dropout", "feature_dropout", "clone", "contiguous", "alias", "detach", "to"),
    **named(keep, "_to_copy", "abs", "neg", "positive", "lift_fresh_copy"),
    **named(view, "flatten", "reshape", "view", "_unsafe_view", "unflatten", "unsqueeze", "squeeze", "view_as"),
    **named(view, "reshape_as"),
    **named(reorder, "permute", "transpose", "t", "movedim", "moveaxis", "swapaxes", "numpy_T", "mT"),
    **named(expand, "expand", "expand_as", "broadcast_to", "repeat", "tile"),
    **named(select, "select", "unbind"),
    **named(split, "split", "split_with_sizes", "chunk", "tensor_split"),
    **named(part, "slice"),
    **named(concatenate, "cat", "concat", "concatenate"),
    **named(pool, *POOLS, "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
    **named(pool, *(f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "bilinear2d", "bicubic2d"))),
    **named(pool, "upsample_nearest3d", "upsample_trilinear3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
    **named(reduce, "mean", "sum", "amax", "amin"),
    **named(add, "add", "sub", "subtract"),
    **named(multiply, "mul", "multiply", "div", "divide"),
    **named(shift, "roll", "flip"),
    **named(convolution, *CONVOLUTIONS),
    **named(batch_norm, "batch_norm", "instance_norm"),
    "group_norm": group_norm,
    **named(layer_norm, "layer_norm", "rms_norm"),
    "prelu": shared_slopes,
    "stack": stack,
    "index": take,
    **named(choose, "index_select", "unfold"),
    **named(constant, *(kind + like for kind in ("zeros", "ones", "full", "empty") for like in ("", "_like"))),
    **named(constant, "new_zeros", "new_ones", "new_full", "new_empty"),
    "embedding": embedding,
    **named(pad, "pad", "constant_pad_nd"),
    "linear": linear,
}
# Rules that hold for permuted units only.
PERMUTED: dict[str, Rule] = {
    **named(keep, "softmax", "log_softmax", "alpha_dropout"),
    **named(reduce, "var", "std", "logsumexp", "linalg_vector_norm"),
    **named(pointwise, "gelu", "hardswish", "hardsigmoid", "hardtanh", "relu6", "elu", "selu", "log_sigmoid", "where"),
    **named(pointwise, "masked_fill", "rsub", "true_divide", "fill", "zero", "copy"),
    **named(product, "matmul", "mm", "bmm", "mv", "addmm", "baddbmm"),
    "scaled_dot_product_attention": attention,
    "_weight_norm": normed_weight,
    "einsum": einsum,
    "glu": gate,
}
# The axis of the second argument, the weight, that reads units; all other axes of parameters make them.
READ = {name: int("transpose" not in name) for name in ("linear", *CONVOLUTIONS)}


def rule_of(call: Call, tags: Collection[torch.Tag]) -> Rule | None:
    """Return the rule for an operation of these tags, None where there is none."""
    if torch.Tag.inplace_view in tags:  # its argument has other axes from now on
        return None
    if call.name in BOTH:
        return BOTH[call.name]
    if not call.scale:
        entrywise = torch.Tag.pointwise in tags and isinstance(call.result, torch.Tensor)
        return PERMUTED.get(call.name, pointwise if entrywise else None)
    return None
