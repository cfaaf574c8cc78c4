"""The training losses of networks: what their collection minimises, with gradients, whoever asks."""

import dataclasses
import itertools
import multiprocessing

import pytest
import torch

pytest.importorskip("mmdet")

from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from pdiff_plugins.openmmlab import collection, losses
from pdiff_plugins.openmmlab.collection import snapshots
from pdiff_plugins.openmmlab.conditions import build_kind
from pdiff_plugins.openmmlab.libraries import MMDET, open_config
from pdiff_plugins.openmmlab.lockstep import Lockstep
from pdiff_plugins.openmmlab.losses import losses_of_networks

from pdiff import Conditions, PdiffError, call
from pdiff.weights.select import select

CPU = torch.device("cpu")
SETS = {"type": "classes", "subsets": [[0, 1, 2], [3], [4, 5, 6, 7], [8, 9], [1, 9]]}
OPTIMIZER = {"type": "SGD", "lr": 1e-3}
PREDICTORS = "module(bbox_head.conv_cls)+module(bbox_head.conv_reg)"
NORM = "module(backbone.layer3.1.bn2)"
LEAF = torch.zeros(1, requires_grad=True)
COLLECT = {"networks": {"steps": 64, "optimizer": OPTIMIZER}}


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


def begin(task, selector=PREDICTORS) -> dict[str, torch.Tensor]:
    """Return the selection that a task's network has."""
    tensors = task.model.state_dict()
    return {name: tensors[name].clone() for name in select(task.model, selector, task.head)}


def stacked(selections) -> dict[str, torch.Tensor]:
    """Return selections one upon another, those with a gradient as leaves that are asked for one."""
    found = {name: torch.stack([each[name].detach() for each in selections]) for name in selections[0]}
    return {name: tensor.requires_grad_(tensor.is_floating_point()) for name, tensor in found.items()}


def trained(task, selector=PREDICTORS, mode="eval", numbers=range(5), steps=3) -> list[tuple[list, list, list]]:
    """Return for each step of networks trained in lockstep their selections before it, their losses and gradients.

    These are added up over the steps where the optimiser waits for some, else there are none.
    """
    table = task.splits["train"].kind.table.take([*numbers])
    lockstep = Lockstep(task, begin(task, selector), table, 0, "x", 64, OPTIMIZER, mode)
    found, before = [], [begin(task, selector) for _ in lockstep.networks]
    for _ in itertools.islice(lockstep.run(), steps):
        gradients = [{name: each.grad for name, each in network.tensors.items()} for network in lockstep.networks]
        found.append((before, [network.losses["loss"] for network in lockstep.networks], copies(gradients)))
        before = copies(network.tensors for network in lockstep.networks)
    lockstep.passes.end()
    return found


def copies(selections) -> list[dict]:
    """Return copies of the tensors that are there, which further training does not change."""
    return [{name: each.detach().clone() for name, each in own.items() if each is not None} for own in selections]


def asked(task, params, numbers=range(5), step=0, collect=COLLECT) -> torch.Tensor:
    """Return the losses of networks for some conditions; None: without conditions."""
    table = None if numbers is None else task.splits["train"].kind.table.take([*numbers])
    return losses_of_networks(task, 0, collect, params, table, step)


def assert_as_trained(task, steps, numbers=range(5), collect=COLLECT) -> None:
    """Assert that the losses of each step are those of the training, bit for bit."""
    for step, (selections, told, _) in enumerate(steps):
        assert torch.equal(asked(task, stacked(selections), numbers, step, collect).detach(), torch.stack(told))


@pytest.mark.parametrize("selector", [PREDICTORS, "head", NORM])
def test_losses_are_those_of_networks_trained_for_conditions(task, selector):
    own = task()
    before = {name: tensor.clone() for name, tensor in own.model.state_dict().items()}
    assert_as_trained(own, trained(task(), selector))
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.model.state_dict().items())
    assert not own.model.training
    assert not any(parameter.requires_grad for parameter in own.model.parameters())


