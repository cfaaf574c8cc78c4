"""Networks side by side give what each gives alone, whatever ties their tensors."""

import pytest
import torch
from pdiff_plugins.classification.stacking import stacked_forward
from torch import nn

from pdiff import state_names


def network(tie: str) -> nn.Sequential:
    """Return a network with two layers of one weight, each with a bias of its own."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    weight = model[0].weight
    memory = {"memory": weight.data, "transposed": weight.data.T}
    model[2].weight = weight if tie == "parameter" else nn.Parameter(memory[tie])
    return model


@pytest.mark.parametrize("tie", ["parameter", "memory", "transposed"])
@pytest.mark.parametrize("count", [1, 4])
def test_tied_weights_are_replaced_under_all_their_names(tie, count):
    model = network(tie)
    names, x = state_names(model), torch.randn(5, 3)
    assert names == ["0.weight", "0.bias", "2.bias"]
    stack = {name: torch.randn(count, *model.state_dict()[name].shape, requires_grad=True) for name in names}
    found = stacked_forward(model, stack, x)
    found.square().sum().backward()
    gradients = {name: tensor.grad for name, tensor in stack.items()}
    for index in range(count):
        alone = network(tie)
        with torch.no_grad():
            for name in names:
                alone.state_dict()[name].copy_(stack[name][index])
        assert torch.allclose(found[index], alone(x), atol=1e-6)
        if tie == "parameter":
            alone(x).square().sum().backward()
            for name, tensor in alone.named_parameters():
                assert torch.allclose(gradients[name][index], tensor.grad, rtol=1e-4, atol=1e-5)
