"""The hook that tells the training loss: what the collection minimised, to the last bit, with its gradients."""

import math

import pytest
import torch

from pdiff import Conditions, PdiffError, parameter_names, unpack
from pdiff.run.config import resolve
from pdiff.task.plugins import load_plugin

HOOK = load_plugin("generation").hook
NAMES = [str(digit) for digit in range(10)]
AUGMENT = [{"type": "noise", "std": 0.1}]


@pytest.fixture
def branch(tiny_generator) -> dict:
    """The values of a tiny config with a warm-up and augmented images."""
    tiny_generator["collect"]["finetune"] |= {"warmup": 2, "augment": AUGMENT, "weight_decay": 0.0}
    return tiny_generator


@pytest.fixture
def sets(tiny_generator) -> dict:
    """The values of a tiny config with a network for each of four sets of digits."""
    tiny_generator["select"] = "norms"
    tiny_generator["collect"] = {
        "conditions": {"type": "classes", "subsets": 4, "size": [3, 5]},
        "train": {"epochs": 1, "batch_size": 48},
        "networks": {"steps": 3, "batch_size": 6, "lr": 1e-2, "augment": AUGMENT},
        "together": 3,
    }
    return tiny_generator


class Collected:
    """What a config collects, and its losses.

    Args:
        values: of the config.
        build: makes the task.
    """

    def __init__(self, values: dict, build):
        self.cfg, self.task = resolve(values), build(values)
        self.names = HOOK.select_params(task=self.task, cfg=self.cfg)
        given = {"task": self.task, "names": self.names, "cfg": self.cfg, "state": None, "folder": None}
        found = [snapshot for snapshot in HOOK.collect(**given, branch=None) if snapshot.params]
        self.snapshots, self.base = found, unpack(found[0].state)["base"]
        self.learnt = [name for name in self.names if name in parameter_names(self.task.model)]

    def stack(self, many: list[dict]) -> dict:
        """Return selections as one, with gradients."""
        stack = {name: torch.stack([tensors[name] for tensors in many]) for name in self.names}
        return {name: tensor.requires_grad_(name in self.learnt) for name, tensor in stack.items()}

    def losses(self, params: dict, step: int, conditions: Conditions | None = None) -> torch.Tensor:
        """Return what the hook gives."""
        return HOOK.losses(task=self.task, cfg=self.cfg, params=params, conditions=conditions, step=step)


def equal(one, other) -> bool:
    """Say whether two sets of named tensors are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_loss_is_that_of_the_next_step_of_the_first_branch(build, branch):
    run = Collected(branch, build)
    for one, following in zip(run.snapshots, run.snapshots[1:], strict=False):
        step = one.provenance["step"]
        loss = run.losses(run.stack([one.params]), step)
        assert loss.shape == (1,)
        assert loss.item() == following.provenance["loss"]
        assert run.losses(run.stack([one.params]), step + 1).item() != loss.item()


def test_training_by_the_hook_makes_the_networks_of_the_first_branch(build, branch):
    run = Collected(branch, build)
    stack = run.stack([run.base])
    optimizer = torch.optim.AdamW([stack[name] for name in run.learnt], lr=1e-2, weight_decay=0.0)
    for step in range(3):
        optimizer.zero_grad()
        run.losses(stack, step).sum().backward()
        optimizer.step()
    assert equal({name: tensor[0].detach() for name, tensor in stack.items()}, run.snapshots[0].params)


def test_training_by_the_hook_makes_the_network_of_each_set(build, sets):
    run = Collected(sets, build)
    few = [run.snapshots[place] for place in (3, 0)]
    conditions = Conditions.of([snapshot.condition for snapshot in few])
    stack = run.stack([run.base, run.base])
    optimizer = torch.optim.AdamW([stack[name] for name in run.learnt], lr=1e-2, weight_decay=0.0, fused=True)
    for step in range(3):
        optimizer.param_groups[0]["lr"] = 1e-2 * 0.5 * (1 + math.cos(math.pi * step / 3))
        optimizer.zero_grad()
        losses = run.losses(stack, step, conditions)
        losses.sum().backward()
        optimizer.step()
    assert losses.tolist() == [snapshot.provenance["loss"] for snapshot in few]
    for place, snapshot in enumerate(few):
        assert equal({name: tensor[place].detach() for name, tensor in stack.items()}, snapshot.params)


def test_loss_of_a_network_does_not_depend_on_the_others(build, sets):
    run = Collected(sets, build)
    conditions = Conditions.of([snapshot.condition for snapshot in run.snapshots])
    whole = run.losses(run.stack([snapshot.params for snapshot in run.snapshots]), 7, conditions)
    for place, snapshot in enumerate(run.snapshots):
        alone = run.losses(run.stack([snapshot.params]), 7, conditions.take([place]))
        assert alone.item() == whole[place].item()


def test_several_networks_share_the_batch_of_a_step(build, branch):
    run = Collected(branch, build)
    whole = run.losses(run.stack([snapshot.params for snapshot in run.snapshots]), 5)
    alone = [run.losses(run.stack([snapshot.params]), 5) for snapshot in run.snapshots]
    assert whole.tolist() == torch.cat(alone).tolist()
    assert len(set(whole.tolist())) == len(whole)


def test_nothing_but_the_selection_has_a_gradient_and_the_network_stays_as_it_is(build, branch):
    run = Collected(branch, build)
    before = {name: tensor.clone() for name, tensor in run.task.model.state_dict().items()}
    run.task.model.zero_grad()  # what the training of the base left
    stack = run.stack([run.base])
    run.losses(stack, 0).sum().backward()
    assert all(stack[name].grad.any() for name in run.learnt)
    assert all(tensor.grad is None for tensor in run.task.model.parameters())
    assert equal(run.task.model.state_dict(), before)


def test_a_run_from_files_without_settings_of_a_training_has_a_loss(build, branch):
    run = Collected(branch, build)
    run.cfg.collect = {}
    assert run.losses(run.stack([run.base]), 0).isfinite().all()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"mode": "test"}, r"^collect\.finetune\.mode: got 'test'"),
        ({"batch_size": 0}, r"^collect\.finetune\.batch_size: got 0, expected an integer from 1 on"),
        ({"augment": [{"type": "flop"}]}, r"^collect\.finetune\.augment.*: got 'flop'"),
    ],
)
def test_unsound_settings_are_refused(build, branch, change, line):
    run = Collected(branch, build)
    branch["collect"]["finetune"] |= change
    run.cfg = resolve(branch)
    with pytest.raises(PdiffError, match=line):
        run.losses(run.stack([run.base]), 0)


def test_networks_for_other_conditions_are_refused(build, sets):
    run = Collected(sets, build)
    with pytest.raises(PdiffError, match=r"^condition: got the names angle, expected classes\.0, "):
        run.losses(run.stack([run.base]), 0, Conditions.of([{"angle": 1.0}]))


def test_plugin_that_is_loaded_again_after_a_call_still_has_the_hook(build, branch):
    run = Collected(branch, build)
    run.losses(run.stack([run.base]), 0)
    assert load_plugin("generation").hook.losses.get_hookimpls()