WAITING = {"optim_wrapper": {"accumulative_counts": 64}}  # a power of 2, by which losses are divided without rounding


@pytest.mark.parametrize("selector", [PREDICTORS, "head", NORM])
@pytest.mark.filterwarnings("ignore:torch.utils.checkpoint")  # of the way in which mmdet calls it
@pytest.mark.parametrize("options", [{}, {"model.backbone.with_cp": True}], ids=["usual", "frugal"])
def test_gradients_are_those_of_the_training(task, selector, options):
    ((selections, _, gradients),) = trained(task({**WAITING, **options}), selector, steps=1)
    params = stacked(selections)
    weights = torch.tensor([1.0, 2.0, 4.0, 0.5, 0.25])
    (weights * asked(task(options), params)).sum().backward()
    for place, (own, weight) in enumerate(zip(gradients, weights, strict=True)):
        assert own.keys() == params.keys()
        assert all(torch.equal(tensor.grad[place], 64 * weight * own[name]) for name, tensor in params.items())


def test_running_statistics_are_counted_and_not_changed(task):
    selector = f"{NORM}+buffers"
    collect = {"networks": {**COLLECT["networks"], "mode": "train"}}
    steps, own = trained(task(), selector, "train"), task()
    assert_as_trained(own, steps, collect=collect)
    params = stacked(steps[0][0])
    before = copies([params])[0]
    asked(own, params, collect=collect).sum().backward()
    assert all(torch.equal(params[name], tensor) for name, tensor in before.items())
    grown = {name for name, tensor in params.items() if tensor.grad is not None}
    assert grown == {f"backbone.layer3.1.bn2.{name}" for name in ("weight", "bias")}


def test_images_of_each_condition_are_those_of_its_training(task, monkeypatch):
    own, rows = task(), [[0, 1, 2], None, [3, 4, 5, 6, 7], [0, 1, 2], None]
    table = own.splits["train"].kind.table
    images = {tuple(values.tolist()): each for values, each in zip(table.values, rows, strict=True)}
    monkeypatch.setattr(type(own.splits["train"].kind), "rows", lambda kind, data, values: images[(*values.tolist(),)])
    steps = trained(task())
    assert_as_trained(own, steps)
    found = asked(own, stacked(steps[1][0][2:4]), [2, 3], step=1).detach()
    assert torch.equal(found, torch.stack(steps[1][1][2:4]))


@pytest.mark.parametrize("numbers", [[3], [1, 4]])
def test_the_loss_of_a_network_is_the_same_whoever_is_asked_for_with_it(task, numbers):
    selections, told, _ = trained(task())[2]
    some = stacked([selections[number] for number in numbers])
    assert torch.equal(asked(task(), some, numbers, 2).detach(), torch.stack([told[number] for number in numbers]))


class Finetuned:
    """The snapshots of a fine-tuning, the first of which is the trained network itself.

    Args:
        task: without conditions.
        folder: for logs.
        selector: the selection.
        settings: of the fine-tuning.
    """

    def __init__(self, task, folder, selector=PREDICTORS, **settings):
        self.collect = {"train": {"enabled": False}, "finetune": {"steps": 3, "optimizer": OPTIMIZER, **settings}}
        self.rows = [begin(task, selector)]
        given = {"names": [*self.rows[0]], "seed": 0, "device": CPU, "state": None, "folder": folder, "library": MMDET}
        found = [*call(snapshots, {**self.collect, "branches": 2}, "collect", task=task, **given)]
        self.rows += [{**snapshot.params} for snapshot in found if snapshot.provenance["branch"] == 0]
        self.origins = [snapshot.provenance for snapshot in found if snapshot.provenance["branch"] == 0]

    def assert_losses(self, task) -> None:
        """Assert that the losses that are told are those that the fine-tuning had."""
        for before, origin in zip(self.rows, self.origins, strict=False):
            found = asked(task, stacked([before, before]), None, origin["step"] - 1, self.collect)
            assert found.tolist() == [origin["loss"]] * 2


