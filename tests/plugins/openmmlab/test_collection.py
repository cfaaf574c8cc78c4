"""Collection from a detector: base training, what fine-tuning changes, and the way back into an interrupted one."""

import copy
import dataclasses
import itertools
import json
import logging
import multiprocessing
import random
import shutil
import threading

import numpy as np
import pytest
import torch

pytest.importorskip("mmdet")

from mmengine.config import Config
from mmengine.hooks import RuntimeInfoHook
from pdiff_plugins.openmmlab import collection, hooks
from pdiff_plugins.openmmlab.collection import snapshots, training_loader
from pdiff_plugins.openmmlab.data import build_splits, use_root
from pdiff_plugins.openmmlab.libraries import MMDET
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.packing import unpack
from pdiff.runtime.registry import call
from pdiff.runtime.storage import read_tensors, write_tensors
from pdiff.weights.select import is_norm, select

NONE = {"enabled": False}
SGD = {"type": "SGD", "lr": 1e-2}
ADAMW = {"type": "AdamW", "lr": 1e-3}
NORM = "module(backbone.layer3.1.bn2)"
CPU = torch.device("cpu")


def copies(tensors) -> dict[str, torch.Tensor]:
    """Return copies that further training does not change."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def equal(one, other) -> bool:
    """Say whether two sets of named tensors are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Collection:
    """All snapshots of a collection, and the network before it, at the first selection and at the end.

    Args:
        task: the task.
        selector: the selection.
        folder: for logs.
        state: that of the snapshot to go on from.
        base: what a resumed run finds in its file of the frozen network.
        settings: of the section `collect`.
    """

    def __init__(self, task, selector, folder, state=None, base=None, **settings):
        self.task, self.base, self.snapshots, self.folder = task, base, [], folder
        if base is not None:
            task.model.load_state_dict(base)
        self.initial = copies(task.model.state_dict())
        self.names = select(task.model, selector, task.head)
        settings = {"train": NONE, "finetune": {"steps": 2, "optimizer": ADAMW}, **settings}
        given = {"task": task, "names": self.names, "seed": 0, "device": CPU, "state": state, "folder": folder}
        for snapshot in call(snapshots, settings, "collect", library=MMDET, **given):
            if snapshot.params and self.base is None:
                self.base = copies(task.model.state_dict())
            self.snapshots.append(snapshot)
        self.end = copies(task.model.state_dict())

    def rows(self, branch: int = 0) -> list[dict]:
        """Return the selections of one branch."""
        return [s.params for s in self.snapshots if s.params and s.provenance["branch"] == branch]

    def rests(self) -> list[dict]:
        """Return the states of the base training."""
        return [unpack(s.state) for s in self.snapshots if not s.params]

    def logged(self) -> list[dict]:
        """Return the figures of mmengine's log, without those of the machine."""
        lines = [line for path in self.folder.rglob("scalars.json") for line in path.read_text().splitlines()]
        return [{name: v for name, v in json.loads(line).items() if "time" not in name} for line in lines]

    def trained(self) -> dict[str, torch.Tensor]:
        """Return the selection of the trained network."""
        return next(unpack(s.state)["base"] for s in self.snapshots if s.params)

    def changed(self) -> set[str]:
        """Return what differs between the network before the collection and at the end."""
        return {name for name, tensor in self.end.items() if not torch.equal(tensor, self.initial[name])}


@pytest.fixture(scope="module")
def collect(tiny_task, tmp_path_factory):
    """Return a function from a selection, options of the config and settings to a collection that rests when it can."""

    def run(selector="head", options=None, change=None, loader=None, split=None, **settings) -> Collection:
        task = tiny_task(options)
        if change is not None:
            change(task.model)
        split = split or task.splits["train"]
        split = dataclasses.replace(split, loader={**split.loader, **(loader or {})})
        task = dataclasses.replace(task, splits={**task.splits, "train": split})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hooks, "SECONDS_BETWEEN_RESTS", 0)
            return Collection(task, selector, tmp_path_factory.mktemp("logs"), **settings)

    return run


@pytest.fixture
def raised(collect):
    """Return a function from what `collect` takes to the line of the error that it ends with."""

    def line(*args, **kwargs) -> str:
        with pytest.raises(PdiffError) as caught:
            collect(*args, **kwargs)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return line


