"""A zoo: independent networks, their snapshots, blocks, the way back into an interrupted collection."""

import pytest
import torch
from pdiff_plugins.classification.zoo import blocks_of_zoo, steps_of

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.errors import PdiffError
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import load_plugin

HOOK = load_plugin("classification").hook


def equal(one, other) -> bool:
    """Say whether two snapshots have the same parameters bit for bit, and the same origin."""
    same = all(torch.equal(one.params[name], other.params[name]) for name in one.params)
    return same and one.provenance == other.provenance


def test_blocks_hold_every_network_once():
    assert blocks_of_zoo(10, 4) == [range(0, 4), range(4, 8), range(8, 10)]


def test_snapshots_are_evenly_spaced_and_end_with_the_training():
    assert steps_of(30, 3, 10) == [10, 20, 30]
    assert steps_of(30, 1, 10) == [30]
    assert steps_of(30, 30, 1) == list(range(1, 31))


def test_every_network_gives_its_snapshots_one_after_another(zoo, conditional):
    snapshots = conditional(zoo).collect()
    origins = [snapshot.provenance for snapshot in snapshots]
    assert [origin["network"] for origin in origins] == [number for number in range(6) for _ in range(3)]
    assert [origin["step"] for origin in origins] == [10, 20, 30] * 6
    assert {origin["branch"] for origin in origins} == {0}
    assert all(origin["loss"] > 0 and 0 <= origin["accuracy"] <= 1 for origin in origins)
    assert all(snapshot.condition is None for snapshot in snapshots)


def test_networks_learn_and_share_neither_beginning_nor_order(zoo, conditional):
    zoo["collect"]["networks"].update(steps=150, snapshots=2, every=149)
    case = conditional(zoo)
    snapshots = case.collect()
    first, last = snapshots[0::2], snapshots[1::2]
    assert min(result.metric for result in case.evaluate(case.candidates(last))) > 0.75
    vectors = torch.stack([case.layout.flatten(snapshot.params) for snapshot in first])
    assert len(vectors.unique(dim=0)) == 6
    assert len({snapshot.provenance["loss"] for snapshot in first}) == 6


def test_a_network_begins_with_the_initial_weights_of_its_number(zoo, conditional):
    zoo["collect"]["networks"].update(steps=1, lr=0.0, snapshots=1)
    case = conditional(zoo)
    built = case.task.model.state_dict()
    assert torch.equal(case.collect()[0].params["features.1.weight"], built["features.1.weight"])


def test_a_network_hardly_depends_on_those_that_are_trained_with_it(zoo, conditional):
    alone = {**zoo, "collect": {**zoo["collect"], "together": 1}}
    ones, others = (conditional(values).collect() for values in (zoo, alone))
    for one, other in zip(ones, others, strict=True):
        for name in one.params:
            torch.testing.assert_close(one.params[name], other.params[name], atol=1e-3, rtol=1e-2)


def test_blocks_yield_together_what_the_whole_yields(zoo, conditional):
    case = conditional(zoo)
    whole = case.collect()
    assert list(HOOK.branches(cfg=case.cfg)) == [0, 1]
    parts = [snapshot for branch in range(2) for snapshot in conditional(zoo).collect(branch=branch)]
    assert len(whole) == len(parts) == 18
    assert all(equal(one, other) for one, other in zip(whole, parts, strict=True))


@pytest.mark.parametrize("branch", [None, 1])
def test_an_interrupted_zoo_goes_on_from_its_last_state_and_ends_with_the_same(zoo, conditional, branch):
    whole = conditional(zoo).collect(branch=branch)
    states = [place for place, snapshot in enumerate(whole) if snapshot.state]
    assert states == ([0, 12] if branch is None else [0])
    for place in states:
        rest = conditional(zoo).collect(whole[place].state, branch)
        assert len(rest) == len(whole) - place - 1
        assert all(equal(one, other) for one, other in zip(rest, whole[place + 1 :], strict=True))


def test_networks_with_batch_statistics_are_trained_one_after_another(zoo, conditional):
    zoo["task"]["network"] = {"type": "timm", "name": "test_resnet"}
    zoo["select"] = "all+buffers"
    zoo["collect"] = {"seeds": 3, "networks": {"steps": 2, "batch_size": 16, "snapshots": 2}}
    whole = conditional(zoo).collect()
    assert [bool(snapshot.state) for snapshot in whole] == [True, False] * 3
    means = [snapshot.params["bn1.running_mean"] for snapshot in whole]
    assert len({tuple(mean.tolist()) for mean in means}) == 6
    rest = conditional(zoo).collect(whole[2].state)
    assert len(rest) == 3
    assert all(equal(one, other) for one, other in zip(rest, whole[3:], strict=True))


def collect(values: dict, folder, resume: bool = False) -> None:
    """Collect into a run directory, as the command does."""
    run_pipeline(resolve(values), RunDirectory(folder), ["collect"], resume=resume, gates=False)


@pytest.mark.parametrize(
    ("event", "file", "count"),
    [
        ("os.rename", "branches/1/collect.state.safetensors", 1),
        ("open", "branches/1/provenance.jsonl", 4),
        ("os.rename", "branches/1/layout.json", 1),
    ],
)
def test_a_killed_zoo_goes_on_and_ends_with_the_same_bytes(zoo, killed, tmp_path, results, event, file, count):
    collect(zoo, tmp_path / "whole")
    assert killed(lambda: collect(zoo, tmp_path / "run"), event, tmp_path / "run" / "population" / file, count)
    collect(zoo, tmp_path / "run", resume=True)
    assert results(tmp_path / "run") == results(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "select", "line"),
    [
        ({"seeds": 2}, "head", r"^collect\.seeds: got 2, expected 1, since each seed would train another 'features\.1"),
        ({"seeds": 0}, "all", r"^collect\.seeds: got 0, expected an integer from 1 on\.$"),
        ({"together": 0}, "all", r"^collect\.together: got 0, expected an integer from 1 on\.$"),
        ({"networks": {"steps": 0}}, "all", r"^collect\.networks\.steps: got 0, expected an integer from 1 on\.$"),
        (
            {"networks": {"steps": 9, "snapshots": 4, "every": 3}},
            "all",
            r"^collect\.networks\.snapshots: got 4, one every 3 steps, expected at most 3 within 9 steps\. Take fewer",
        ),
        ({"networks": {"steps": 1, "mode": "x"}}, "all", r"^collect\.networks\.mode: got 'x'\. Known: eval, train\.$"),
        ({"networks": {"step": 1}}, "all", r"^collect\.networks: got unknown key 'step'\. Did you mean 'steps'\?"),
        ({"finetune": {}}, "all", r"^collect: got unknown key 'finetune'"),
    ],
)
def test_settings_that_train_no_zoo_are_refused(zoo, conditional, changes, select, line):
    zoo["collect"].update(changes)
    with pytest.raises(PdiffError, match=line):
        conditional({**zoo, "select": select}).collect()