@pytest.mark.parametrize("selector", [PREDICTORS, "head", NORM])
def test_without_conditions_losses_are_those_of_the_first_branch(tiny_task, tmp_path, selector):
    Finetuned(tiny_task(), tmp_path, selector).assert_losses(tiny_task())


def test_running_statistics_of_a_fine_tuning_are_counted(tiny_task, tmp_path):
    Finetuned(tiny_task(), tmp_path, f"{NORM}+buffers", mode="train").assert_losses(tiny_task())


def test_steps_of_the_warm_up_count(tiny_task, tmp_path):
    warmed = Finetuned(tiny_task(), tmp_path, warmup=2)
    assert [origin["step"] for origin in warmed.origins] == [3, 4, 5]
    warmed.rows, warmed.origins = warmed.rows[1:], warmed.origins[1:]
    warmed.assert_losses(tiny_task())


RESIZED = [{"type": "BatchSyncRandomResize", "random_size_range": (96, 192), "interval": 1}]


def test_the_loss_has_the_size_of_images_that_a_training_begins_with(tiny_task, tmp_path):
    own = tiny_task({"model.data_preprocessor.batch_augments": RESIZED})
    tuned = Finetuned(own, tmp_path)
    begun = stacked([tuned.rows[0]])
    assert asked(own, begun, None, 0, tuned.collect).tolist() == [tuned.origins[0]["loss"]]
    assert asked(own, begun, None, 0, tuned.collect).tolist() == [tuned.origins[0]["loss"]]


@pytest.mark.parametrize("wrapper", [{"accumulative_counts": 2}, {"type": "Bfloat16OptimWrapper"}])
def test_precision_is_that_of_the_training(task, tiny_task, tmp_path, wrapper):
    options = {"optim_wrapper": wrapper}
    assert_as_trained(task(options), trained(task(options)))
    Finetuned(tiny_task(options), tmp_path).assert_losses(tiny_task(options))


class Scaling(AmpOptimWrapper):
    """Scales losses as mmengine's own wrapper does, which refuses CPUs, and leaves the precision alone."""

    def __init__(self, **settings):
        OptimWrapper.__init__(self, **settings)
        self.loss_scaler = torch.amp.GradScaler("cpu")

    def optim_context(self, model):
        """Do as a wrapper of full precision."""
        return OptimWrapper.optim_context(self, model)


@pytest.mark.parametrize("weight", [1.0, 1e4], ids=["usual", "overflowing"])
def test_gradients_of_scaled_losses_are_those_of_the_losses(task, monkeypatch, weight):
    """A gradient in half precision is infinite from 65,520 on, which is what the losses are scaled with at first."""
    found = []
    for wrapper in (OptimWrapper, Scaling):
        monkeypatch.setattr(losses, "constant_rate", lambda *_, kind=wrapper: kind(optimizer=torch.optim.SGD([LEAF])))
        own = task({"model.bbox_head.loss_cls.loss_weight": weight})
        own.model.bbox_head.conv_cls.register_forward_hook(lambda layer, given, scores: scores.half().float())
        params = stacked([begin(own)] * 5)
        asked(own, params).sum().backward()
        found.append(params["bbox_head.conv_cls.weight"].grad)
    assert found[0].isfinite().all()
    assert found[0].any()
    torch.testing.assert_close(found[1], found[0], rtol=1e-2, atol=1e-3 * found[0].abs().max())


def test_what_a_head_writes_into_its_samples_is_gone_for_the_next_network(task, tiny_task, tmp_path, monkeypatch):
    def written(own):
        loss = own.model.bbox_head.loss

        def writing(features, samples, **given):
            for sample in samples:
                sample.gt_instances.labels = 9 - sample.gt_instances.labels
            return loss(features, samples, **given)

        monkeypatch.setattr(own.model.bbox_head, "loss", writing)
        return own

    assert_as_trained(written(task()), trained(written(task())))
    Finetuned(written(tiny_task()), tmp_path).assert_losses(written(tiny_task()))


