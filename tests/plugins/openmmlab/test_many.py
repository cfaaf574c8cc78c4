"""A network for every condition: trained side by side as each alone, resumed, and with few steps."""

import dataclasses
import itertools
import multiprocessing
import time

import pytest
import torch

pytest.importorskip("mmdet")

from mmengine.logging import MessageHub
from pdiff_plugins.images.blocks import blocks_of
from pdiff_plugins.openmmlab import many, passes
from pdiff_plugins.openmmlab.conditions import build_kind
from pdiff_plugins.openmmlab.libraries import MMDET, open_config
from pdiff_plugins.openmmlab.lockstep import Lockstep
from pdiff_plugins.openmmlab.many import finetuned, snapshots_of_many

from pdiff import PdiffError, call, pack, unpack
from pdiff.weights.select import select

CPU = torch.device("cpu")
SETS = {"type": "classes", "subsets": [[0, 1, 2], [3], [4, 5, 6, 7], [8, 9], [1, 9]]}
NETWORKS = {"steps": 3, "optimizer": {"type": "AdamW", "lr": 1e-3}}
PREDICTORS = "module(bbox_head.conv_cls)+module(bbox_head.conv_reg)"


@pytest.fixture
def task(tiny_task):
    """Return a function from options of the config to a task whose training data have conditions."""

    def conditional(options: dict | None = None):
        plain = tiny_task(options)
        kind = build_kind(SETS, 0)
        kind.bind(dict.fromkeys(("train", "select", "test"), plain.splits["train"].dataset))
        split = dataclasses.replace(plain.splits["train"], kind=kind)
        return dataclasses.replace(plain, splits={**plain.splits, "train": split})

    return conditional


def collected(task, folder, selector=PREDICTORS, state=None, branch=None, **settings):
    """Return all snapshots of a collection without a base training."""
    names = select(task.model, selector, task.head)
    given = {"task": task, "names": names, "seed": 0, "device": CPU, "state": state, "folder": folder}
    settings = {"conditions": SETS, "networks": NETWORKS, "train": {"enabled": False}, **settings}
    return [*call(snapshots_of_many, settings, "collect", library=MMDET, branch=branch, **given)]


def begin(task, selector=PREDICTORS):
    """Return the selection that a task's network has."""
    tensors = task.model.state_dict()
    return {name: tensors[name].clone() for name in select(task.model, selector, task.head)}