@pytest.fixture(scope="module")
def whole(collect):
    """Return a collection with a base training; not to be changed."""
    return collect(train={}, branches=2)


@pytest.mark.parametrize("interval", [2, 3])
def test_log_says_what_it_says_where_every_step_fetches_its_figures(collect, monkeypatch, interval):
    given = {"train": {}, "options": {"default_hooks.logger.interval": interval}}
    found = collect(**given).logged()
    monkeypatch.setattr(collection, "LateFigures", RuntimeInfoHook)
    assert collect(**given).logged() == found
    assert len(found) == 4 // interval
    assert all(line["loss"] > 0 and line["loss_cls"] > 0 for line in found)


def test_rests_of_the_base_training_come_before_the_snapshots_of_each_branch(whole):
    assert [bool(snapshot.params) for snapshot in whole.snapshots] == [False] * 4 + [True] * 4
    assert [(state["iter"], state["epoch"]) for state in whole.rests()] == [(1, 0), (2, 0), (3, 0), (4, 0)]
    places = [(s.provenance["branch"], s.provenance["step"]) for s in whole.snapshots[4:]]
    assert places == [(0, 1), (0, 2), (1, 1), (1, 2)]
    losses = {"loss", "loss_cls", "loss_bbox", "loss_centerness"}
    for snapshot in whole.snapshots[4:]:
        assert list(snapshot.params) == whole.names
        assert snapshot.provenance.keys() == {"branch", "step", *losses}
        assert all(snapshot.provenance[name] > 0 for name in losses)


def test_every_state_is_tensors_that_a_file_keeps(whole, tmp_path):
    for snapshot in whole.snapshots:
        write_tensors(tmp_path / "state.safetensors", dict(snapshot.state))
        assert equal(read_tensors(tmp_path / "state.safetensors"), snapshot.state)


def test_the_same_seed_gives_the_same_snapshots_whatever_the_global_random_state(collect, whole):
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    again = collect(train={}, branches=2)
    for one, other in zip(again.snapshots, whole.snapshots, strict=True):
        assert one.provenance == other.provenance
        assert equal(one.params, other.params)
        assert equal(one.state, other.state)
    assert equal(again.end, whole.end)


def test_base_training_trains_the_whole_network(whole):
    trained, initial = whole.rests()[-1]["state_dict"], whole.initial
    same = {name for name in initial if torch.equal(trained[name], initial[name])}
    assert same == set()


def test_base_training_is_left_out_when_it_is_switched_off(collect):
    collection = collect(train=NONE)
    assert collection.rests() == []
    assert equal(collection.trained(), {name: collection.initial[name] for name in collection.names})


def rates(collection: Collection) -> list[float]:
    """Return the rate that each rest of the base training leaves."""
    return [state["optimizer"]["param_groups"][0]["lr"] for state in collection.rests()]


def test_base_training_follows_the_schedule_of_the_config(collect):
    scheduler = [{"type": "MultiStepLR", "milestones": [2], "gamma": 0.1, "by_epoch": False}]
    collection = collect(options={"param_scheduler": scheduler}, train={})
    assert rates(collection) == pytest.approx([2e-3, 2e-4, 2e-4, 2e-4])


def test_base_training_at_no_rate_changes_running_statistics_alone(collect):
    options = {"optim_wrapper.optimizer.lr": 0.0, "optim_wrapper.optimizer.weight_decay": 0.0, "param_scheduler": []}
    collection = collect(options=options, train={})
    trained = collection.rests()[-1]["state_dict"]
    changed = {name for name in trained if not torch.equal(trained[name], collection.initial[name])}
    assert changed == {name for name in trained if name.endswith(("running_mean", "running_var", "batches_tracked"))}


AVERAGE = {"custom_hooks": [{"type": "EMAHook", "momentum": 1e-6, "priority": "HIGH"}]}


def test_trained_network_is_the_average_when_the_config_averages(collect, whole):
    collection = collect(options=AVERAGE, train={})
    first, last = whole.rests()[0]["state_dict"], whole.rests()[-1]["state_dict"]
    for name, tensor in collection.trained().items():
        torch.testing.assert_close(tensor, first[name], atol=1e-7, rtol=0)  # where mmengine's average begins
        assert torch.equal(collection.rests()[-1]["ema_state_dict"][f"module.{name}"], last[name])  # it swaps the two
        assert not torch.equal(first[name], last[name])


