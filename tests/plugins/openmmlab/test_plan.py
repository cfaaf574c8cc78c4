"""What the collection says it consists of."""

import threading

import pytest
import torch

pytest.importorskip("mmdet")

from pdiff_plugins.openmmlab.libraries import MMDET
from pdiff_plugins.openmmlab.plan import collection_work

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.registry import call
from pdiff.weights.select import select

ADAMW = {"type": "AdamW", "lr": 1e-3}
CPU = torch.device("cpu")


@pytest.fixture
def plan(tiny_task):
    """Return a function from settings of `collect` to the task, the parts, and what a few units of each returned."""

    def do(units: int = 0, options: dict | None = None, **settings):
        task = tiny_task(options)
        settings = {"finetune": {"steps": 5, "optimizer": ADAMW}, **settings}
        given = {"task": task, "names": select(task.model, "head", task.head), "seed": 0, "device": CPU}
        parts, done = [], {}
        for work in call(collection_work, settings, "collect", library=MMDET, **given):
            parts.append(work)
            done[work.name] = [work.unit() for _ in range(min(units, work.units))]
        return task, parts, done

    return do


def sizes(parts) -> dict[str, tuple[int, int]]:
    """Return the units and the snapshots of each part."""
    return {work.name: (work.units, work.snapshots) for work in parts}


def test_collection_is_steps_and_fine_tuning(plan):
    assert sizes(plan()[1]) == {"train": (4, 0), "finetune": (5, 5)}


def test_epochs_are_counted_in_steps(plan):
    options = {"train_cfg": {"_delete_": True, "by_epoch": True, "max_epochs": 3}}
    assert sizes(plan(options=options)[1])["train"] == (3 * 4, 0)


def test_branches_and_steps_between_snapshots_are_counted(plan):
    finetune = {"steps": 5, "every": 2, "optimizer": ADAMW}
    assert sizes(plan(branches=3, finetune=finetune)[1])["finetune"] == (6, 6)


def test_network_that_is_not_trained_has_no_steps(plan):
    assert sizes(plan(train={"enabled": False})[1]) == {"train": (0, 0), "finetune": (5, 5)}


def test_units_are_single_steps_and_leave_no_thread_and_no_file(plan, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = plan(units=3, branches=2)[2]
    assert all(not snapshot.params and snapshot.state is None for snapshot in done["train"])
    assert [snapshot.provenance["step"] for snapshot in done["finetune"]] == [1, 2, 3]
    assert all(snapshot.state for snapshot in done["finetune"])
    assert not [thread for thread in threading.enumerate() if thread.name == "pdiff-collect"]
    assert not list(tmp_path.iterdir())


def test_training_begins_with_its_full_learning_rate(plan, tiny_task):
    options = {"param_scheduler": [{"type": "ConstantLR", "factor": 1e-6, "by_epoch": False, "end": 4}]}
    task = plan(units=1, options=options)[0]
    name = "bbox_head.conv_cls.bias"
    moved = (task.model.state_dict()[name] - tiny_task().model.state_dict()[name]).abs().max()
    assert moved > 1e-4


def test_training_that_diverges_is_taken_back(plan, tiny_task):
    options = {"optim_wrapper": {"_delete_": True, "optimizer": {"type": "SGD", "lr": float("inf")}}}
    task = plan(options=options, units=1, finetune={"steps": 2, "optimizer": ADAMW})[0]
    assert all(torch.isfinite(tensor).all() for tensor in task.model.state_dict().values())


def test_units_of_every_branch_can_be_done(plan):
    done = plan(units=10, branches=2)[2]["finetune"]
    assert [(s.provenance["branch"], s.provenance["step"]) for s in done] == [
        (b, s) for b in (0, 1) for s in range(1, 6)
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"branches": 0}, "collect.branches: got 0"),
        ({"train": {"enable": False}}, "collect.train: got unknown key 'enable'. Did you mean 'enabled'"),
        ({"finetune": {"steps": 2, "every": 3}}, "collect.finetune.every: got 3, expected at most 2"),
    ],
)
def test_mistake_in_the_settings_is_refused(plan, settings, words):
    with pytest.raises(PdiffError, match=words):
        plan(units=1, **settings)
