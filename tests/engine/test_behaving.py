"""Trainings through losses of networks, with losses in closed form."""

import copy

import pytest
import torch
from torch import nn

from pdiff import PdiffError
from pdiff.engine import training
from pdiff.engine.autoencoder import ConvAutoencoder, PrincipalAutoencoder
from pdiff.engine.behaving import Behaving, Decoding, OfRows
from pdiff.engine.scaling import PerCoordinate
from pdiff.engine.training import train
from pdiff.runtime import processes as group
from pdiff.runtime.seeding import generator
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import brought

SETTINGS = {
    "steps": 60, "batch_size": 4, "lr": 0.05, "weight_decay": 0.0, "schedule": "cosine", "ema": 0.0, "amp": False
}  # fmt: skip
GOALS = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
NUMBERS = torch.arange(10)


class Own(nn.Module):
    """Vectors of their own, one for each number."""

    def __init__(self, start=None):
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(10, 6) if start is None else start.clone())

    def forward(self, numbers):
        return self.vectors[numbers]


class Distance:
    """How far vectors are from their goals, moved a little at every step; it cannot be copied, as a run cannot."""

    def __init__(self, fail_at=None):
        self.fail_at = fail_at

    def __call__(self, vectors, numbers, step):
        if step == self.fail_at:
            raise KeyboardInterrupt
        moved = 0.1 * torch.randn(6, generator=generator(0, step))
        return (vectors - GOALS[numbers] - moved).square().sum(1)

    def __deepcopy__(self, memo):
        raise AssertionError("losses are not copied")


def shared(fail_at=None):
    """A linear map of rows, with what is drawn added to them."""
    torch.manual_seed(0)
    draw = lambda count, step: 0.1 * torch.randn(count, 6, generator=generator(1, step))  # noqa: E731
    return Behaving(OfRows(nn.Linear(6, 6), GOALS.flip(1)), Distance(fail_at), draw=draw)


