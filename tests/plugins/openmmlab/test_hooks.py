"""What pdiff adds to mmengine's training: seeds, frozen parts, snapshots and rests, on a network of a few numbers."""

import itertools
import random

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from pdiff_plugins.openmmlab import hooks
from pdiff_plugins.openmmlab.collection import TaskRunner
from pdiff_plugins.openmmlab.hooks import FreezeAllBut, Rests, SeedSteps, Snapshots, freeze_all_but
from torch import nn
from torch.utils.data import DataLoader
from torchvision.ops import FrozenBatchNorm2d

from pdiff.engine.training import ShowProgress
from pdiff.runtime.packing import unpack
from pdiff.runtime.seeding import isolated_seed
from pdiff.weights.select import select

STEPS = 6


class Toy(BaseModel):
    """A network with every kind of normalisation, and with dropout, so that a step draws random numbers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.fixed = FrozenBatchNorm2d(4)
        self.head = nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(64, 2))

    def forward(self, inputs, mode: str = "loss"):
        """Return a loss that is never 0."""
        output = self.head(self.fixed(self.body(self.stem(inputs))))
        return {"loss": (output - inputs.mean((1, 2, 3))[:, None] - 1).square().mean(), "size": output.detach().mean()}


@pytest.fixture
def toy():
    """Return the network, the same each time."""
    with isolated_seed(0):
        return Toy()


def copies(model) -> dict[str, torch.Tensor]:
    """Return a copy of a network's state dict."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one, other) -> bool:
    """Say whether two sets of named tensors are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def train(tmp_path):
    """Return a function from a network and hooks to mmengine's Runner behind a training of six steps, or two epochs."""

    def run(model, *hooks, by_epoch: bool = False, steps: int = STEPS, scheduler=(), **settings):
        images = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        loop = {"type": "IterBasedTrainLoop", "max_iters": steps}
        given = {
            "model": model,
            "work_dir": str(tmp_path / "logs"),
            "train_dataloader": DataLoader([{"inputs": image} for image in images], batch_size=2),
            "train_cfg": {"by_epoch": True, "max_epochs": 2} if by_epoch else loop,
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9}},
            "param_scheduler": list(scheduler),
            "custom_hooks": [SeedSteps(0), *hooks],
            "default_hooks": {"checkpoint": None},
        }
        runner = TaskRunner(name="toy", device=torch.device("cpu"), **{**given, **settings})
        try:
            runner.train()
        finally:
            runner.close_log()
        return runner

    return run


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch):
    """Let mmengine not wait two seconds whenever the data are used up."""
    monkeypatch.setattr("mmengine.runner.loops.time.sleep", lambda seconds: None)


class Watch(Hook):
    """Keeps what a function finds before each step, behind all other hooks."""

    priority = "LOWEST"

    def __init__(self, look):
        self.look, self.seen = look, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        """Look."""
        self.seen.append(self.look(runner))


def draws(runner) -> tuple:
    """Return what each global generator would draw next."""
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_what_a_step_draws_depends_on_seed_and_number_alone(toy, train):
    through = Watch(draws)
    train(toy, through)
    behind = Watch(draws)
    train(toy, SeedSteps(0, first=2), behind, steps=4)
    assert behind.seen == through.seen[2:]
    assert len(set(through.seen)) == STEPS
    other = Watch(draws)
    train(toy, SeedSteps(1), other)
    assert not set(other.seen) & set(through.seen)


def test_progress_advances_once_a_step(toy, train):
    counted = []
    train(toy, ShowProgress(lambda: counted.append(1)))
    assert len(counted) == STEPS


NORM = "module(body.1)"
SELECTIONS = ["all", "head", "norms", "last_norms(2)", NORM, "module(stem.0)+module(head.2)", "regex(weight)"]


def names_of(model, selector: str) -> list[str]:
    """Return the names that a selector means."""
    return select(model, selector, ["head"])


@pytest.mark.parametrize("selector", SELECTIONS)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_gradients_reach_the_selection_alone(toy, selector, mode):
    names = names_of(toy, selector)
    statistics = [name for name in copies(toy) if name.endswith(("mean", "var", "tracked"))]
    tensors = freeze_all_but(toy, [*names, *statistics], mode)
    found = {name for name, tensor in toy.state_dict(keep_vars=True).items() if tensor.requires_grad}
    assert found == set(names)
    assert {id(tensor) for tensor in tensors} == {id(toy.state_dict(keep_vars=True)[name]) for name in names}


def test_trained_tensors_come_in_the_order_of_the_network(toy):
    # The optimiser's state knows them by their number.
    own = toy.state_dict(keep_vars=True)
    names = names_of(toy, "all")
    assert [id(tensor) for tensor in freeze_all_but(toy, names, "eval")] == [id(own[name]) for name in names]


def test_running_statistics_have_no_gradient_though_they_are_selected(toy):
    names = names_of(toy, f"{NORM}+buffers")
    tensors = freeze_all_but(toy, names, "train")
    assert {id(tensor) for tensor in tensors} == {id(toy.body[1].weight), id(toy.body[1].bias)}
    assert freeze_all_but(toy, ["body.1.running_mean", "body.1.num_batches_tracked"], "train") == []


