import pytest
import torch

from pdiff.engine.conditional_mlp import ConditionalMLP


def made(condition=0):
    torch.manual_seed(0)
    return ConditionalMLP(3, 5, 8, 2, condition)


def test_it_gives_as_many_outputs_as_asked_for():
    assert made()(torch.randn(4, 3)).shape == (4, 5)


def test_an_output_depends_on_its_row_alone_and_on_its_condition():
    network, x, c = made(2), torch.randn(4, 3), torch.randn(4, 2)
    other = c.clone()
    other[0] += 1
    apart = (network(x, c) - network(x, other)).abs().amax(1)
    assert apart[0] > 0
    assert (apart[1:] == 0).all()


@pytest.mark.parametrize("condition", [1, 2])
def test_no_conditions_are_rows_of_nan(condition):
    network, x = made(condition), torch.randn(4, 3)
    assert torch.equal(network(x), network(x, torch.full((4, condition), float("nan"))))
