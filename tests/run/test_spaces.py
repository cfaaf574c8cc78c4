"""Spaces in which networks are trained on: what moves, and what does not."""

import pytest
import torch
from torch import nn

from pdiff.run.config import resolve
from pdiff.run.run import Run
from pdiff.run.spaces import Latents, Subspace, Weights, learnt_places, open_space


@pytest.fixture
def vectors() -> torch.Tensor:
    """Return three vectors of five numbers."""
    return torch.randn(3, 5, generator=torch.Generator().manual_seed(0))


def stepped(points: nn.Module, lr: float = 0.1, weight_decay: float = 0.5) -> torch.Tensor:
    """Return the vectors of all points after a step of AdamW towards 0."""
    optimizer = torch.optim.AdamW(points.parameters(), lr=lr, weight_decay=weight_decay)
    points(torch.arange(3)).square().sum().backward()
    optimizer.step()
    return points(torch.arange(3)).detach()


def test_weights_move_but_for_what_a_training_does_not_change(vectors):
    learnt = torch.tensor([True, True, False, True, False])
    points = Weights(vectors, learnt)
    assert torch.equal(points(torch.tensor([2, 0])), vectors[[2, 0]])
    moved = stepped(points)
    assert torch.equal(moved[:, ~learnt], vectors[:, ~learnt]), "not even by weight decay"
    assert (moved != vectors)[:, learnt].all()
    assert list(points.state_dict()) == ["points"]


def test_a_subspace_is_left_by_no_step(vectors):
    axes = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0, 0.0]])
    points = Subspace(vectors, axes)
    assert torch.equal(points(torch.arange(3)), vectors)
    moved = stepped(points, weight_decay=0.0) - vectors
    assert not moved[:, [1, 3, 4]].any()
    torch.testing.assert_close(moved[:, [0, 2]].abs(), torch.tensor([[0.1, 0.2]]).expand(3, 2), rtol=1e-3, atol=0)


def test_vectors_move_with_their_latents_and_keep_what_these_do_not_express(vectors):
    decode = nn.Linear(2, 5).requires_grad_(False)
    before = decode.weight.clone()
    points = Latents(vectors, torch.zeros(3, 2), decode)
    torch.testing.assert_close(points(torch.arange(3)).detach(), vectors)
    moved = stepped(points) - vectors
    assert moved.any(1).all()
    _, _, axes = torch.linalg.svd(before.T)
    torch.testing.assert_close(moved @ axes[2:].T, torch.zeros(3, 3), rtol=0, atol=1e-5)
    assert torch.equal(decode.weight, before)
    assert list(points.state_dict()) == ["points"], "a state without the decoder"


def test_running_statistics_are_not_learnt(finished):
    run = Run(resolve(finished.config()), finished)
    learnt = learnt_places(run)
    for entry in run.layout:
        assert learnt[entry.slice].all() == ("running" not in entry.name)
        assert learnt[entry.slice].any() == learnt[entry.slice].all()


@pytest.mark.parametrize("space", ["latent", "weights", "subspace"])
def test_a_space_of_a_run_begins_with_the_vectors(finished, space):
    run = Run(resolve(finished.config()), finished)
    vectors = run.population.tensor()[:3]
    points = open_space(run, space, 2)(vectors)
    torch.testing.assert_close(points(torch.arange(3)).detach(), vectors, rtol=1e-5, atol=1e-6)
    assert [name for name, _ in points.named_parameters()] == ["points"]
