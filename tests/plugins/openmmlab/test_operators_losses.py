"""The sigmoid focal loss and its gradient, against the formula differentiated by autograd, and torchvision's."""

import importlib

import pytest
import torch
import torchvision
from pdiff_plugins.openmmlab.extension import provide_operators
from torch.nn.functional import logsigmoid, one_hot

pytest.importorskip("mmcv")
pytestmark = pytest.mark.filterwarnings("ignore:.*MultiScaleDeformableAttention.*:ImportWarning")

N, C = 12, 5
ALPHA = 0.3
GAMMAS = [0.0, 0.5, 1.0, 2.0]
REDUCTIONS = {"none": lambda x: x, "sum": torch.sum, "mean": lambda x: x.sum() / N}


@pytest.fixture(scope="module")
def ops():
    """Return `mmcv.ops` with the stand-in."""
    if not provide_operators():
        pytest.skip("a compiled mmcv is installed")
    return importlib.import_module("mmcv.ops")


@pytest.fixture
def logits():
    """Return logits (N, C)."""
    torch.manual_seed(0)
    return (3 * torch.randn(N, C, dtype=torch.float64)).requires_grad_()


@pytest.fixture
def target():
    """Return labels (N,), each class at least twice."""
    return torch.arange(N) % C


@pytest.fixture
def weight():
    """Return weights of the classes (C,)."""
    return torch.linspace(0.5, 1.5, C, dtype=torch.float64)


def sigmoid_loss(logits, target, gamma) -> torch.Tensor:
    """Return the loss of every logit, with the logarithms of both probabilities taken exactly."""
    there = target[:, None] == torch.arange(C)
    p = logits.sigmoid()
    present = -ALPHA * (1 - p) ** gamma * logsigmoid(logits)
    absent = -(1 - ALPHA) * p**gamma * logsigmoid(-logits)
    return torch.where(there, present, absent)


def check(own, reference, logits) -> None:
    """Compare two losses and the gradients of a random projection."""
    torch.testing.assert_close(own, reference)
    weights = torch.randn_like(own)
    torch.testing.assert_close(*(torch.autograd.grad((loss * weights).sum(), logits) for loss in (own, reference)))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_sigmoid_focal_loss_is_the_formula(ops, logits, target, weight, gamma, reduction):
    reduce = REDUCTIONS[reduction]
    own = ops.sigmoid_focal_loss(logits, target, gamma, ALPHA, weight, reduction)
    check(own, reduce(sigmoid_loss(logits, target, gamma) * weight[target, None]), logits)
    background = target.where(torch.arange(N) > 3, C)
    layer = ops.SigmoidFocalLoss(gamma, ALPHA, reduction=reduction)
    check(layer(logits, background), reduce(sigmoid_loss(logits, background, gamma)), logits)
    weighed = ops.sigmoid_focal_loss(logits, background, gamma, ALPHA, weight, reduction)
    each = torch.cat([weight, torch.ones(1)])[background, None]
    check(weighed, reduce(sigmoid_loss(logits, background, gamma) * each), logits)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_sigmoid_focal_loss_is_that_of_torchvision(ops, logits, target, gamma):
    reference = torchvision.ops.sigmoid_focal_loss(logits, one_hot(target, C).double(), ALPHA, gamma)
    check(ops.sigmoid_focal_loss(logits, target, gamma, ALPHA, None, "none"), reference, logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_extreme_logits_have_finite_losses_and_gradients(ops, gamma, dtype):
    logits = torch.tensor([[-300.0, 300], [300, -300]], dtype=dtype, requires_grad=True)
    target, bound = torch.tensor([0, 0]), 127 * torch.tensor(2.0).log()  # of the smallest normal number, 2 ** -126
    value = ops.sigmoid_focal_loss(logits, target, gamma, ALPHA, None, "sum")
    assert 10 < value < 2 * bound
    assert torch.autograd.grad(value, logits)[0].isfinite().all()


def test_large_logits_lose_no_digits_in_single_precision(ops):
    logits = torch.tensor([[20.0, 20]], requires_grad=True)
    own = ops.sigmoid_focal_loss(logits, torch.tensor([0]), 2.0, ALPHA, None, "none")
    expected = torch.tensor([[0.3 * 2.0611536e-9**3, 0.7 * 20]])
    torch.testing.assert_close(own, expected, rtol=1e-4, atol=0)


def test_no_rows_are_no_problem(ops):
    logits = torch.zeros(0, C, requires_grad=True)
    value = ops.sigmoid_focal_loss(logits, torch.zeros(0).long(), 2.0, ALPHA, None, "sum")
    assert value == 0
    assert torch.autograd.grad(value, logits)[0].shape == (0, C)
