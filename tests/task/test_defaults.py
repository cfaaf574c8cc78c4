"""The core's own `select_params` and `load_params`."""

import pytest
import torch
from mmengine.config import Config
from torch import nn

from pdiff.runtime.errors import PdiffError
from pdiff.task.defaults import LoadParams, SelectParams
from pdiff.task.task import Metric, Task


@pytest.fixture
def model():
    """Return a network with a norm layer and a head."""
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def select(model, expression):
    """Return what the default selects."""
    task = Task(model=model, splits={}, metric=Metric("accuracy"), head=["2"])
    return SelectParams().select_params(task=task, cfg=Config({"select": expression}))


def load(model, params):
    """Load with the default."""
    LoadParams().load_params(model=model, params=params)


def test_the_selection_is_what_the_config_says(model):
    assert select(model, "head+norms") == ["1.weight", "1.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize("expression", [None, "", 3])
def test_a_config_that_selects_nothing_is_refused(model, expression):
    with pytest.raises(PdiffError, match=r"^select: .*Known: all, buffers, head"):
        select(model, expression)


def test_loading_copies_every_tensor_in_place(model):
    addresses = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    params = {name: torch.full_like(tensor, 3) for name, tensor in model.state_dict().items()}
    load(model, params)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, params[name])
        assert tensor.data_ptr() == addresses[name]


def test_loading_leaves_all_other_tensors_and_the_gradients_alone(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load(model, {"1.bias": torch.ones(3)})
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["1.bias"]
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())


def test_loading_casts_to_the_dtype_of_the_network(model):
    load(model.half(), {"1.weight": torch.tensor([0.5, 1.0, 2.0])})
    assert torch.equal(model[1].weight, torch.tensor([0.5, 1.0, 2.0], dtype=torch.float16))


def test_loading_a_tied_weight_changes_both_places(model):
    model[2] = nn.Linear(2, 3)
    model[2].weight = model[0].weight
    load(model, {"0.weight": torch.zeros(3, 2)})
    assert model[2].weight.eq(0).all()


@pytest.mark.parametrize(
    ("params", "line"),
    [
        ({"9.weight": torch.zeros(1)}, r"^load_params: got '9\.weight' of shape \(1,\), the network lacks it\.$"),
        ({"1.bias": torch.zeros(1)}, r"^load_params: got '1\.bias' of shape \(1,\), the network has shape \(3,\)\.$"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(model, params, line):
    with pytest.raises(PdiffError, match=line):
        load(model, params)
