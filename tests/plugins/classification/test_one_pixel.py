"""Convolutions whose output is one pixel, as a product."""

import copy

import pytest
import timm
import torch
from pdiff_plugins.classification.networks import build_network
from pdiff_plugins.classification.one_pixel import OnePixelConv2d, overlap, shorten_convolutions
from pdiff_plugins.images.data import Split
from torch import nn

from pdiff.task import Candidates
from pdiff.task.defaults import LoadParams
from pdiff.task.replay import Replay
from pdiff.weights.layout import Layout
from pdiff.weights.select import select

SHORT = [  # size, kernel, stride, padding
    ((1, 1), 3, 1, 1),
    ((1, 1), 1, 1, 0),
    ((1, 1), 1, 2, 0),
    ((1, 1), 7, 2, 3),
    ((2, 2), 3, 2, 1),
    ((2, 2), 1, 2, 0),
    ((3, 3), 3, 1, 0),
    ((3, 2), (3, 1), (1, 2), (0, 0)),
    ((1, 4), (3, 4), (1, 1), (1, 0)),
    ((4, 4), 3, 4, 0),
]
LONG = [
    {"size": (2, 2), "kernel_size": 3, "padding": 1},
    {"size": (1, 2), "kernel_size": 3, "padding": 1},
    {"size": (1, 1), "kernel_size": 1, "padding": 1, "stride": 3},
    {"size": (3, 3), "kernel_size": 2, "dilation": 2},
    {"size": (1, 1), "kernel_size": 3, "padding": 1, "groups": 2},
    {"size": (1, 1), "kernel_size": 3, "padding": "same"},
    {"size": (2, 2), "kernel_size": 3, "stride": 2, "padding": 1, "padding_mode": "reflect"},
]


def pair(size, bias=True, **settings):
    """Return a convolution, its short form, and a batch for both."""
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, bias=bias, **settings)
    short = shorten_convolutions(copy.deepcopy(plain))
    return plain, short, torch.randn(5, 4, *size)


def gradients(module, x):
    """Return the output for `x`, and the gradients with respect to `x` and every parameter."""
    x = x.clone().requires_grad_(True)
    y = module(x)
    return y, *torch.autograd.grad(y.sin().sum(), [x, *module.parameters()])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), SHORT)
def test_output_of_one_pixel_has_the_values_and_gradients_of_the_convolution(size, kernel, stride, padding, bias):
    plain, short, x = pair(size, bias, kernel_size=kernel, stride=stride, padding=padding)
    axes = zip(size, short.kernel_size, short.stride, short.padding, strict=True)
    assert None not in [overlap(*axis) for axis in axes]
    for found, expected in zip(gradients(short, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", LONG)
def test_every_other_convolution_is_computed_as_before(settings):
    plain, short, x = pair(**settings)
    for found, expected in zip(gradients(short, x), gradients(plain, x), strict=True):
        assert torch.equal(found, expected)


def test_channels_last_gives_the_same():
    plain, short, x = pair((2, 2), kernel_size=3, stride=2, padding=1)
    short, y = short.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(short(y), plain(x), atol=1e-5, rtol=1e-5)


def test_short_form_works_under_vmap_over_parameters():
    plain, short, x = pair((1, 1), kernel_size=3, padding=1)
    many = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in short.named_parameters()}
    found = torch.func.vmap(lambda parameters: torch.func.functional_call(short, parameters, x))(many)
    torch.testing.assert_close(found, torch.stack([plain(x), 2 * plain(x)]), atol=1e-5, rtol=1e-5)


def test_classes_derived_from_a_convolution_stay_what_they_are():
    class Own(nn.Conv2d):
        pass

    model = shorten_convolutions(nn.Sequential(Own(1, 1, 3), nn.Conv2d(1, 1, 3)))
    assert [type(module) for module in model] == [Own, OnePixelConv2d]


def test_built_network_has_timms_names_and_weights_and_takes_the_short_way():
    split = Split(torch.rand(2, 1, 32, 32), torch.tensor([0, 4]), 5, 32, 2, torch.device("cpu"))
    model = build_network({"type": "timm", "name": "resnet18"}, split).eval()
    assert type(model.layer4[1].conv2) is OnePixelConv2d
    plain = timm.create_model("resnet18", in_chans=1, num_classes=5).eval()
    assert list(plain.state_dict()) == list(model.state_dict())
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(split.images), plain(split.images), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(copy.deepcopy(model)(split.images), model(split.images), atol=0, rtol=0)


def test_replay_gives_the_bits_of_each_candidate_alone():
    split = Split(torch.rand(8, 1, 32, 32), torch.arange(8) % 5, 5, 32, 8, torch.device("cpu"))
    model = build_network({"type": "timm", "name": "resnet18"}, split).eval()
    names = select(model, "last_norms(2)", ())
    layout = Layout.of(model.state_dict(), names)
    vectors = layout.flatten(model.state_dict()) + 0.1 * torch.randn(3, layout.size)
    many = Candidates(vectors, layout, LoadParams().load_params)
    alone = [Candidates(vector[None], layout, LoadParams().load_params) for vector in vectors]
    found = list(Replay(model, many)(split.images))
    expected = [next(iter(Replay(model, one)(split.images))) for one in alone]
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert not torch.equal(found[0], found[1])
