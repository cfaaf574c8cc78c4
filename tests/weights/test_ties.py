"""Tied tensors are one, whatever ties them, and go by the first of their names."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from pdiff.runtime.errors import PdiffError
from pdiff.weights.select import select
from pdiff.weights.ties import first_names, frozen_names, merged, partly_shared, spread, state_names


def pair(width: int = 3) -> nn.ModuleDict:
    """Return two linear layers of one shape."""
    return nn.ModuleDict({"a": nn.Linear(width, width), "b": nn.Linear(width, width)})


def by_parameter():
    model = pair()
    model["b"].weight = model["a"].weight
    return model


def by_memory():
    model = pair()
    model["b"].weight = nn.Parameter(model["a"].weight.data)
    return model


def by_transposed_memory():
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 2)})
    model["b"].weight = nn.Parameter(model["a"].weight.data.T)
    return model


def by_module():
    model = pair()
    model["b"] = model["a"]
    return model


def by_three_names():
    model = pair()
    model["c"] = nn.Linear(3, 3)
    model["b"].weight = model["c"].weight = model["a"].weight
    return model


def by_buffer():
    model = nn.ModuleDict({"a": nn.BatchNorm1d(3), "b": nn.BatchNorm1d(3)})
    model["b"].running_mean = model["a"].running_mean
    return model


def by_parametrization():
    model = pair()
    model["b"].weight = model["a"].weight
    for name in ("a", "b"):
        weight_norm(model[name])
    originals = model["a"].parametrizations.weight
    model["b"].parametrizations.weight.original1 = originals.original1
    return model


TIES = {
    by_parameter: {"b.weight": "a.weight"},
    by_memory: {"b.weight": "a.weight"},
    by_transposed_memory: {"b.weight": "a.weight"},
    by_module: {"b.weight": "a.weight", "b.bias": "a.bias"},
    by_three_names: {"b.weight": "a.weight", "c.weight": "a.weight"},
    by_buffer: {"b.running_mean": "a.running_mean"},
    by_parametrization: {"b.parametrizations.weight.original1": "a.parametrizations.weight.original1"},
}
each_tie = pytest.mark.parametrize("make", TIES)


@each_tie
def test_a_tied_tensor_goes_by_its_first_name(make):
    model = make()
    assert {name: first for name, first in first_names(model).items() if name != first} == TIES[make]
    assert state_names(model) == [name for name in model.state_dict() if name not in TIES[make]]
    assert not set(select(model, "all")) & set(TIES[make])


@each_tie
def test_a_term_that_means_an_alias_means_the_tensor(make):
    for alias, first in TIES[make].items():
        pattern = alias.replace(".", r"\.")
        assert select(make(), f"regex(^{pattern}$)") == [first]
        if "running" not in alias:
            assert first in select(make(), f"module({alias.partition('.')[0]})")
            assert first not in select(make(), f"all-regex({pattern})")


@each_tie
def test_a_tensor_that_is_selected_is_frozen_under_no_name(make):
    model = make()
    for alias, first in TIES[make].items():
        aliases = {first, *(name for name in TIES[make] if TIES[make][name] == first)}
        for name in (alias, first):
            assert set(frozen_names(model, [name])) == set(model.state_dict()) - aliases


@each_tie
def test_values_under_any_name_become_those_of_all(make):
    model = make()
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for alias, first in TIES[make].items():
        for name in (alias, first):
            found = merged(model, {name: own[name]}, "here")
            assert list(found) == [first]
            assert torch.equal(found[first], own[first])
    found = spread(model, merged(model, own, "here"))
    assert set(found) == set(own)
    assert all(torch.equal(found[name], own[name]) for name in own)


@each_tie
def test_two_names_with_different_values_are_refused(make):
    model, own = make(), make().state_dict()
    alias, first = next(iter(TIES[make].items()))
    given = {**{name: torch.zeros_like(tensor) for name, tensor in own.items()}, alias: torch.ones_like(own[alias])}
    with pytest.raises(PdiffError) as caught:
        merged(model, given, "file.pth")
    assert str(caught.value) == (
        f"file.pth: '{first}' and '{alias}' differ, though they are one tensor of the network. Build the network "
        "without this tie, or give both the same values."
    )


def test_a_training_that_diverged_has_the_same_nan_under_two_names():
    nan = torch.full((3, 3), torch.nan)
    assert list(merged(by_parameter(), {"a.weight": nan, "b.weight": nan.clone()}, "here")) == ["a.weight"]


def test_tensors_that_the_network_lacks_stay_as_they_are():
    given = {"other": torch.zeros(2), "b.weight": torch.zeros(9)}
    assert {name: tensor.shape for name, tensor in merged(by_parameter(), given, "here").items()} == {
        "other": (2,),
        "a.weight": (9,),
    }


def test_ties_are_known_on_the_meta_device():
    with torch.device("meta"):
        assert first_names(by_parameter())["b.weight"] == "a.weight"


def test_equal_values_are_no_tie():
    model = pair()
    model.load_state_dict({name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()})
    assert state_names(model) == list(model.state_dict())


def test_a_tensor_that_shares_a_part_of_another_is_told():
    model = nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Linear(4, 2)})
    model["b"].weight = nn.Parameter(model["a"].weight.data[:2])
    assert partly_shared(model, {"a.weight"}) == ("a.weight", "b.weight")
    assert partly_shared(model, {"b.weight"}) == ("b.weight", "a.weight")
    assert partly_shared(model, {"a.bias"}) is None


def test_a_tensor_of_repeated_values_is_told():
    model = nn.Linear(2, 3)
    model.bias = nn.Parameter(torch.zeros(1).expand(3))
    assert partly_shared(model, {"bias"}) == ("bias", "bias")


@each_tie
def test_whole_ties_share_no_part(make):
    assert partly_shared(make(), set(state_names(make()))) is None


def test_slices_of_one_storage_are_tensors_of_their_own():
    model = nn.LSTM(2, 3)
    whole = torch.zeros(sum(p.numel() for p in model.parameters()))
    for (name, old), values in zip(
        list(model.named_parameters()), whole.split([p.numel() for p in model.parameters()]), strict=True
    ):
        setattr(model, name, nn.Parameter(values.view_as(old)))
    assert state_names(model) == list(model.state_dict())
    assert partly_shared(model, set(state_names(model))) is None


def test_a_tied_weight_under_spectral_norm_has_buffers_of_its_own():
    model = pair()
    model["b"].weight = model["a"].weight
    for name in ("a", "b"):
        spectral_norm(model[name])
    below = "parametrizations.weight"
    assert first_names(model)[f"b.{below}.original"] == f"a.{below}.original"
    buffers = [f"{name}.{below}.0.{vector}" for name in "ab" for vector in ("_u", "_v")]
    assert select(model, f"regex(^a.{below})+buffers") == ["a.parametrizations.weight.original", *buffers]