EPOCHS = {
    "train_cfg": {"_delete_": True, "by_epoch": True, "max_epochs": 2},
    "param_scheduler": [
        {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 3},
        {"type": "MultiStepLR", "milestones": [1], "gamma": 0.1, "by_epoch": True},
    ],
    "log_processor": {"by_epoch": True},
}


def test_base_training_by_epochs_rests_between_them(collect):
    collection = collect(options=EPOCHS, train={})
    assert [(state["iter"], state["epoch"]) for state in collection.rests()] == [(4, 1), (8, 2)]
    assert rates(collection) == pytest.approx([2e-4, 2e-4])


FEW = {"steps": 2, "optimizer": {"type": "AdamW", "lr": 1e-2, "weight_decay": 0.1}}  # moves what has no gradient, too


@pytest.mark.parametrize(
    ("selector", "mode"),
    [
        ("head", "eval"),
        ("head", "train"),
        ("last_norms(2)", "eval"),
        ("last_norms(2)", "train"),
        ("module(bbox_head.conv_cls)", "eval"),
        (NORM, "eval"),
        (f"{NORM}+buffers", "train"),
        ("module(backbone.layer3.1)+buffers", "train"),
    ],
)
def test_fine_tuning_changes_the_selection_alone(collect, selector, mode):
    collection = collect(selector, finetune={**FEW, "mode": mode})
    selected = set(collection.names)
    assert len(collection.rows()) == 2
    assert collection.changed() == selected
    assert equal(collection.rows()[-1], {name: collection.end[name] for name in collection.names})
    assert not any(tensor.requires_grad for tensor in collection.task.model.parameters())


def test_base_training_leaves_no_trace_in_what_fine_tuning_may_not_change(whole):
    trained = whole.rests()[-1]["state_dict"]
    assert {name for name in trained if not torch.equal(trained[name], whole.end[name])} == set(whole.names)


def test_running_statistics_of_selected_layers_are_updated_in_mode_train(collect):
    collection = collect(f"{NORM}+buffers", finetune={"steps": 3, "optimizer": ADAMW, "mode": "train"})
    (count,) = [name for name in collection.names if name.endswith("num_batches_tracked")]
    assert [row[count].item() for row in collection.rows()] == [1, 2, 3]
    mean = count.replace("num_batches_tracked", "running_mean")
    assert all(not torch.equal(a[mean], b[mean]) for a, b in itertools.pairwise(collection.rows()))


@pytest.mark.parametrize(("selector", "mode"), [("head", "eval"), (f"{NORM}+buffers", "train")])
def test_frozen_normalisation_is_in_eval_mode_during_a_step_and_other_modules_train(collect, selector, mode):
    seen: dict[str, set[bool]] = {}

    def watch(model: nn.Module) -> None:
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda m, _, name=name: seen.setdefault(name, set()).add(m.training))

    model = collect(selector, change=watch, finetune={"steps": 2, "optimizer": ADAMW, "mode": mode}).task.model
    norms = {name for name, module in model.named_modules() if is_norm(module)}
    assert seen.keys() >= norms | {"", "backbone", "bbox_head", "backbone.conv1"}
    training = {"backbone.layer3.1.bn2"} if mode == "train" else set()
    for name, found in seen.items():
        assert found == {name not in norms or name in training}


def freeze(model: nn.Module) -> None:
    """Put torchvision's frozen normalisation into the network."""
    model.backbone.layer3[1].bn2 = FrozenBatchNorm2d(32)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_affine_buffers_of_a_frozen_normalisation_are_trained_when_selected(collect, mode):
    collection = collect(NORM, change=freeze, finetune={"steps": 2, "optimizer": ADAMW, "mode": mode})
    names = ["backbone.layer3.1.bn2.weight", "backbone.layer3.1.bn2.bias"]
    assert collection.names == names
    assert set(names) <= {name for name, _ in collection.task.model.named_buffers()}
    assert collection.changed() == set(names)
    # A first step of AdamW at 1e-3 moves a value by 1e-3 where the decay is next to nothing.
    moved = (collection.rows()[0][names[1]] - collection.trained()[names[1]]).abs()
    assert moved.max() == pytest.approx(1e-3, rel=1e-2)