def test_what_was_frozen_is_trained_when_it_is_selected(toy):
    freeze_all_but(toy, names_of(toy, "head"), "eval")
    names = names_of(toy, "module(stem)+module(fixed)")
    freeze_all_but(toy, names, "eval")
    assert [name for name, tensor in toy.state_dict(keep_vars=True).items() if tensor.requires_grad] == names
    assert {"fixed.weight", "fixed.bias"} <= set(names)


def test_a_frozen_normalisation_is_frozen_again_when_it_is_not_selected(toy):
    freeze_all_but(toy, ["fixed.weight", "fixed.bias"], "eval")
    freeze_all_but(toy, names_of(toy, "head"), "eval")
    assert not toy.fixed.weight.requires_grad


def modes(model) -> dict[str, bool]:
    """Return which modules are in training mode."""
    return {name: module.training for name, module in model.named_modules()}


NORMS = {"stem.1", "body.1", "fixed", "head.0"}


@pytest.mark.parametrize(
    ("selector", "mode", "training"),
    [
        ("all", "eval", set()),
        (NORM, "eval", set()),
        ("module(head.2)", "train", set()),
        (f"{NORM}+buffers", "train", {"body.1"}),
        (f"{NORM}+module(head)+buffers", "train", {"body.1", "head.0"}),
    ],
)
def test_only_selected_normalisations_are_ever_in_training_mode(toy, selector, mode, training):
    toy.train()
    freeze_all_but(toy, names_of(toy, selector), mode)
    found = modes(toy)
    assert {name for name in NORMS if found[name]} == training
    assert all(found[name] for name in found.keys() - NORMS)


def test_modes_and_gradients_are_set_before_every_step(toy, train):
    class Undo(Hook):
        """Trains everything again after each step."""

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            runner.model.train()
            runner.model.requires_grad_(True)

    watch = Watch(lambda runner: (modes(runner.model), [p.requires_grad for p in runner.model.parameters()]))
    names = names_of(toy, NORM)
    train(toy, FreezeAllBut(names, "eval"), Undo(), watch)
    for found, gradients in watch.seen:
        assert [name for name in NORMS if found[name]] == []
        assert all(found[name] for name in found.keys() - NORMS)
        assert gradients == [name in names for name, _ in toy.named_parameters()]


def changed(model, before) -> set[str]:
    """Return the names of what is no longer as it was."""
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


STATISTICS = {"body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"}


@pytest.mark.parametrize(
    ("selector", "mode", "more"),
    [("all", "eval", set()), (NORM, "eval", set()), (f"{NORM}+buffers", "train", STATISTICS), ("head", "train", set())],
)
def test_training_changes_the_selection_alone(toy, train, selector, mode, more):
    before, names = copies(toy), names_of(toy, selector)
    tensors = freeze_all_but(toy, names, mode)
    wrapper = OptimWrapper(torch.optim.SGD(tensors, lr=0.05))
    train(toy, FreezeAllBut(names, mode), optim_wrapper=wrapper)
    assert changed(toy, before) == set(names)
    assert more <= set(names)


class Collected:
    """What is handed over; None for a chance to stop."""

    def __init__(self):
        self.items = []

    def __call__(self, item):
        self.items.append(item)

    @property
    def snapshots(self) -> list:
        """Return the snapshots without the chances."""
        return [item for item in self.items if item is not None]


@pytest.mark.parametrize("every", [1, 2, 4])
def test_a_snapshot_is_handed_over_every_few_steps_and_a_chance_to_stop_at_the_others(toy, train, every):
    emit, names = Collected(), names_of(toy, "head")
    train(toy, Snapshots(emit, names, {"branch": 3}, {"base": {}}, 0, every, None))
    steps = range(1, STEPS + 1)
    assert [item and item.provenance["step"] for item in emit.items] == [None if n % every else n for n in steps]
    for snapshot in emit.snapshots:
        assert list(snapshot.params) == names
        assert snapshot.provenance.keys() == {"branch", "step", "loss", "size"}
        assert snapshot.provenance["branch"] == 3
        assert all(type(snapshot.provenance[name]) is float for name in ("loss", "size"))


def test_steps_that_were_done_before_count(toy, train):
    emit = Collected()
    train(toy, Snapshots(emit, ["head.2.bias"], {}, {}, 3, 2, None))
    assert [snapshot.provenance["step"] for snapshot in emit.snapshots] == [4, 6, 8]


def test_the_first_snapshot_is_handed_over_behind_the_warm_up(toy, train):
    emit = Collected()
    train(toy, Snapshots(emit, ["head.2.bias"], {}, {}, 0, 2, None, warmup=1))
    assert [item and item.provenance["step"] for item in emit.items] == [None, None, 3, None, 5, None]


def test_snapshots_are_copies_of_the_selection(toy, train):
    emit, names = Collected(), names_of(toy, "head")
    train(toy, Snapshots(emit, names, {}, {}, 0, 1, None))
    params = [snapshot.params for snapshot in emit.snapshots]
    assert all(not equal(a, b) for a, b in itertools.combinations(params, 2))
    assert equal(params[-1], {name: toy.state_dict()[name] for name in names})
    assert not any(tensor.requires_grad for row in params for tensor in row.values())


