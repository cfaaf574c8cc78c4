"""A network for every condition: blocks, initialisations, the way back into an interrupted collection."""

import pytest
import torch
import yaml
from pdiff_plugins.classification.many import blocks_of

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.errors import PdiffError
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import load_plugin
from pdiff.weights.conditions import Conditions

HOOK = load_plugin("classification").hook


def equal(one, other) -> bool:
    """Say whether two snapshots have the same parameters bit for bit, and the same origin and condition."""
    same = all(torch.equal(one.params[name], other.params[name]) for name in one.params)
    return same and one.provenance == other.provenance and one.condition == other.condition


def test_blocks_hold_every_condition_of_every_initialisation_once():
    blocks = blocks_of(10, 2, 4)
    assert [(block.number, list(block.conditions), block.first) for block in blocks] == [
        (0, [0, 1, 2, 3], 0), (0, [4, 5, 6, 7], 4), (0, [8, 9], 8),
        (1, [0, 1, 2, 3], 10), (1, [4, 5, 6, 7], 14), (1, [8, 9], 18),
    ]  # fmt: skip


def test_every_condition_gets_a_network_that_says_where_it_comes_from(subsets, conditional):
    case = conditional(subsets)
    snapshots = case.collect()
    table = case.task.splits["train"].table
    assert [snapshot.condition for snapshot in snapshots] == list(table)
    assert [snapshot.provenance["branch"] for snapshot in snapshots] == list(range(12))
    assert {snapshot.provenance["network"] for snapshot in snapshots} == {0}
    assert all(snapshot.provenance["loss"] > 0 and 0 <= snapshot.provenance["accuracy"] <= 1 for snapshot in snapshots)
    assert all(list(snapshot.params) == case.names for snapshot in snapshots)


def test_networks_learn_what_their_conditions_ask(subsets, conditional):
    subsets["collect"]["networks"]["steps"] = 100
    case = conditional(subsets)
    results = case.evaluate(case.candidates())
    assert min(result.metric for result in results) > 0.75


def test_blocks_yield_together_what_the_whole_yields(subsets, conditional):
    case = conditional(subsets)
    whole = case.collect()
    assert list(HOOK.branches(cfg=case.cfg)) == [0, 1, 2]
    parts = [snapshot for branch in range(3) for snapshot in conditional(subsets).collect(branch=branch)]
    assert len(whole) == len(parts) == 12
    assert all(equal(one, other) for one, other in zip(whole, parts, strict=True))


@pytest.mark.parametrize("branch", [None, 1])
def test_an_interrupted_collection_goes_on_from_its_last_state_and_ends_with_the_same(subsets, conditional, branch):
    whole = conditional(subsets).collect(branch=branch)
    states = [place for place, snapshot in enumerate(whole) if snapshot.state]
    assert states == ([0, 5, 10] if branch is None else [0])
    for place in states:
        rest = conditional(subsets).collect(whole[place].state, branch)
        assert len(rest) == len(whole) - place - 1
        assert all(equal(one, other) for one, other in zip(rest, whole[place + 1 :], strict=True))


def collect(values: dict, folder, resume: bool = False) -> None:
    """Collect into a run directory, as the command does."""
    run_pipeline(resolve(values), RunDirectory(folder), ["collect"], resume=resume, gates=False)


def test_two_processes_train_what_one_trains(subsets, together, tmp_path, results):
    collect(subsets, tmp_path / "one")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(subsets))
    options = ("--config", tmp_path / "config.yaml", "--stage", "collect", "--no-gates")
    started = together(*options, "--work-dir", tmp_path / "two")
    assert started.codes() == [0, 0], started.text("err")
    assert results(tmp_path / "two") == results(tmp_path / "one")


