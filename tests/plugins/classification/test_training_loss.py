"""The hook `losses`: what the training minimises at each of its steps, and with the same gradients."""

import copy
import itertools
from collections.abc import Mapping, Sequence

import pytest
import torch
import yaml
from torch import Tensor

from pdiff import unpack
from pdiff.run.behaviour import Behaviour
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.errors import PdiffError
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import load_plugin
from pdiff.testing import check_plugin
from pdiff.weights.conditions import Conditions

HOOK = load_plugin("classification").hook
NOISE = [{"type": "shift"}, {"type": "noise", "std": 0.3}]
CHANCE = {"type": "timm", "name": "test_resnet", "options": {"drop_rate": 0.5}}
BRANCHES = {
    "plugin": "classification",
    "device": "cpu",
    "select": "head",
    "task": {
        "network": {"type": "mlp", "hidden": [8]},
        "data": {"type": "digits", "size": 8, "train": 70, "select": 64},
    },
    "collect": {
        "branches": 2,
        "train": {"epochs": 1, "batch_size": 32},
        "finetune": {"warmup": 2, "steps": 4, "batch_size": 32, "augment": NOISE},
    },
}


@pytest.fixture
def branches() -> dict:
    """The values of a tiny config of two fine-tunings, to be changed at will."""
    return copy.deepcopy(BRANCHES)


def stack_of(selections: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors `(n, ...)` of n selections."""
    return {name: torch.stack([params[name] for params in selections]) for name in selections[0]}


def losses(case, selections, step: int, conditions: Sequence[dict] | None = None) -> Tensor:
    """Return what the hook gives for selections."""
    given = {"task": case.task, "cfg": case.cfg, "params": stack_of(selections), "step": step}
    return HOOK.losses(**given, conditions=conditions and Conditions.of(conditions))


def snapshots_of(case) -> list:
    """Return the snapshots that hold a selection."""
    return [snapshot for snapshot in case.collect() if snapshot.params]


def gradients(case, selection, step: int, conditions: Sequence[dict] | None = None) -> dict[str, Tensor]:
    """Return the gradients of one selection's loss."""
    learnt = {name for name, _ in case.task.model.named_parameters()}
    own = {name: tensor.clone().requires_grad_(name in learnt) for name, tensor in selection.items()}
    found = [tensor for tensor in own.values() if tensor.requires_grad]
    each = torch.autograd.grad(losses(case, [own], step, conditions)[0], found)
    return dict(zip([name for name in own if name in learnt], each, strict=True))


def assert_close(found, expected) -> None:
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "select", "mode"),
    [
        ({"type": "mlp", "hidden": [8]}, "head", "eval"),
        ({"type": "mlp", "hidden": [8]}, "all", "train"),
        ({"type": "timm", "name": "test_resnet"}, "last_norms(2)", "eval"),
        ({"type": "timm", "name": "test_resnet"}, "all+buffers", "eval"),
        ({"type": "timm", "name": "test_resnet"}, "last_norms(2)+buffers", "train"),
        (CHANCE, "all+buffers", "train"),
    ],
)
def test_loss_is_that_of_the_training_at_every_step_of_the_first_branch(branches, conditional, network, select, mode):
    branches["task"]["network"] = network
    branches["select"] = select
    branches["collect"]["finetune"]["mode"] = mode
    case = conditional(branches)
    first = snapshots_of(case)[:4]
    assert [snapshot.provenance["step"] for snapshot in first] == [3, 4, 5, 6]
    for one, other in itertools.pairwise(first):
        found = losses(case, [one.params], one.provenance["step"])
        assert_close(found, [other.provenance["loss"]])