def test_a_state_holds_the_selection_the_optimizer_the_place_and_what_is_to_be_kept(toy, train):
    emit, base = Collected(), {"head.2.bias": torch.ones(2)}
    train(toy, Snapshots(emit, ["head.2.bias"], {"branch": 1}, {"base": base}, 0, 4, None))
    (snapshot,) = emit.snapshots
    state = unpack(snapshot.state)
    assert (state["step"], state["branch"]) == (4, 1)
    assert equal(state["base"], base)
    assert equal(state["selected"], snapshot.params)
    assert len(state["optimizer"]["state"]) == len(list(toy.parameters()))


def momentum(snapshot, number: int) -> torch.Tensor:
    """Return the momentum of a parameter; behind the first step this is its gradient."""
    return unpack(snapshot.state)["optimizer"]["state"][number]["momentum_buffer"]


def test_an_optimizer_gets_its_state_back(toy, train):
    first, again = Collected(), Collected()
    before = copies(toy)
    train(toy, Snapshots(first, ["head.2.bias"], {}, {}, 0, 1, None))
    state = unpack(first.snapshots[2].state)["optimizer"]
    toy.load_state_dict(before)
    train(toy, Snapshots(again, ["head.2.bias"], {}, {}, 0, 1, state), steps=1)
    for number in range(len(list(toy.parameters()))):
        gradient, old = (momentum(first.snapshots[step], number) for step in (0, 2))
        torch.testing.assert_close(momentum(again.snapshots[0], number), 0.9 * old + gradient)


@pytest.fixture
def no_pause(monkeypatch):
    """Let a training rest as often as it can."""
    monkeypatch.setattr(hooks, "SECONDS_BETWEEN_RESTS", 0)


def places(emit: Collected) -> list[tuple]:
    """Return the iteration and the epoch of every rest."""
    assert all(snapshot.params == {} for snapshot in emit.snapshots)
    states = [unpack(snapshot.state) for snapshot in emit.snapshots]
    return [(state["iter"], state["epoch"]) for state in states]


def test_a_training_by_iterations_can_rest_after_each(toy, train, no_pause):
    emit = Collected()
    train(toy, Rests(emit, None))
    assert places(emit) == [(step, 0) for step in range(1, STEPS + 1)]
    assert emit.items.count(None) == STEPS


def test_a_training_by_epochs_rests_between_them(toy, train, no_pause):
    emit = Collected()
    train(toy, Rests(emit, None), by_epoch=True)
    assert places(emit) == [(3, 1), (6, 2)]
    assert emit.items.count(None) == STEPS


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_short_training_rests_at_its_end_alone(toy, train, by_epoch):
    emit = Collected()
    rests = Rests(emit, None)
    train(toy, rests, by_epoch=by_epoch)
    assert places(emit) == [(6, 2 if by_epoch else 0)]
    assert equal(rests.weights, toy.state_dict())
    assert equal(unpack(emit.snapshots[0].state)["state_dict"], toy.state_dict())


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_training_that_goes_on_from_its_end_has_its_weights(toy, train, by_epoch):
    emit = Collected()
    train(toy, Rests(emit, None), by_epoch=by_epoch)
    rests = Rests(Collected(), unpack(emit.snapshots[-1].state))
    train(Toy(), rests, by_epoch=by_epoch)
    assert equal(rests.weights, toy.state_dict())


class Stop(Hook):
    """Ends a training early, as mmengine's EarlyStoppingHook does."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """End it behind the second step."""
        runner.train_loop.stop_training = batch_idx == 1


def test_a_training_that_a_hook_ends_early_has_its_weights(toy, train):
    rests = Rests(Collected(), None)
    train(toy, rests, Stop())
    assert equal(rests.weights, toy.state_dict())


LINEAR = {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 4}
STEPWISE = {"type": "MultiStepLR", "milestones": [1], "gamma": 0.1, "by_epoch": True}


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_training_goes_on_from_any_rest_as_if_it_had_not_ended(toy, train, no_pause, by_epoch):
    emit, initial = Collected(), copies(toy)
    scheduler = [LINEAR, STEPWISE] if by_epoch else [LINEAR]
    settings = {"by_epoch": by_epoch, "scheduler": scheduler}
    rates = Watch(lambda runner: (runner.iter, runner.epoch, tuple(runner.optim_wrapper.get_lr()["lr"])))
    train(toy, Rests(emit, None), rates, **settings)
    assert not equal(initial, toy.state_dict())
    for number, snapshot in enumerate(emit.snapshots[:-1]):
        again, behind = Collected(), Watch(rates.look)
        other = Toy()
        train(other, Rests(again, unpack(snapshot.state)), behind, **settings)
        assert equal(other.state_dict(), toy.state_dict())
        assert behind.seen == rates.seen[-len(behind.seen) :]
        rest = emit.snapshots[number + 1 :]
        assert all(equal(a.state, b.state) for a, b in zip(again.snapshots, rest, strict=True))
