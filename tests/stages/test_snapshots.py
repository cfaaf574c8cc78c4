"""What of a collection is written, and what is computed again."""

import json
import re

import numpy as np
import pytest
import torch

from pdiff import PdiffError, Snapshot
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.stages.collect import collect
from pdiff.stages.pipeline import run_pipeline
from pdiff.stages.snapshots import collect_branch, folder_of, recorded, repeated, stored_condition
from pdiff.weights.conditions import Conditions
from pdiff.weights.layout import Layout
from pdiff.weights.population import Population


@pytest.fixture
def stored(tmp_path):
    """Return a function that writes a population of vectors of one value each, and returns it."""

    def write(*values: float) -> Population:
        population = Population.create(tmp_path, Layout.of({"w": torch.zeros(1)}))
        for value in values:
            population.append(torch.tensor([value]), {})
        return population

    return write


def snapshots(*values: float):
    return (Snapshot({"w": torch.tensor([value])}) for value in values)


def test_snapshots_on_disk_are_compared_and_left_out(stored):
    new = repeated(snapshots(1.0, 2.0, 3.0), stored(1.0, 2.0))
    assert [snapshot.params["w"].item() for snapshot in new] == [3.0]
    with pytest.raises(PdiffError, match="snapshot 1 differs from the one on disk"):
        list(repeated(snapshots(1.0, 5.0, 3.0), stored(1.0, 2.0)))


def test_plugin_is_not_blamed_for_what_a_gpu_does_not_repeat(stored):
    words = "differs from the one on disk.* have the plugin yield Snapshot.state, .* a GPU does not repeat every"
    with pytest.raises(PdiffError, match=words):
        list(repeated(snapshots(1.0, 2.5), stored(1.0, 2.0), torch.device("cuda")))


def test_nothing_follows_a_snapshot_on_disk_that_is_not_finite(stored):
    assert not list(repeated(snapshots(1.0, float("nan"), 3.0), stored(1.0, float("nan"))))


CONDITIONS = [{"angle": 0.1}, {"angle": 0.2}, {"angle": 0.3}]
PLUGIN = '''
import torch

from pdiff import Evaluation, Metric, Snapshot, Task, hookimpl


@hookimpl
def build(cfg):
    return Task(torch.nn.Linear(1, 1), {"select": 0, "test": 0}, Metric("accuracy"))


@hookimpl
def collect(task, names, cfg):
    for value, condition in enumerate(cfg.collect.conditions):
        state = task.model.state_dict()
        yield Snapshot({name: torch.full_like(state[name], value) for name in names}, condition=condition)


@hookimpl
def evaluate(task, candidates, split):
    pass
'''


@pytest.fixture
def run_of(tmp_path):
    """Return a function that returns a run whose snapshots have the given conditions; all of one directory."""
    (tmp_path / "angles.py").write_text(PLUGIN)

    def make(*conditions) -> Run:
        config = {"plugin": str(tmp_path / "angles.py"), "select": "all", "collect": {"conditions": list(conditions)}}
        return Run(resolve(config), RunDirectory(tmp_path / "run"))

    return make


def test_condition_is_stored_with_the_row_and_comes_back(run_of):
    run = run_of(*CONDITIONS)
    collect(run)
    assert [record["condition"] for record in run.population.provenance] == CONDITIONS
    assert run.population.conditions.values.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert run.conditional