@pytest.mark.parametrize(
    ("event", "file", "count"),
    [
        ("os.rename", "branches/1/collect.state.safetensors", 1),
        ("open", "branches/1/provenance.jsonl", 4),
        ("os.rename", "branches/2/layout.json", 1),
    ],
)
def test_a_killed_collection_goes_on_and_ends_with_the_same_bytes(
    subsets, killed, tmp_path, results, event, file, count
):
    collect(subsets, tmp_path / "whole")
    assert killed(lambda: collect(subsets, tmp_path / "run"), event, tmp_path / "run" / "population" / file, count)
    collect(subsets, tmp_path / "run", resume=True)
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_a_network_hardly_depends_on_those_that_are_trained_with_it(subsets, conditional):
    alone = {**subsets, "collect": {**subsets["collect"], "together": 1}}
    ones, others = (conditional(values).collect() for values in (subsets, alone))
    for one, other in zip(ones, others, strict=True):
        for name in one.params:
            torch.testing.assert_close(one.params[name], other.params[name], atol=1e-3, rtol=1e-2)


def test_several_initialisations_train_every_condition_from_each(subsets, conditional):
    subsets["collect"]["inits"] = 2
    case = conditional(subsets)
    snapshots = case.collect()
    assert [snapshot.provenance["network"] for snapshot in snapshots] == [0] * 12 + [1] * 12
    assert [snapshot.provenance["branch"] for snapshot in snapshots] == list(range(24))
    assert all(one.condition == other.condition for one, other in zip(snapshots[:12], snapshots[12:], strict=True))
    assert list(HOOK.branches(cfg=case.cfg)) == list(range(6))
    weights = torch.stack([snapshot.params["features.1.weight"].flatten() for snapshot in snapshots])
    near = torch.cdist(weights, weights)
    assert near[:12, :12].mean() < near[:12, 12:].mean() / 1.5


def test_every_network_can_have_an_initialisation_of_its_own(subsets, conditional):
    subsets["collect"]["inits"] = "each"
    subsets["collect"]["networks"].update(steps=1, lr=0.0)
    case = conditional(subsets)
    whole = case.collect()
    weights = torch.stack([snapshot.params["features.1.weight"].flatten() for snapshot in whole])
    assert len(weights.unique(dim=0)) == 12
    assert [snapshot.provenance["network"] for snapshot in whole] == [*range(12)]
    assert torch.equal(weights[0], case.task.model.state_dict()["features.1.weight"].flatten())
    rest = conditional(subsets).collect(whole[5].state)
    assert all(equal(one, other) for one, other in zip(rest, whole[6:], strict=True))


def test_a_network_with_batch_statistics_is_trained_one_after_another(subsets, conditional):
    subsets["task"]["network"] = {"type": "timm", "name": "test_resnet"}
    subsets["task"]["conditions"]["limit"] = 4
    subsets["select"] = "all+buffers"
    subsets["collect"] = {"together": 2, "networks": {"steps": 2, "batch_size": 16}}
    whole = conditional(subsets).collect()
    assert [bool(snapshot.state) for snapshot in whole] == [True] * 4
    assert any("running_mean" in name for name in whole[0].params)
    rest = conditional(subsets).collect(whole[2].state)
    assert len(rest) == 1
    assert equal(rest[0], whole[3])


def test_with_a_larger_eps_networks_of_near_conditions_are_nearer(subsets, conditional):
    subsets["collect"]["networks"].update(steps=10, lr=1e-3)
    found = []
    for eps in (1e-8, 1.0):
        subsets["collect"]["networks"]["eps"] = eps
        case = conditional(subsets)
        begin = case.layout.flatten(case.task.model.state_dict())
        found.append(torch.nn.functional.normalize(case.candidates().vectors - begin, dim=1))
    bits = case.task.splits["train"].table.values
    distances = torch.cdist(bits, bits, p=0).fill_diagonal_(torch.inf)
    signs, sizes = ((ways @ ways.T)[distances == distances.min()].mean() for ways in found)
    assert sizes > signs