def weights(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_the_loss_is_the_mean_over_a_batch_or_together_the_sum():
    rows, own = NUMBERS[:3], Own(GOALS + 1)
    each = Distance()(own(rows), rows, 7)
    assert Behaving(own, Distance())(rows, 7)["loss"] == each.mean()
    assert Behaving(own, Distance(), together=True)(rows, 7)["loss"] == each.sum()


def test_together_each_row_is_trained_as_it_would_be_alone():
    all_at_once = Own()
    train(
        Behaving(all_at_once, Distance(), together=True), NUMBERS, "own", None, 0, "", **SETTINGS | {"batch_size": 10}
    )
    alone, losses = Own(), Distance()
    lonely = Behaving(alone, lambda vectors, numbers, step: losses(vectors, numbers + 3, step), together=True)
    train(lonely, torch.arange(1), "own", None, 0, "", **SETTINGS | {"batch_size": 1})
    assert torch.allclose(alone.vectors[0], all_at_once.vectors[3], atol=1e-5)
    assert (all_at_once.vectors - GOALS).abs().mean() < 0.2


@pytest.mark.parametrize(
    "changes", [{}, {"ema": 0.9}, {"schedule": "constant"}, {"amp": True}, {"compile": "eager"}], ids=str
)
def test_an_interrupted_training_goes_on_to_the_same_bytes(tmp_path, monkeypatch, changes):
    settings = SETTINGS | changes
    whole = shared()
    losses = train(whole, NUMBERS, "made", None, 0, "", arithmetic="vectors", **settings)
    assert sum(losses[-5:]) < sum(losses[:5])
    monkeypatch.setattr(training, "SECONDS_BETWEEN_STATES", 0)
    with pytest.raises(KeyboardInterrupt):
        train(shared(fail_at=37), NUMBERS, "made", tmp_path, 0, "", arithmetic="vectors", **settings)
    resumed = shared(fail_at=10)  # it would fail if it started from the beginning
    assert train(resumed, NUMBERS, "made", tmp_path, 0, "", arithmetic="vectors", **settings) == losses
    assert torch.equal(weights(whole), weights(resumed))


def test_losses_see_full_precision_whatever_the_training_has():
    def losses(vectors, numbers, step):
        assert vectors.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        return (vectors @ torch.ones(6, 1)).float().square()[:, 0]

    train(Behaving(OfRows(nn.Linear(6, 6), GOALS), losses), NUMBERS, "made", None, 0, "", **SETTINGS | {"amp": True})


def test_noise_is_drawn_for_rows_and_follows_from_the_step():
    objective, rows = shared(), NUMBERS[:4]
    assert objective(rows, 3)["loss"] == shared()(rows, 3)["loss"]
    given = objective.draw(4, 3)
    expected = objective.make.module(GOALS.flip(1)[rows] + given)
    assert torch.equal(objective.vectors(rows, given), expected)
    assert not torch.equal(given, objective.draw(4, 4))


def test_a_frozen_module_is_not_trained():
    own = Own().requires_grad_(False)
    assert train(Behaving(own, Distance()), NUMBERS, "own", None, 0, "", **SETTINGS) == []


@pytest.mark.parametrize("kind", [PrincipalAutoencoder, ConvAutoencoder])
def test_decoding_gives_what_codec_and_scaling_do_and_has_gradients(kind):
    vectors = GOALS @ torch.randn(6, 70, generator=torch.Generator().manual_seed(1)) + 3
    vectors[:, 5] = 2.0
    scaling = PerCoordinate(70)
    scaling.fit(vectors, Layout.of({"vector": vectors[0]}))
    torch.manual_seed(0)
    autoencoder = kind(70, latent=4).eval()
    autoencoder.fit(scaling(vectors))
    latents = autoencoder.encode(scaling(vectors)).detach().requires_grad_(True)
    decoding = Decoding(autoencoder.trainable_decoder(), copy.deepcopy(scaling)).train()
    found, expected = decoding(latents), scaling.inverse(autoencoder.decode(latents))
    assert torch.allclose(found, expected, atol=1e-5)
    assert (found[:, 5] == 2).all()
    found.square().sum().backward()
    assert latents.grad.any()
    assert all(p.grad is not None for p in decoding.parameters() if p.requires_grad)


def test_processes_share_a_batch_and_find_what_one_alone_does(processes, tmp_path):
    whole = shared()
    losses = train(whole, NUMBERS, "made", None, 0, "", **SETTINGS)

    def work(number):
        group.join("pytorch")
        objective, seen = shared(), []
        inner = objective.losses

        def looked_at(vectors, rows, step):
            seen.append(len(rows))
            assert not torch.distributed.is_initialized()
            return inner(vectors, rows, step)

        objective.losses = looked_at
        found = train(objective, NUMBERS, "made", None, 0, "", **SETTINGS)
        assert set(seen) == {2}
        torch.save((found, weights(objective)), tmp_path / f"{number}.pt")

    started = processes(work)
    assert started.codes() == [0, 0], started.text("err")
    for number in (0, 1):
        found, own = torch.load(tmp_path / f"{number}.pt")
        assert found == pytest.approx(losses, rel=1e-3)
        assert torch.allclose(own, weights(whole), atol=1e-4)


def test_fewer_rows_than_processes_are_told(processes):
    def work(number):
        group.join("pytorch")
        with pytest.raises(PdiffError, match="batch_size: got 1, expected at least 2, one row for each process"):
            train(shared(), NUMBERS, "made", None, 0, "", **SETTINGS | {"batch_size": 1})

    started = processes(work)
    assert started.codes() == [0, 0], started.text("err")


@pytest.mark.parametrize("together", [False, True])
def test_no_step_waits_for_a_gpu_to_say_which_networks_it_has(together):
    settings = SETTINGS | {"batch_size": 10} if together else SETTINGS

    def trained(device, steps):
        torch.manual_seed(0)
        goals, kinds = GOALS.to(device), ["even", "odd"] * 5

        def losses(vectors, numbers, step):
            assert {kinds[number] for number in numbers.tolist()} <= {"even", "odd"}
            return (vectors - goals[brought(numbers, goals.device)]).square().sum(1)

        make = Own() if together else OfRows(nn.Linear(6, 6), goals.flip(1))
        objective = Behaving(make.to(device), losses, together)
        own = settings | {"steps": steps}
        return train(objective, NUMBERS, "made", None, 0, "", device=torch.device(device), **own)

    expected, waits = trained("cpu", 12), []
    for steps in (6, 12):
        with simulated_cuda() as gpu:
            found = trained("cuda", steps)
            waits.append((gpu.syncs, gpu.copies_to_host))
    assert found == expected
    assert waits[0] == waits[1], gpu.places
