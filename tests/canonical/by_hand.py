"""Networks whose units are written down by hand, and copies of them with the units in another order and scale."""

from itertools import pairwise

import torch
from torch import nn

from pdiff.canonical.applying import flat, permute, scale, views
from pdiff.weights.layout import Layout
from pdiff.weights.units import Gain, Group, Place, Symmetries


def plain(tensor, axis, size):
    """Return the place of units that are one entry each."""
    return Place(tensor, axis, torch.arange(size)[:, None])


def rng(seed):
    """Return a generator."""
    return torch.Generator().manual_seed(seed)


def mlp(*widths):
    """Return layout and symmetries of a ReLU MLP; tensors `0.weight`, `0.bias`, `1.weight`, ..."""
    shapes = {}
    for layer, (before, after) in enumerate(pairwise(widths)):
        shapes |= {f"{layer}.weight": (after, before), f"{layer}.bias": (after,)}
    groups, gains = [], []
    for layer, size in enumerate(widths[1:-1]):
        made = (plain(f"{layer}.weight", 0, size), plain(f"{layer}.bias", 0, size))
        read = (plain(f"{layer + 1}.weight", 1, size),)
        groups.append(Group(f"{layer}.weight", size, made + read))
        gains.append(Gain(f"{layer}.weight", size, made, read))
    return layout_of(shapes), Symmetries(tuple(groups), tuple(gains))


def outputs(layout, vector, x):
    """Return what a ReLU MLP makes of `x`, in double precision."""
    tensors = list(views(layout, vector.double()).values())
    for weight, bias in zip(tensors[:-2:2], tensors[1:-2:2], strict=True):
        x = nn.functional.relu(x @ weight.T + bias)
    return x @ tensors[-2].T + tensors[-1]


def layout_of(shapes):
    """Return the layout of float32 tensors of these shapes."""
    return Layout.of({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})


def residual(width=8, blocks=3, inner=6, batch=True):
    """Return layout and symmetries of a stem, blocks of two convolutions with a norm around a stream, and a head."""
    shapes = {"stem.weight": (width, 3, 3, 3), **norm("stem_norm", width, batch)}
    stream, groups = [plain("stem.weight", 0, width), *along("stem_norm", width, batch)], []
    gains = []
    for block in range(blocks):
        one, two = f"{block}.one", f"{block}.two"
        shapes |= {f"{one}.weight": (inner, width, 3, 3), **norm(f"{one}_norm", inner, batch)}
        shapes |= {f"{two}.weight": (width, inner, 3, 3), **norm(f"{two}_norm", width, batch)}
        stream += [plain(f"{one}.weight", 1, width), plain(f"{two}.weight", 0, width)]
        stream += along(f"{two}_norm", width, batch)
        own = [plain(f"{one}.weight", 0, inner), *along(f"{one}_norm", inner, batch), plain(f"{two}.weight", 1, inner)]
        groups.append(Group(f"{one}.weight", inner, tuple(own)))
        affine = tuple(place for place in own if place.tensor.endswith(("norm.weight", "norm.bias")))
        gains.append(Gain(f"{one}_norm.weight", inner, affine, (own[-1],)))
    shapes |= {"head.weight": (5, width), "head.bias": (5,)}
    stream.append(plain("head.weight", 1, width))
    return layout_of(shapes), Symmetries((Group("stem.weight", width, tuple(stream)), *groups), tuple(gains))


def norm(name, width, batch=True):
    """Return the shapes of a norm's tensors."""
    kinds = ("weight", "bias", "running_mean", "running_var") if batch else ("weight", "bias")
    return {f"{name}.{kind}": (width,) for kind in kinds}


def along(name, width, batch=True):
    """Return the places of units in a norm's tensors."""
    return [plain(tensor, 0, width) for tensor in norm(name, width, batch)]


def reordered(layout, symmetries, vector, seed, scales=False):
    """Return the same network with its units in random order, and of random scale in [1/2, 2] if asked."""
    permutations = [torch.randperm(group.size, generator=rng(seed)) for group in symmetries.groups]
    tensors = permute(views(layout, vector), symmetries.groups, permutations)
    if scales:
        factors = [torch.rand(gain.size, generator=rng(seed + 1)) * 1.5 + 0.5 for gain in symmetries.gains]
        tensors = scale(tensors, symmetries.gains, factors)
    return flat(layout, tensors, 0)
