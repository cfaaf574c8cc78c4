"""What the collection says it consists of."""

import pytest

from pdiff.run.config import resolve
from pdiff.runtime.errors import PdiffError
from pdiff.task.plugins import load_plugin

HOOK = load_plugin("classification").hook


@pytest.fixture
def config(tiny) -> dict:
    """A config of 2 epochs of 3 steps and 7 steps of fine-tuning."""
    tiny["device"] = "cpu"
    tiny["task"]["data"].update(size=16, train=48, select=64)
    tiny["collect"] = {"train": {"epochs": 2, "batch_size": 20}, "finetune": {"steps": 7, "batch_size": 24}}
    return tiny


def plan(config: dict, units: int = 0) -> tuple:
    """Return the task, the parts of its collection, and what a few units of each returned."""
    cfg = resolve(config)
    task = HOOK.build(cfg=cfg, folder=None)
    names = HOOK.select_params(task=task, cfg=cfg)
    parts, done = [], {}
    for work in HOOK.plan(task=task, names=names, cfg=cfg):
        parts.append(work)
        done[work.name] = [work.unit() for _ in range(min(units, work.units))]
    return task, parts, done


def sizes(parts) -> dict[str, tuple[int, int]]:
    """Return the units and the snapshots of each part."""
    return {work.name: (work.units, work.snapshots) for work in parts}


def test_collection_is_steps_rests_and_fine_tuning(config):
    assert sizes(plan(config)[1]) == {"train": (6, 0), "rest": (2, 0), "finetune": (7, 7)}


def test_parts_are_counted_for_each_seed_and_branch(config):
    config["select"] = "all+buffers"
    config["collect"] |= {"seeds": 3, "branches": 2}
    config["collect"]["finetune"]["every"] = 3
    assert sizes(plan(config)[1]) == {"train": (18, 0), "rest": (6, 0), "finetune": (12, 12)}


def test_network_that_is_not_trained_has_no_steps(config):
    config["collect"]["train"] = {"epochs": 0}
    assert sizes(plan(config)[1]) == {"train": (0, 0), "rest": (0, 0), "finetune": (7, 7)}


def test_defaults_of_the_fine_tuning_are_counted(config):
    config["collect"]["finetune"] = {}
    assert sizes(plan(config)[1])["finetune"] == (300, 300)


def test_units_of_every_branch_can_be_done(config):
    config["collect"] |= {"branches": 2}
    done = plan(config, units=14)[2]
    assert [(s.provenance["branch"], s.provenance["step"]) for s in done["finetune"][6:8]] == [(0, 7), (1, 1)]
    assert len(done["finetune"]) == 14


def test_units_return_what_a_run_would_write(config):
    done = plan(config, units=2)[2]
    assert done["train"] == [None, None]
    assert not done["rest"][0].params
    assert {"epoch", "optimizer.0.exp_avg"} <= done["rest"][0].state.keys()
    assert all(snapshot.params and snapshot.state for snapshot in done["finetune"])


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("train", {"epohcs": 2}, "collect.train: got unknown key 'epohcs'. Did you mean 'epochs'"),
        ("train", {"epochs": 2, "batch_size": 0}, "collect.train.batch_size: got 0"),
        ("finetune", {"every": 0}, "collect.finetune.every: got 0"),
        ("finetune", {"step": 3}, "collect.finetune: got unknown key 'step'. Did you mean 'steps'"),
    ],
)
def test_mistake_in_the_settings_is_refused(config, section, change, words):
    config["collect"][section] = change
    with pytest.raises(PdiffError, match=words):
        plan(config, units=1)