@pytest.mark.parametrize(("select", "mode"), [("last_norms(2)", "eval"), ("all+buffers", "train")])
def test_gradients_are_those_of_the_first_step_of_the_fine_tuning(branches, conditional, select, mode):
    branches["task"]["network"] = {"type": "timm", "name": "test_resnet"}
    branches["select"] = select
    branches["collect"]["finetune"].update(mode=mode, warmup=0)
    case = conditional(branches)
    kept = unpack(snapshots_of(case)[0].state)
    found = gradients(case, kept["base"], 0)
    moments = kept["optimizer"]["state"]
    assert len(moments) == len(found)
    for moment, gradient in zip(moments.values(), found.values(), strict=True):
        assert_close(gradient, moment["exp_avg"] / (1 - 0.9))


def test_another_step_has_other_images_and_the_same_step_the_same(branches, conditional):
    case = conditional(branches)
    params = snapshots_of(case)[0].params
    found = [losses(case, [params], step).item() for step in (0, 1, 2, 3, 400, 0)]
    assert len(set(found)) == 5
    assert found[0] == found[-1]


def test_many_selections_have_each_the_loss_that_it_has_alone(branches, conditional):
    case = conditional(branches)
    selections = [snapshot.params for snapshot in snapshots_of(case)]
    together = losses(case, selections, 1)
    assert_close(together, torch.cat([losses(case, [params], 1) for params in selections]))


def zoo_of(values: dict, conditional, **networks):
    """Return the case and the snapshots of a zoo, one after each of its last steps."""
    values["collect"]["networks"].update({"steps": 7, "snapshots": 6, "every": 1, **networks})
    case = conditional(values)
    return case, snapshots_of(case)


def test_loss_of_a_zoo_is_that_of_its_first_network(zoo, conditional):
    case, snapshots = zoo_of(zoo, conditional)
    for one, other in itertools.pairwise(snapshots[:6]):
        assert_close(losses(case, [one.params], one.provenance["step"]), [other.provenance["loss"]])
    one, other = snapshots[6:8]
    assert abs(losses(case, [one.params], one.provenance["step"]).item() - other.provenance["loss"]) > 1e-3


def test_loss_of_a_zoo_with_batch_statistics_and_augmentations_is_that_of_its_first_network(zoo, conditional):
    zoo["task"]["network"] = CHANCE
    zoo["select"] = "all+buffers"
    zoo["collect"]["seeds"] = 2
    case, snapshots = zoo_of(zoo, conditional, batch_size=16, augment=NOISE)
    for one, other in itertools.pairwise(snapshots[:6]):
        assert_close(losses(case, [one.params], one.provenance["step"]), [other.provenance["loss"]])


KINDS = {
    "subsets": {"type": "subsets", "limit": 12},
    "rotation": {"type": "rotation", "angles": [-60, 60, 7]},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 5])
def test_losses_for_conditions_are_those_of_the_networks_trained_for_them(subsets, conditional, kind, steps):
    subsets["task"]["conditions"] = KINDS[kind]
    subsets["collect"]["networks"].update(steps=steps, lr=0.0, augment=NOISE)  # as they began, whatever the step
    case = conditional(subsets)
    snapshots = snapshots_of(case)
    conditions = [snapshot.condition for snapshot in snapshots]
    found = losses(case, [snapshot.params for snapshot in snapshots], steps - 1, conditions)
    assert len(set(found.tolist())) == len(snapshots)
    assert_close(found, [snapshot.provenance["loss"] for snapshot in snapshots])
    turned = [conditions[-1], *conditions[:-1]]
    assert (losses(case, [snapshot.params for snapshot in snapshots], steps - 1, turned) - found).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_losses_for_conditions_of_networks_with_batch_statistics_are_those_of_the_training(subsets, conditional, mode):
    subsets["task"]["network"] = {"type": "timm", "name": "test_resnet"}
    subsets["task"]["conditions"]["limit"] = 4
    subsets["select"] = "all+buffers"
    networks = {"steps": 2, "lr": 0.0, "batch_size": 16, "mode": mode}
    subsets["collect"] = {"together": 2, "networks": networks}
    case = conditional(subsets)
    snapshots = snapshots_of(case)
    found = losses(case, [s.params for s in snapshots], 1, [s.condition for s in snapshots])
    assert_close(found, [snapshot.provenance["loss"] for snapshot in snapshots])


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_for_conditions_are_those_of_the_first_step_of_the_training(subsets, conditional, kind):
    """AdamW goes in its first step by lr g / (|g| + eps), from which the gradient follows."""
    subsets["task"]["conditions"] = KINDS[kind]
    subsets["collect"]["networks"].update(steps=1, lr=1.0, eps=1.0, augment=NOISE)
    case = conditional(subsets)
    begun = {name: tensor.clone() for name, tensor in case.task.model.state_dict().items()}
    for snapshot in snapshots_of(case)[:3]:
        found = gradients(case, begun, 0, [snapshot.condition])
        for name, gradient in found.items():
            assert gradient.any()
            expected = begun[name] - gradient / (gradient.abs() + 1)
            torch.testing.assert_close(snapshot.params[name], expected, rtol=1e-4, atol=1e-6)