def drawing(task):
    """Return a task whose preprocessing, and whose head, draw random numbers."""
    task.model.data_preprocessor.register_forward_hook(brightened)
    task.model.bbox_head.conv_cls.register_forward_pre_hook(lambda layer, given: (given[0] + torch.rand(()),))
    return task


def brightened(module, given, batch):
    """Make a batch brighter by chance."""
    return {**batch, "inputs": batch["inputs"] + torch.rand(())}


def test_what_a_pass_draws_is_what_it_drew_in_the_training(task, tiny_task, tmp_path):
    assert_as_trained(drawing(task()), trained(drawing(task())))
    Finetuned(drawing(tiny_task()), tmp_path).assert_losses(drawing(tiny_task()))


def test_no_gradients_are_computed_that_nobody_asks_for(task, monkeypatch):
    own, params = task(), stacked([begin(task())] * 5)
    expected = asked(own, params)
    monkeypatch.setattr(torch.Tensor, "backward", None)
    with torch.no_grad():
        assert torch.equal(asked(own, params), expected.detach())
    assert torch.equal(asked(own, copies([params])[0]), expected.detach())
    assert not asked(own, copies([params])[0]).requires_grad


def test_a_tensor_that_no_loss_of_a_batch_depends_on_has_the_gradient_0(task):
    own = task()
    own.model.bbox_head.idle = torch.nn.Linear(2, 2)
    params = stacked([begin(own, "module(bbox_head.conv_cls)+module(bbox_head.idle)")] * 5)
    asked(own, params).sum().backward()
    assert params["bbox_head.conv_cls.weight"].grad.any()
    assert not params["bbox_head.idle.weight"].grad.any()
    assert not asked(own, {name: params[name] for name in params if "idle" in name}).requires_grad


def test_what_comes_before_the_selection_is_computed_once(task, monkeypatch):
    own, computed = task(), []
    forward = own.model.backbone.forward
    monkeypatch.setattr(own.model.backbone, "forward", lambda x: (computed.append(1), forward(x))[1])
    asked(own, stacked([begin(own)] * 5))
    assert len(computed) == 1
    asked(own, stacked([begin(own)]), [2])
    assert len(computed) == 2


def with_workers(task):
    """Return a task whose training data have workers, which stay."""
    split = task.splits["train"]
    loader = {**split.loader, "num_workers": 2, "persistent_workers": True}
    split = dataclasses.replace(split, loader=loader)
    return dataclasses.replace(task, splits={**task.splits, "train": split})


def test_data_workers_go_on_from_step_to_step_and_begin_anew_for_another(task):
    own, params = with_workers(task()), stacked([begin(task())] * 5)
    expected = [asked(task(), params, step=step).detach() for step in range(4)]
    found, workers = [], set()
    for step in range(3):
        found.append(asked(own, params, step=step).detach())
        workers |= {process.pid for process in multiprocessing.active_children()}
    assert len(workers) == 2
    for step in (2, 0, 3):
        found.append(asked(own, params, step=step).detach())
    assert all(torch.equal(one, expected[step]) for one, step in zip(found, (0, 1, 2, 2, 0, 3), strict=True))
    assert len(multiprocessing.active_children()) == 2


def test_a_split_and_its_copy_have_loaders_of_their_own(task):
    split = task().splits["train"]
    assert dataclasses.replace(split).ahead is not split.ahead
    assert dataclasses.replace(split) == split