def test_mode_train_without_buffers_is_refused_with_the_name_of_the_tensor(raised):
    line = "collect.finetune.mode: got 'train', which changes backbone.layer3.1.bn2.running_mean, which is not selected"
    assert raised(NORM, finetune={"mode": "train"}) == f"{line}. Add +buffers to the selector or use mode eval."


@pytest.mark.parametrize("finetune", [{"mode": "train"}, {"optimizer": {"type": "X"}}])
def test_wrong_settings_of_the_fine_tuning_are_refused_before_any_training(collect, tiny_task, tmp_path, finetune):
    task = tiny_task()
    names = select(task.model, NORM, task.head)
    given = {"task": task, "names": names, "seed": 0, "device": CPU, "state": None, "folder": tmp_path}
    with pytest.raises(PdiffError, match=r"^collect\.finetune"):
        next(snapshots(library=MMDET, train={}, finetune=finetune, **given))


@pytest.mark.parametrize(("part", "train"), [("train", {}), ("finetune", NONE)])
def test_a_first_step_that_fails_is_told_in_one_line(raised, part, train):
    line = raised(options={"model.bbox_head.regress_ranges": [[-1, 36]]}, train=train)
    assert line.startswith(
        f"collect.{part}: the first step of the training fails (AssertionError: assert len(points) == "
    )
    assert "). Check pipeline, data_preprocessor, heads and losses in " in line


def test_every_leaves_out_the_steps_between_and_changes_none(collect):
    every_step = collect(finetune={"steps": 5, "optimizer": ADAMW}).rows()
    collection = collect(finetune={"steps": 5, "optimizer": ADAMW, "every": 2})
    assert [s.provenance["step"] for s in collection.snapshots] == [2, 4]
    assert all(equal(a, b) for a, b in zip(collection.rows(), every_step[1::2], strict=True))


def test_warm_up_takes_the_first_snapshots_from_each_branch_and_changes_none(collect):
    settings = {"optimizer": ADAMW, "every": 2}
    longer = collect(branches=2, finetune={"steps": 7, **settings, "every": 1})
    collection = collect(branches=2, finetune={"steps": 4, "warmup": 3, **settings})
    places = [(s.provenance["branch"], s.provenance["step"]) for s in collection.snapshots]
    assert places == [(0, 5), (0, 7), (1, 5), (1, 7)]
    for branch in range(2):
        expected = longer.rows(branch)[4::2]
        assert all(equal(a, b) for a, b in zip(collection.rows(branch), expected, strict=True))


class Interruption(Exception):
    """Somebody has had enough."""


def test_interruption_in_a_warm_up_begins_the_branch_anew_and_ends_with_the_same_bytes(collect, tiny_task, tmp_path):
    finetune = {"steps": 2, "warmup": 3, "optimizer": ADAMW}
    whole, task, steps = collect(branches=2, finetune=finetune), tiny_task(), itertools.count(1)

    def interrupt(*_) -> None:
        if next(steps) == 5 + 3:
            raise Interruption

    given = {"task": task, "names": whole.names, "seed": 0, "device": CPU, "state": None, "folder": tmp_path}
    collection = snapshots(library=MMDET, train=NONE, finetune=finetune, branches=2, **given)
    handle = task.model.register_forward_pre_hook(interrupt)
    states = [next(collection).state for _ in range(2)]
    with pytest.raises(Interruption):
        next(collection)
    handle.remove()
    resumed = collect(branches=2, finetune=finetune, state=states[-1], base=whole.base)
    assert [s.provenance["step"] for s in resumed.snapshots] == [4, 5]
    for one, other in zip(resumed.snapshots, whole.snapshots[2:], strict=True):
        assert one.provenance == other.provenance
        assert equal(one.state, other.state)


def test_branches_start_from_the_same_network_and_differ(collect):
    collection = collect(train={}, branches=3, finetune={"steps": 1, "optimizer": {"type": "AdamW", "lr": 1e-6}})
    first = [collection.rows(branch)[0] for branch in range(3)]
    for row in first:
        for name, tensor in row.items():
            # The first step of AdamW is at most the learning rate (and the decay) long, wherever the gradient points.
            torch.testing.assert_close(tensor, collection.trained()[name], atol=1.1e-6, rtol=0)
    assert not any(equal(a, b) for a, b in itertools.combinations(first, 2))