def test_batches_go_on_behind_the_last_step_of_the_training(subsets, conditional):
    case = conditional(subsets)
    snapshots = snapshots_of(case)[:2]
    given = [snapshot.params for snapshot in snapshots], [snapshot.condition for snapshot in snapshots]
    found = torch.stack([losses(case, given[0], step, given[1]) for step in (0, 19, 20, 1000)])
    assert found.isfinite().all()
    assert len(found[:, 0].unique()) == 4


@pytest.mark.parametrize(
    ("conditions", "line"),
    [
        (None, r"^task\.conditions: got candidates without them, expected class0, class1, "),
        ([{"angle": 1.0}], r"^task\.conditions: got candidates for angle, expected class0, class1, "),
    ],
)
def test_losses_for_no_condition_of_the_task_are_refused(subsets, conditional, conditions, line):
    case = conditional(subsets)
    with pytest.raises(PdiffError, match=line):
        losses(case, [case.task.model.state_dict()], 0, conditions)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"batch_size": 0}, r"^collect\.finetune\.batch_size: got 0, expected an integer from 1 on\.$"),
        ({"mode": "x"}, r"^collect\.finetune\.mode: got 'x'\. Known: eval, train\.$"),
        ({"augment": [{"type": "x"}]}, r"^collect\.finetune\.augment"),
    ],
)
def test_settings_that_train_nothing_are_refused_as_by_the_training(branches, conditional, changes, line):
    branches["collect"]["finetune"].update(changes)
    case = conditional(branches)
    with pytest.raises(PdiffError, match=line):
        losses(case, [case.task.model.state_dict()], 0)


def test_networks_from_files_have_a_loss_though_nobody_says_how_they_were_trained(zoo, conditional, tmp_path):
    _, snapshots = zoo_of(zoo, conditional)
    for number, snapshot in enumerate(snapshots[:12]):
        torch.save(dict(snapshot.params), tmp_path / f"{number}_angle={number}.pth")
    zoo["collect"] = {}
    zoo["checkpoints"] = {"files": str(tmp_path / "*.pth")}
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve(zoo), directory, ["collect"], gates=False)
    run = Run(resolve(zoo), directory)
    vectors = run.collected.tensor()[:3]
    plain = Behaviour(run)(vectors, torch.zeros(3), 0)
    named = Conditions(["angle"], torch.arange(3.0)[:, None])
    assert torch.equal(Behaviour(run, named)(vectors, torch.arange(3), 0), plain)
    assert plain.isfinite().all()
    assert len(plain.unique()) == 3


@pytest.mark.parametrize("name", ["branches", "zoo", "subsets"])
def test_hook_keeps_the_rules(request, tmp_path, name):
    values = request.getfixturevalue(name)
    if name == "zoo":
        values["collect"]["networks"].update(snapshots=4, every=1)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
    finding = {found.check: found for found in check_plugin("classification", str(tmp_path / "tiny.yaml"))}["loss"]
    told = {"subsets": "the first step of finetune goes against it for 4 conditions"}
    assert finding.state == "passed", finding.line
    assert finding.line.endswith(told.get(name, "what collect minimised at 3 steps"))