TWO_STAGES = {
    "backbone": {"depth": 18, "base_channels": 8, "stem_channels": 8},
    "neck": {"in_channels": [8, 16, 32, 64], "out_channels": 8},
    "rpn_head": {"in_channels": 8, "feat_channels": 8},
    "roi_head": {
        "bbox_roi_extractor": {"out_channels": 8},
        "bbox_head": {"in_channels": 8, "fc_out_channels": 8, "num_classes": 10},
    },
}


def test_a_second_stage_is_told_on_the_proposals_that_are_its_own(task):
    config = open_config(
        MMDET, "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco", options={"model": TWO_STAGES}, pretrained=False
    )
    options = {"model": {"_delete_": True, **config.model.to_dict()}}
    assert_as_trained(task(options), trained(task(options), "module(roi_head.bbox_head)"))


def test_draws_that_no_step_tells_are_refused_in_one_line(tiny_task):
    own = tiny_task()
    collect = {"draws": "config", "finetune": {"optimizer": OPTIMIZER}}
    with pytest.raises(PdiffError, match=r"^collect.draws: got 'config', expected 'seeded', ") as caught:
        asked(own, stacked([begin(own)]), None, collect=collect)
    assert "\n" not in str(caught.value)


def test_draws_that_no_step_tells_are_refused_before_a_training_whose_fit_needs_the_losses(case, tmp_path):
    fit, collect = {"decoder": {"steps": 1}}, {"draws": "config", "finetune": {}}
    cfg = Config({"collect": collect, "fit": fit, "seed": 0, "device": "cpu"})
    with pytest.raises(PdiffError, match=r"^collect.draws: got 'config', expected 'seeded', "):
        case.hook.collect(task=None, names=[], cfg=cfg, state=None, folder=tmp_path, branch=None)


@pytest.mark.parametrize("where", ["networks", "finetune"])
def test_a_loss_that_fails_is_one_line_and_leaves_the_network_as_it_was(task, monkeypatch, where):
    def fail(*_, **__):
        raise IndexError("no object")

    own = task()
    monkeypatch.setattr(own.model.bbox_head, "loss_by_feat", fail)
    line = rf"^collect.{where}: the loss of step 7 cannot be computed \(IndexError: no object\). Check pipeline, "
    with pytest.raises(PdiffError, match=line) as caught:
        asked(own, stacked([begin(own)]), [0] if where == "networks" else None, step=7)
    assert "\n" not in str(caught.value)
    assert not own.model.training


@pytest.mark.parametrize("where", ["networks", "finetune"])
def test_settings_of_a_training_that_cannot_be_are_its_own_line(task, where):
    own = task()
    collect = {where: {"steps": 0}}
    with pytest.raises(PdiffError, match=rf"^collect.{where}.steps: got 0"):
        asked(own, stacked([begin(own)]), [0] if where == "networks" else None, collect=collect)


@pytest.mark.parametrize("numbers", [None, [0, 1]])
def test_networks_that_nobody_trains_have_the_loss_that_they_would_have_in_training(task, numbers):
    own = task()
    expected = {"finetune": {}, "networks": {"steps": 3}}
    params = stacked([begin(own)] * 2)
    assert torch.equal(asked(own, params, numbers, collect={}), asked(own, params, numbers, collect=expected))


def test_a_condition_that_was_never_trained_has_a_loss(task):
    own = task()
    table = own.splits["train"].kind.table
    new = Conditions(table.names, torch.eye(10)[[2, 6]])
    found = losses_of_networks(own, 0, COLLECT, stacked([begin(own)] * 2), new, 0)
    assert found.isfinite().all()
    assert found[0] != found[1]


def test_what_hooks_of_the_base_training_changed_is_no_part_of_the_loss(tiny_task, tmp_path, monkeypatch):
    def train(task, seed, config, library, draws, folder, device, state, enabled):
        task.model.bbox_head.centerness_on_reg = not task.model.bbox_head.centerness_on_reg
        yield from ()

    monkeypatch.setattr(collection, "train_base", train)
    Finetuned(tiny_task(), tmp_path).assert_losses(tiny_task())