def test_what_is_not_selected_stays_and_is_shared(subsets, conditional):
    subsets["select"] = "head"
    case = conditional(subsets)
    before = {name: tensor.clone() for name, tensor in case.task.model.state_dict().items()}
    snapshots = case.collect()
    assert list(snapshots[0].params) == ["head.weight", "head.bias"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in case.task.model.state_dict().items())
    assert not torch.equal(snapshots[0].params["head.weight"], snapshots[1].params["head.weight"])


@pytest.mark.parametrize(
    ("changes", "select", "line"),
    [
        ({"start": "zero"}, "all", r"^collect\.start: got 'zero'\. Known: base, init\.$"),
        ({"start": "base"}, "all", r"^collect\.train: `start: base` needs it\."),
        ({"train": {"epochs": 1}}, "all", r"^collect\.train: `start: init` has no use for it\."),
        ({"start": "base", "train": {"epochs": 1}, "inits": "each"}, "all", r"^collect\.start: got 'base' with `inits"),
        ({"start": "base", "train": {"epochs": 1}}, "all", r"^collect\.start: got 'base', but the conditions change w"),
        ({"inits": 2}, "head", r"^collect\.inits: got 2, expected 1, since each would have another 'features\.1\.wei"),
        ({"inits": "each"}, "head", r"^collect\.inits: got 'each', expected 1"),
        ({"inits": 0}, "all", r"^collect\.inits: got 0, expected an integer from 1 on\.$"),
        ({"together": 0}, "all", r"^collect\.together: got 0, expected an integer from 1 on\.$"),
        ({"networks": {"steps": 0}}, "all", r"^collect\.networks\.steps: got 0, expected an integer from 1 on\.$"),
        ({"networks": {"steps": 1, "mode": "x"}}, "all", r"^collect\.networks\.mode: got 'x'\. Known: eval, train\.$"),
        ({"networks": {"step": 1}}, "all", r"^collect\.networks: got unknown key 'step'\. Did you mean 'steps'\?"),
        ({"finetune": {}}, "all", r"^collect: got unknown key 'finetune'"),
    ],
)
def test_settings_that_train_no_networks_are_refused(subsets, conditional, changes, select, line):
    subsets["collect"].update(changes)
    with pytest.raises(PdiffError, match=line):
        conditional({**subsets, "select": select}).collect()


def finetuned(case, snapshots, steps):
    """Return what the hook yields for the conditions of all snapshots."""
    state = {name: tensor.clone() for name, tensor in case.task.model.state_dict().items() if name in case.names}
    given = {"task": case.task, "names": case.names, "cfg": case.cfg, "start": state}
    conditions = Conditions.of([snapshot.condition for snapshot in snapshots])
    return list(HOOK.finetune(**given, conditions=conditions, steps=steps)), state


def test_as_many_steps_make_of_the_beginning_what_the_collection_makes(subsets, conditional):
    case = conditional(subsets)
    snapshots = case.collect()
    found, _ = finetuned(case, snapshots, 20)
    for own, snapshot in zip(found, snapshots, strict=True):
        assert all(torch.equal(own[name], snapshot.params[name]) for name in case.names)


def test_fewer_steps_lie_between_and_leave_the_network_as_it_is(subsets, conditional):
    case = conditional(subsets)
    snapshots = case.collect()
    before = {name: tensor.clone() for name, tensor in case.task.model.state_dict().items()}
    (found, start), (again, _) = (finetuned(case, snapshots, 2) for _ in range(2))
    assert len(found) == len(snapshots)
    for own, same in zip(found, again, strict=True):
        assert all(torch.equal(own[name], same[name]) and not torch.equal(own[name], start[name]) for name in own)
    assert all(torch.equal(before[name], tensor) for name, tensor in case.task.model.state_dict().items())


def test_networks_without_a_common_beginning_are_not_fine_tuned_from_one(subsets, conditional):
    subsets["collect"]["inits"] = "each"
    case = conditional(subsets)
    with pytest.raises(PdiffError, match=r"^collect\.inits: got 'each', so that the networks have no common beginning"):
        finetuned(case, case.collect(), 2)