def test_a_part_begins_with_the_network_of_another_one_and_yields_its_own_branch(collect):
    whole = collect(train={}, branches=2)
    first = next(snapshot.state for snapshot in whole.snapshots if snapshot.params)
    part = collect(train={}, branches=2, branch=1, state=first, base=whole.base)
    assert not part.rows(0)
    assert not part.rests()
    assert all(equal(a, b) for a, b in zip(part.rows(1), whole.rows(1), strict=True))


def test_first_branch_does_not_depend_on_the_number_of_branches(collect, whole):
    alone = collect(train={}, branches=1)
    assert all(equal(a, b) for a, b in zip(alone.rows(), whole.rows(0), strict=True))


def test_optimizer_is_that_of_the_config_unless_one_is_given(collect):
    options = {"optim_wrapper.optimizer": {"_delete_": True, **SGD}, "optim_wrapper.paramwise_cfg": {"bias_lr_mult": 0}}
    given = collect(options=options, finetune={"steps": 2, "optimizer": SGD})
    taken = collect(options=options, finetune={"steps": 2, "optimizer": None})
    other = collect(options=options, finetune={"steps": 2, "optimizer": ADAMW})
    assert equal(given.end, taken.end)
    assert not equal(given.end, other.end)


def test_rate_is_constant_and_clipping_is_that_of_the_config(collect):
    options = {"optim_wrapper.clip_grad": {"max_norm": 1e-3}}
    collection = collect(options=options, finetune={"steps": 4, "optimizer": {"type": "SGD", "lr": 1.0}})
    rows = [collection.trained(), *collection.rows()]
    rows = [torch.cat([row[name].flatten() for name in collection.names]).double() for row in rows]
    lengths = [(b - a).norm().item() for a, b in itertools.pairwise(rows)]
    assert lengths == [pytest.approx(1e-3, rel=1e-3)] * 4


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        ({"type": "AdamX", "lr": 1e-3}, "AdamX is not in the "),
        ({"type": "AdamW", "rate": 1e-3}, "unexpected keyword argument 'rate'"),
        ({"type": "AdamW", "lr": -1.0}, "Invalid learning rate: -1.0"),
        ({"lr": 1e-3}, 'must contain the key "type"'),
    ],
)
def test_an_optimizer_that_mmengine_cannot_build_is_refused_with_the_reason(raised, optimizer, reason):
    line = raised(finetune={"optimizer": optimizer})
    assert line.startswith(f"collect.finetune.optimizer: got {optimizer}, which mmengine cannot build (")
    assert reason in line
    assert line.endswith("). Give one like {type: AdamW, lr: 1.0e-4}.")


def test_an_optimizer_that_is_no_section_is_refused(raised):
    assert raised(finetune={"optimizer": "AdamW"}).startswith("collect.finetune.optimizer: got 'AdamW', ")


def test_a_selection_of_buffers_alone_is_refused(raised):
    line = "collect.finetune: no selected tensor is trained by gradients. Select a weight or a bias."
    assert raised(f"{NORM}+buffers-{NORM}") == line


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"finetune": {"mode": "eva"}}, "collect.finetune.mode: got 'eva'. Did you mean 'eval'? Known: eval, train."),
        ({"draws": "seed"}, "collect.draws: got 'seed'. Did you mean 'seeded'? Known: config, seeded."),
        ({"branches": 0}, "collect.branches: got 0, expected an integer from 1 on."),
        ({"finetune": {"steps": 0}}, "collect.finetune.steps: got 0, expected an integer from 1 on."),
        ({"finetune": {"every": 0}}, "collect.finetune.every: got 0, expected an integer from 1 on."),
        ({"finetune": {"warmup": -1}}, "collect.finetune.warmup: got -1, expected an integer from 0 on."),
        ({"finetune": {"warmup": 0.5}}, "collect.finetune.warmup: got 0.5, expected an integer."),
        ({"finetune": {"step": 1}}, "collect.finetune: got unknown key 'step'. Did you mean 'steps'?"),
        ({"train": {"epochs": 1}}, "collect.train: got unknown key 'epochs'."),
        ({"train": {"enabled": "no"}}, "collect.train.enabled: got 'no', expected true or false."),
        ({"tain": {}}, "collect: got unknown key 'tain'. Did you mean 'train'?"),
    ],
)
def test_wrong_settings_are_refused_where_they_stand(raised, settings, line):
    assert raised(**settings).startswith(line)