def same(one, other) -> bool:
    """Say whether two selections are equal, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def restless(monkeypatch):
    """Let a collection rest after every step."""
    monkeypatch.setattr(many, "SECONDS_BETWEEN_RESTS", -1)


def test_every_condition_has_a_network_in_the_order_of_the_table(task, tmp_path):
    found = collected(task(), tmp_path)
    assert [snapshot.condition["classes.9"] for snapshot in found] == [0, 0, 0, 1, 1]
    assert [snapshot.provenance["branch"] for snapshot in found] == [0, 1, 2, 3, 4]
    assert {snapshot.provenance["network"] for snapshot in found} == {0}
    assert all(snapshot.provenance["loss"] > 0 for snapshot in found)
    assert not same(found[0].params, found[1].params)


@pytest.mark.parametrize("selector", [PREDICTORS, "head", "module(backbone.layer3.1.bn2)"])
def test_a_network_is_trained_as_it_would_be_alone(task, tmp_path, selector):
    together = collected(task(), tmp_path, selector)
    for number in (1, 4):
        own = task()
        table = own.splits["train"].kind.table.take([number])
        alone = Lockstep(own, begin(own, selector), table, 0, "alone", 3, NETWORKS["optimizer"], "eval")
        assert [*alone.run()] == [1, 2, 3]
        assert same({n: t.detach() for n, t in alone.networks[0].tensors.items()}, together[number].params)


def test_blocks_change_no_network(task, tmp_path):
    whole = collected(task(), tmp_path)
    halves = collected(task(), tmp_path, together=2)
    assert [*map(len, blocks_of(5, 2))] == [2, 2, 1]
    assert all(same(one.params, other.params) for one, other in zip(whole, halves, strict=True))
    alone = collected(task(), tmp_path, together=2, branch=1)
    assert [snapshot.provenance["branch"] for snapshot in alone] == [2, 3]
    assert same(alone[1].params, whole[3].params)


def test_images_that_differ_between_conditions_are_those_of_each(task, monkeypatch):
    own = task()
    kind = own.splits["train"].kind
    monkeypatch.setattr(type(kind), "rows", lambda self, dataset, values: [0, 1, 2] if values[0] else None)
    table = kind.table
    lockstep = Lockstep(own, begin(own), table, 0, "x", 2, NETWORKS["optimizer"], "eval")
    assert [len(part.dataset) for part, _ in lockstep.groups] == [3, len(own.splits["train"].dataset)]
    assert [len(networks) for _, networks in lockstep.groups] == [1, 4]
    alone = Lockstep(own, begin(own), table.take([0]), 0, "x", 2, NETWORKS["optimizer"], "eval")
    assert same(final(alone)[0], final(lockstep)[0])


def test_collection_goes_on_from_any_of_its_states_to_the_same_bytes(task, tmp_path, restless):
    whole = collected(task(), tmp_path, together=3)
    states = [place for place, snapshot in enumerate(whole) if snapshot.state is not None]
    assert len(states) > 6
    for place in states:
        rest = collected(task(), tmp_path, together=3, state=dict(whole[place].state))
        again = [s for s in rest if s.params]
        expected = [s for s in whole[place + 1 :] if s.params]
        assert [s.provenance for s in again] == [s.provenance for s in expected]
        assert all(same(one.params, other.params) for one, other in zip(again, expected, strict=True))


def test_states_are_kept_without_pickle(task, tmp_path, restless):
    for snapshot in collected(task(), tmp_path, together=5):
        if snapshot.state is not None:
            assert pack(unpack(snapshot.state)).keys() == snapshot.state.keys()


def test_the_network_in_the_task_stays_what_all_began_with(task, tmp_path):
    own = task()
    before = {name: tensor.clone() for name, tensor in own.model.state_dict().items()}
    found = collected(own, tmp_path)
    assert same(before, own.model.state_dict())
    assert not any(parameter.requires_grad for parameter in own.model.parameters())
    assert not own.model.training
    assert not same(found[0].params, {name: before[name] for name in found[0].params})


def test_running_statistics_of_selected_layers_are_each_network_s_own(task, tmp_path):
    selector = "module(backbone.layer3.1.bn2)+buffers"
    own = task()
    before = begin(own, selector)
    found = collected(own, tmp_path, selector, networks={**NETWORKS, "mode": "train"})
    assert same(before, begin(own, selector))
    name = "backbone.layer3.1.bn2.running_mean"
    assert not torch.equal(found[0].params[name], before[name])


def test_losses_fall_where_the_images_stay_the_same(task, monkeypatch):
    own = task()
    table = own.splits["train"].kind.table
    lockstep = Lockstep(own, begin(own), table, 0, "x", 12, {"type": "AdamW", "lr": 1e-2}, "eval")
    batch = next(iter(lockstep.batches()))
    monkeypatch.setattr(lockstep, "batches", lambda: itertools.repeat(batch))
    losses = [[network.losses["loss"].item() for network in lockstep.networks] for _ in lockstep.run()]
    assert all(last < 0.95 * first for first, last in zip(losses[0], losses[-1], strict=True))


def test_fine_tuning_with_all_steps_is_the_collection(task, tmp_path):
    own = task()
    whole, start = collected(own, tmp_path), begin(own)
    given = {"task": own, "names": [*start], "seed": 0, "start": start, "networks": NETWORKS}
    found = [*finetuned(**given, conditions=own.splits["train"].kind.table, steps=3)]
    assert all(same(one, other.params) for one, other in zip(found, whole, strict=True))
    (short,) = finetuned(**given, conditions=own.splits["train"].kind.table.take([2]), steps=1)
    assert not same(short, whole[2].params)


def final(lockstep):
    """Return the selections of all networks of a block after its last step."""
    for _ in lockstep.run():
        pass
    return [{name: tensor.detach() for name, tensor in network.tensors.items()} for network in lockstep.networks]


def block(task, selector=PREDICTORS, numbers=(1, 4), mode="eval", steps=3):
    """Return a block of networks for some conditions, before its first step."""
    table = task.splits["train"].kind.table.take([*numbers])
    return Lockstep(task, begin(task, selector), table, 0, "x", steps, NETWORKS["optimizer"], mode)


@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint")  # of the way in which mmdet calls it
def test_networks_whose_head_computes_anew_in_the_backward_pass_learn_the_same(task):
    selector = "module(backbone.layer3)"
    usual = final(block(task(), selector))
    frugal = task({"model.backbone.with_cp": True})
    assert all(same(*pair) for pair in zip(final(block(frugal, selector)), usual, strict=True))


@pytest.mark.parametrize("wrapper", [{"accumulative_counts": 2}, {"type": "Bfloat16OptimWrapper"}])
def test_other_optimiser_wrappers_train_each_network_as_alone(task, wrapper):
    own = task({"optim_wrapper": wrapper})
    pair = final(block(own))
    assert same(final(block(own, numbers=[4]))[0], pair[1])
    assert not same(pair[0], begin(own))


def test_gradients_that_are_added_up_are_kept_in_a_rest(task, tmp_path, restless):
    options = {"optim_wrapper": {"accumulative_counts": 2}}
    whole = collected(task(options), tmp_path)
    rest = next(snapshot for snapshot in whole if snapshot.state is not None)
    again = [s for s in collected(task(options), tmp_path, state=dict(rest.state)) if s.params]
    expected = [s for s in whole if s.params]
    assert all(same(one.params, other.params) for one, other in zip(again, expected, strict=True))


TWO_STAGES = {
    "backbone": {"depth": 18, "base_channels": 8, "stem_channels": 8},
    "neck": {"in_channels": [8, 16, 32, 64], "out_channels": 8},
    "rpn_head": {"in_channels": 8, "feat_channels": 8},
    "roi_head": {
        "bbox_roi_extractor": {"out_channels": 8},
        "bbox_head": {"in_channels": 8, "fc_out_channels": 8, "num_classes": 10},
    },
}


def test_a_second_stage_learns_from_the_proposals_that_are_its_own(task, monkeypatch):
    config = open_config(
        MMDET, "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco", options={"model": TWO_STAGES}, pretrained=False
    )
    options = {"model": {"_delete_": True, **config.model.to_dict()}}
    own, calls = task(options), []
    forward = own.model.backbone.forward
    monkeypatch.setattr(own.model.backbone, "forward", lambda x: (calls.append(1), forward(x))[1])
    several = block(own, "module(roi_head.bbox_head)", range(5), steps=4)
    found, before = [], 0
    for _ in several.run():
        found.append(len(calls) - before)
        before = len(calls)
    assert min(found) == 1
    assert sum(found) < 10  # some steps find out what is not the same for all

    class Whole(passes.Prefix):
        def begin(self, batch, forward):
            self.batch = batch

        def __call__(self, forward):
            return forward(self.batch)

    monkeypatch.setattr(passes, "Prefix", Whole)
    alone = final(block(task(options), "module(roi_head.bbox_head)", range(5), steps=4))
    assert all(
        same({name: tensor.detach() for name, tensor in network.tensors.items()}, other)
        for network, other in zip(several.networks, alone, strict=True)
    )


def test_what_comes_before_the_selection_is_computed_once_for_each_batch(task, monkeypatch):
    own, calls = task(), []
    forward = own.model.backbone.forward
    monkeypatch.setattr(own.model.backbone, "forward", lambda x: (calls.append(1), forward(x))[1])
    final(block(own))
    assert len(calls) == 3


def test_a_module_that_is_in_a_network_twice_leaves_it_as_it_was(task):
    own = task()
    own.model.bbox_head.again = own.model.bbox_head.conv_cls
    before = begin(own, "all")
    found = final(block(own))
    assert same(before, begin(own, "all"))
    assert all(same(one, other) for one, other in zip(found, final(block(task())), strict=True))


def test_parts_that_ask_for_the_number_of_the_step_are_told(task, monkeypatch):
    training, told = block(task()), []
    monkeypatch.setattr(
        training.passes.preprocess,
        "forward",
        lambda *a, f=training.passes.preprocess.forward: (
            told.append(MessageHub.get_current_instance().get_info("iter")),
            f(*a),
        )[1],
    )
    final(training)
    assert told == [0, 1, 2]


def test_what_hooks_of_the_base_training_changed_is_as_in_a_process_that_takes_it_up(task, tmp_path, monkeypatch):
    own, before = task(), task().model.bbox_head.centerness_on_reg

    def train(task, seed, config, library, draws, folder, device, state):
        task.model.bbox_head.centerness_on_reg = not before
        yield from ()

    monkeypatch.setattr(many, "train_base", train)
    found = collected(own, tmp_path, train={})
    assert own.model.bbox_head.centerness_on_reg == before
    monkeypatch.undo()
    assert all(same(one.params, other.params) for one, other in zip(found, collected(task(), tmp_path), strict=True))


def test_data_workers_end_at_once_and_give_what_the_process_itself_gives(task):
    own = task()
    split = own.splits["train"]
    loader = {**split.loader, "num_workers": 2, "persistent_workers": True}
    own = dataclasses.replace(own, splits={**own.splits, "train": dataclasses.replace(split, loader=loader)})
    begun = time.monotonic()
    found = final(block(own))
    assert not multiprocessing.active_children()
    assert time.monotonic() - begun < 4  # torch waits 5 s for a worker that nobody ends
    assert all(same(one, other) for one, other in zip(found, final(block(task())), strict=True))


def test_a_training_that_changes_what_all_networks_share_is_one_line(task, monkeypatch):
    own = task()
    norm = own.model.backbone.layer3[1].bn2
    monkeypatch.setattr(norm, "forward", lambda x, f=norm.forward: (norm.running_var.mul_(0.9), f(x))[1])
    with pytest.raises(PdiffError, match=r"^collect.networks: a step changes backbone.layer3.1.bn2.running_var, "):
        final(block(own))


def test_a_first_step_that_fails_is_one_line(task, monkeypatch):
    def fail(*_, **__):
        raise IndexError("no object")

    own = task()
    monkeypatch.setattr(own.model.bbox_head, "loss_by_feat", fail)
    with pytest.raises(PdiffError, match=r"^collect.networks: the first step .*\(IndexError: no object\)") as caught:
        final(block(own))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the wrapper wants a GPU, and has one")
def test_a_wrapper_that_wants_a_gpu_is_one_line_without(task, tmp_path):
    with pytest.raises(PdiffError, match=r"collect.networks.optimizer: .*is only available "):
        collected(task({"optim_wrapper": {"type": "AmpOptimWrapper"}}), tmp_path)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"networks": {"steps": 0}}, r"collect.networks.steps: got 0"),
        ({"networks": {}}, r"collect.networks: missing a required argument: 'steps'"),
        ({"networks": {**NETWORKS, "mode": "evil"}}, r"collect.networks.mode: got 'evil'"),
        ({"networks": {**NETWORKS, "optimizer": {"type": "Adamm"}}}, r"collect.networks.optimizer: got .*Adamm"),
        ({"together": 0}, r"collect.together: got 0"),
        ({"finetune": {}}, r"collect: .*finetune"),
    ],
)
def test_settings_that_cannot_be_are_one_line_before_anything_is_trained(task, tmp_path, settings, line):
    with pytest.raises(PdiffError, match=line) as caught:
        collected(task(), tmp_path, **settings)
    assert "\n" not in str(caught.value)


def test_states_before_the_first_network_hold_the_trained_base(task, tmp_path, restless):
    whole = collected(task(), tmp_path, together=3)
    first = next(snapshot.state for snapshot in whole if snapshot.state is not None)
    fresh = task()
    for parameter in fresh.model.parameters():
        parameter.data.zero_()
    again = [snapshot for snapshot in collected(fresh, tmp_path, together=3, state=dict(first)) if snapshot.params]
    expected = [snapshot for snapshot in whole if snapshot.params]
    assert all(same(one.params, other.params) for one, other in zip(again, expected, strict=True))