def test_without_conditions_no_row_has_the_key(run_of):
    run = run_of(None, None)
    collect(run)
    assert not any("condition" in record for record in run.population.provenance)
    assert not run.conditional


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"angel": 0.2}, "condition of snapshot 1: got the name 'angel'. Did you mean 'angle'?"),
        ({"angle": float("nan")}, "condition of snapshot 1: got nan for 'angle', expected a finite number. Mend it."),
        (None, "condition of snapshot 1: got no condition, expected numbers by name (angle). Give each one, or none"),
    ],
)
def test_condition_that_does_not_fit_the_first_stops_the_collection_and_what_is_written_stays(run_of, second, words):
    with pytest.raises(PdiffError, match=f"plugin angles: collect, {re.escape(words)}"):
        collect(run_of(CONDITIONS[0], second))
    run = run_of(*CONDITIONS)
    collect(run)
    assert run.population.conditions.values.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_collection_that_is_resumed_ends_with_the_same_bytes(run_of, tmp_path):
    collect(run_of(*CONDITIONS))
    whole = {path: path.read_bytes() for path in (tmp_path / "run" / "population").iterdir() if path.is_file()}
    Population.open(tmp_path / "run" / "population").truncate(1)
    collect(run_of(*CONDITIONS))
    assert whole == {path: path.read_bytes() for path in whole}


def test_collection_whose_conditions_come_otherwise_cannot_be_resumed(run_of, tmp_path):
    collect(run_of(*CONDITIONS))
    Population.open(tmp_path / "run" / "population").truncate(2)
    with pytest.raises(PdiffError, match="snapshot 1 differs from the one on disk"):
        collect(run_of(CONDITIONS[0], CONDITIONS[2], CONDITIONS[1]))


def test_numbers_of_any_type_are_stored_as_json_has_them():
    stored = stored_condition(Snapshot({}, condition={"angle": np.float32(0.5), "bit": np.int64(1)}))
    assert json.loads(json.dumps(stored)) == {"condition": {"angle": 0.5, "bit": 1.0}}
    assert stored_condition(Snapshot({})) == {}


BRANCHES = """

@hookimpl
def branches(cfg):
    return range(len(cfg.collect.conditions))
"""


def test_branches_have_conditions_of_one_kind(tmp_path):
    code = PLUGIN.replace("cfg):\n    for value, condition in enumerate(cfg.collect.conditions):", (
        "cfg, state, branch):\n    for value, condition in [(branch, cfg.collect.conditions[branch])] * 2:"
    )).replace("condition=condition)", "{}, {'value': torch.tensor(value)}, condition)") + BRANCHES  # fmt: skip
    (tmp_path / "branches.py").write_text(code)

    def conditions(*values) -> Conditions:
        config = {"plugin": str(tmp_path / "branches.py"), "select": "all", "collect": {"conditions": list(values)}}
        directory = RunDirectory(tmp_path / str(len(list(tmp_path.iterdir()))))
        run_pipeline(resolve(config), directory, ["collect"], gates=False)
        return Population.open(directory.folder("collect")).conditions

    assert conditions(*CONDITIONS).values.flatten().tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    for other, words in (({"angel": 0.2}, "got the name 'angel'. Did you mean 'angle'?"), (None, "got no condition")):
        with pytest.raises(PdiffError, match=rf"population: condition of row 2: {re.escape(words)}"):
            conditions(CONDITIONS[0], other)


RESTING = """

@hookimpl
def branches(cfg):
    return [0, 0]


@hookimpl
def collect(task, names, cfg, state, branch):
    if state is None:
        task.model.bias.data.fill_(7)
    if branch == 1:
        yield Snapshot({}, state={"rested": torch.tensor(1)})
    yield Snapshot({"weight": task.model.bias.detach()[None].clone()}, {}, {"rested": torch.tensor(0)})
"""


def test_a_branch_that_rested_before_its_first_snapshot_goes_on_with_the_trained_network(tmp_path):
    start, _, end = PLUGIN.partition("@hookimpl\ndef collect")
    (tmp_path / "resting.py").write_text(start + end[end.index("@hookimpl") :] + RESTING)
    config = resolve({"plugin": str(tmp_path / "resting.py"), "select": "regex(weight)"})

    def run() -> Run:
        return Run(config, RunDirectory(tmp_path / "run"))

    first = run()
    collect_branch(first, 0)
    next(recorded(first, 1, 0))
    assert collect_branch(run(), 1, 0) == 1
    assert Population.open(folder_of(first, 1)).vectors[0] == 7