def test_settings_that_give_no_snapshot_are_refused(raised):
    assert raised(finetune={"steps": 2, "every": 3}).startswith("collect.finetune.every: got 3")


@pytest.mark.parametrize("key", ["train_cfg", "optim_wrapper"])
def test_a_config_that_cannot_be_trained_is_refused(raised, key):
    line = f"collect.train: the config has no {key}. Add it, or give collect.train.enabled=false."
    assert raised(options={key: None}, train={}) == line


def test_a_config_that_cannot_be_trained_can_be_fine_tuned(collect):
    collection = collect(options={"train_cfg": None, "optim_wrapper": None, "param_scheduler": None})
    assert len(collection.rows()) == 2


UNBUILDABLE = [
    ({"optim_wrapper.optimizer.type": "AdamX"}, "TypeError"),  # mmengine does not say more
    ({"custom_hooks": [{"type": "NoSuchHook"}]}, "NoSuchHook"),
    ({"param_scheduler": [{"type": "NoSuchLR"}]}, "NoSuchLR"),
    ({"train_cfg": {"_delete_": True, "type": "IterBasedTrainLoop"}}, "max_iters"),
]


@pytest.mark.parametrize(("options", "reason"), UNBUILDABLE)
def test_a_base_training_that_mmengine_cannot_build_is_refused_with_the_reason(raised, options, reason):
    line = raised(options=options, train={})
    assert line.startswith("collect.train: ")
    assert reason in line


def test_config_is_left_as_it_is_by_a_run(tiny_task, tmp_path):
    average = {"type": "EMAHook", "priority": "HIGH"}  # mmengine takes the priority out
    task = tiny_task({**EPOCHS, "custom_hooks": [average], "default_hooks.logger.interval": 2})
    before = copy.deepcopy(task.model.cfg.to_dict())
    Collection(task, "head", tmp_path, train={}, branches=2, finetune={"steps": 1, "optimizer": None})
    assert task.model.cfg.to_dict() == before


def test_settings_are_left_as_they_are(collect):
    settings = {"train": {}, "finetune": {"steps": 1, "optimizer": {**ADAMW, "betas": [0.8, 0.9]}}, "branches": 2}
    before = copy.deepcopy(settings)
    collect(**settings)
    assert settings == before


@pytest.mark.parametrize("options", [{}, EPOCHS], ids=["iterations", "epochs"])
def test_samplers_of_the_config_can_be_kept(collect, options):
    sampler = {"type": "DefaultSampler" if options else "InfiniteSampler", "shuffle": True}
    collection = collect(options=options, train={}, draws="config", loader={"sampler": sampler})
    assert len(collection.rows()) == 2
    trained = collection.rests()[-1]["state_dict"]
    assert {n for n in trained if not torch.equal(trained[n], collection.end[n])} == set(collection.names)


def test_samplers_of_the_config_are_those_of_its_loader(splits):
    sampler = training_loader(splits["train"], 0, "config", endless=True).sampler
    assert type(sampler).__name__ == "InfiniteSampler"
    assert type(training_loader(splits["train"], 0, "seeded", endless=True).sampler).__name__ == "Numbers"


WORKERS = {"num_workers": 2, "persistent_workers": True}  # as in the configs that mmdet ships


def test_collection_does_not_depend_on_the_number_of_data_workers(collect, whole):
    collection = collect(train={}, branches=2, loader=WORKERS)
    assert all(equal(a.params, b.params) for a, b in zip(collection.snapshots, whole.snapshots, strict=True))


def test_data_workers_end_with_the_collection(collect):
    collect(loader=WORKERS)  # torch waits five seconds for each that the garbage collector ends
    assert multiprocessing.active_children() == []


VALIDATED = {"train_cfg.val_interval": 2, "train_cfg.val_begin": 2, "model.test_cfg.score_thr": 0.0}


def test_validation_of_the_config_is_run_when_asked_for_and_changes_nothing(collect):
    pytest.importorskip("pycocotools")
    plain = collect(options=VALIDATED, train={})
    seen = []

    def watch(model: nn.Module) -> None:
        model.register_forward_pre_hook(lambda m, _, kwargs: seen.append(kwargs["mode"]), with_kwargs=True)

    validated = collect(options=VALIDATED, change=watch, train={"validate": True})
    assert seen == ["loss", "loss", "predict", "loss", "loss", "predict", "loss", "loss"]
    assert all(equal(a.params, b.params) for a, b in zip(validated.snapshots, plain.snapshots, strict=True))


def test_validation_prints_nothing(collect, capfd):
    pytest.importorskip("pycocotools")
    collect(options=VALIDATED, train={"validate": True})
    assert capfd.readouterr().out == ""


def test_collection_prints_nothing_and_its_logs_are_in_the_folder(tiny_task, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Collection(tiny_task(), "head", tmp_path / "logs", train={}, branches=2)
    assert capfd.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["finetune_0", "finetune_1", "train"]
    assert len(list((tmp_path / "logs").rglob("*.log"))) == 3


def test_config_that_mmengine_ran_with_lies_beside_its_logs(tiny_task, tmp_path):
    Collection(tiny_task(), "head", tmp_path, train={}, finetune={"steps": 1, "optimizer": SGD})
    (train,) = tmp_path.glob("train/*.*")
    (finetune,) = tmp_path.glob("finetune_0/*.*")
    assert Config.fromfile(str(train)).train_cfg.max_iters == 4
    assert Config.fromfile(str(train)).model.type == "FCOS"
    assert Config.fromfile(str(finetune)).train_cfg.max_iters == 1
    assert Config.fromfile(str(finetune)).optim_wrapper.optimizer == SGD


def test_log_says_what_of_the_config_is_replaced(collect, caplog):
    with caplog.at_level(logging.INFO, logger="pdiff"):
        collect(train={}, finetune={"steps": 1, "optimizer": ADAMW})
    lines = [record.getMessage() for record in caplog.records if "pdiff sets" in record.getMessage()]
    assert [line.split(" of /")[0] for line in lines] == [
        "train: pdiff sets train_dataloader, default_hooks",
        "finetune_0: pdiff sets train_dataloader, train_cfg, optim_wrapper, param_scheduler, default_hooks",
    ]
    assert all(line.endswith("fcos_r18_digits.py") for line in lines)


def test_what_a_config_sets_for_the_process_ends_with_the_training(collect, caplog):
    import cv2

    def state() -> tuple:
        return torch.backends.cudnn.benchmark, cv2.getNumThreads(), multiprocessing.get_start_method(allow_none=True)

    before, seen = state(), []
    options = {"env_cfg": {"cudnn_benchmark": True, "mp_cfg": {"opencv_num_threads": before[1] + 1}}}
    with caplog.at_level(logging.INFO, logger="pdiff"):
        collect(
            options=options,
            change=lambda model: model.backbone.register_forward_hook(lambda *_: seen.append(state())),
            train={},
            finetune={"steps": 1, "optimizer": SGD},
        )
    assert {benchmark for benchmark, *_ in seen} == {False}, "or else no training ends with the same bytes twice"
    assert {threads for _, threads, _ in seen} == {before[1] + 1}
    assert state() == before
    assert caplog.text.count("env_cfg.cudnn_benchmark") == 2


def test_a_collection_that_is_closed_ends_its_training(tiny_task, tmp_path):
    task = tiny_task()
    names = select(task.model, "head", task.head)
    given = {"task": task, "names": names, "seed": 0, "device": CPU, "state": None, "folder": tmp_path}
    for train in ({}, NONE):
        collection = snapshots(library=MMDET, train=train, finetune={"steps": 10**9, "optimizer": ADAMW}, **given)
        next(snapshot for snapshot in collection if snapshot.params)
        collection.close()
        assert [thread.name for thread in threading.enumerate() if thread.name == "pdiff-collect"] == []
        task = given["task"] = tiny_task()


ACCUMULATED = {"optim_wrapper.accumulative_counts": 3, "param_scheduler": []}
TWO = {"steps": 2, "optimizer": {"type": "SGD", "lr": 1e-2, "momentum": 0.9}}
KINDS = {
    "iterations": {"train": {}, "branches": 2, "finetune": TWO},
    "epochs": {"options": EPOCHS, "train": {}, "finetune": {"steps": 2, "optimizer": None}},
    "average": {"options": AVERAGE, "train": {}},
    "average by epochs": {
        "options": {**EPOCHS, "custom_hooks": [{"type": "EMAHook", "momentum": 0.3, "begin_epoch": 1}]},
        "train": {},
    },
    "statistics": {"selector": f"{NORM}+buffers", "branches": 2, "finetune": {**TWO, "mode": "train"}},
    "frozen": {"selector": f"{NORM}+module(bbox_head.conv_cls)", "change": freeze, "branches": 2},
    "every second": {"finetune": {"steps": 5, "every": 2, "optimizer": ADAMW}, "branches": 2},
    "warm-up": {"finetune": {"steps": 4, "every": 2, "warmup": 3, "optimizer": ADAMW}, "branches": 2},
    "mixed precision": {
        "options": {"optim_wrapper.type": "Bfloat16OptimWrapper"},
        "change": lambda model: model.to(memory_format=torch.channels_last),
        "train": {},
    },
    "workers": {"train": {}, "loader": WORKERS},
    "accumulated": {"options": ACCUMULATED, "train": {}, "finetune": {**TWO, "steps": 4}},
}
CASES = {
    "iterations": (0, 3, 4, 5, 6),
    "epochs": (0, 1, 2),
    "average": (1, 3, 4),
    "average by epochs": (0,),
    "statistics": (0, 2),
    "frozen": (1,),
    "every second": (1,),
    "warm-up": (0, 1, 2),
    "mixed precision": (1, 4),
    "workers": (1, 4),
    "accumulated": (1, 4),
}


@pytest.fixture(scope="module")
def through(collect):
    """Return a function from a kind to its collection without interruption, computed once."""
    done: dict[str, Collection] = {}

    def run(kind: str) -> Collection:
        if kind not in done:
            done[kind] = collect(**KINDS[kind])
        return done[kind]

    return run


@pytest.mark.parametrize(("kind", "number"), [(kind, number) for kind in KINDS for number in CASES[kind]])
def test_a_collection_that_goes_on_from_a_snapshot_yields_the_same_as_without_interruption(
    collect, through, kind, number
):
    uninterrupted = through(kind)
    state = copies(uninterrupted.snapshots[number].state)
    reached = any(snapshot.params for snapshot in uninterrupted.snapshots[: number + 1])
    torch.manual_seed(9)
    resumed = collect(**KINDS[kind], state=state, base=uninterrupted.base if reached else None)
    rest = uninterrupted.snapshots[number + 1 :]
    assert [s.provenance for s in resumed.snapshots] == [s.provenance for s in rest]
    assert all(equal(a.params, b.params) for a, b in zip(resumed.snapshots, rest, strict=True))
    assert all(equal(a.state, b.state) for a, b in zip(resumed.snapshots, rest, strict=True))
    assert equal(resumed.end, uninterrupted.end)
    assert equal(state, uninterrupted.snapshots[number].state)


def test_a_collection_that_goes_on_from_its_end_yields_nothing(collect, through):
    uninterrupted = through("iterations")
    state = uninterrupted.snapshots[-1].state
    assert collect(**KINDS["iterations"], state=state, base=uninterrupted.base).snapshots == []


PLAIN = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "RandomFlip", "prob": 1.0},
    {"type": "PackDetInputs"},
]


def test_a_hook_that_switches_the_pipeline_switches_that_of_the_training_data(mmdet, tiny_config, collect):
    split = build_splits(mmdet, tiny_config({"train_dataloader.dataset.pipeline": PLAIN}), 0)["train"]
    switch = {"type": "PipelineSwitchHook", "switch_epoch": 0, "switch_pipeline": PLAIN}
    switched = collect(options={**EPOCHS, "custom_hooks": [switch]}, train={})
    expected = collect(options=EPOCHS, train={}, split=split)
    assert equal(switched.rests()[-1]["state_dict"], expected.rests()[-1]["state_dict"])


def test_a_training_image_that_cannot_be_decoded_is_named_by_its_place_in_the_data(
    mmdet, tiny_config, scenes, tmp_path
):
    root = shutil.copytree(scenes, tmp_path / "scenes")
    config = tiny_config()
    use_root(config, root)
    split = build_splits(mmdet, config, 0)["train"]
    for place in range(8):
        (root / "train" / f"{place:06d}.png").write_bytes(b"no image")
    loader = training_loader(split, 0, "seeded", endless=True, first=100)
    with pytest.raises(PdiffError, match=r"^task\.data: sample [0-7] cannot be loaded \("):
        next(iter(loader))
