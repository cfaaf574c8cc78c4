"""Plans of small runs: the smallest plugin of the documentation, and the tiny classification of all tests."""

import re
from pathlib import Path

import pytest
import torch

from pdiff.plan.limits import Limits, limits_now
from pdiff.plan.rehearsal import make_plan, shortened, stored
from pdiff.run.config import load_config, resolve
from pdiff.run.directory import STAGES
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_tensors

DOCS = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
PLUGIN = PYTHON[0]
PLAN = next(block for block in PYTHON if "def plan(" in block)
PLENTY = Limits(None, 10**12)


FEW = {"select": "head", "generate.num": 40, "engine.denoiser_training.steps": 20}
MANY = {
    "select": "head",
    "generate.num": 140,
    "generate.sampler": {"type": "DDPM", "steps": 1000},
    "engine.denoiser_training.steps": 100_000,
    "evaluate.sources.gaussian.num": 700,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder for the plugin; nothing else may be in it after a plan."""
    return tmp_path_factory.mktemp("moons")


@pytest.fixture(scope="module")
def moons(folder):
    """Return a function from options to the config of the smallest plugin, with the hook `plan` or without."""

    def config(options: dict, hook: bool = True):
        name = folder / ("moons.py" if hook else "silent.py")
        name.write_text(f"{PLUGIN}\n\n{PLAN}" if hook else PLUGIN)
        return load_config(str(name), None, {}, options)

    return config


@pytest.fixture(scope="module")
def planned(moons, folder):
    """Return a function from options to a plan of the smallest plugin."""

    def plan(options: dict, hook: bool = True, limits: Limits = PLENTY):
        return make_plan(moons(options, hook), folder / "runs" / "moons", limits)

    return plan


@pytest.fixture(scope="module")
def few(planned):
    return planned(FEW)


@pytest.fixture(scope="module")
def many(planned):
    return planned(MANY)


def stage(plan, name: str):
    """Return one stage of a plan."""
    return next(stage for stage in plan.stages if stage.name == name)


def test_plan_says_what_the_run_will_have(few):
    assert (few.parameters, few.checkpoints, few.latent) == (66, 100, 32)
    assert few.candidates == 100 + 40 + 100 + 1 + 8 * 200 + 8 * 4
    assert [stage.name for stage in few.stages] == list(STAGES)
    assert all(stage.seconds > 0 and stage.peak_memory_bytes > 10_000_000 for stage in few.stages)
    assert few.notes == ()


def test_sizes_follow_the_counts(few, many):
    vectors = stage(many, "generate").disk_bytes - stage(few, "generate").disk_bytes
    assert vectors == pytest.approx(100 * (66 + 32) * 4, abs=100)
    assert many.candidates - few.candidates == 600
    signatures = stage(many, "evaluate").disk_bytes - stage(few, "evaluate").disk_bytes
    assert signatures > 600 * (1000 + 500)  # a byte for each sample of both splits, at least
    assert stage(few, "collect").disk_bytes == stage(many, "collect").disk_bytes > 100 * 66 * 4


def test_rehearsal_does_few_steps_whatever_the_config_says(moons):
    config = shortened(moons(MANY))
    assert config.engine.denoiser_training.steps == 2
    assert config.engine.autoencoder_training.steps == 0
    assert config.generate.sampler == {"type": "DDPM", "steps": 2}
    assert shortened(moons({**FEW, "engine.sampler.steps": 1})).generate.sampler == {"type": "DDIM", "steps": 1}


def test_plan_leaves_nothing_behind(few, many, folder):
    assert {path.suffix for path in folder.iterdir()} <= {".py", ""}
    assert not (folder / "runs").exists()
    assert not list(folder.glob(".plan-*"))


def test_plugin_without_the_hook_is_planned_without_the_time_of_its_collection(planned):
    plan = planned(FEW, hook=False)
    assert (stage(plan, "collect").seconds, plan.checkpoints) == (None, 300)
    assert plan.notes == (
        "The plugin silent has no plan hook: the time of collect is not known, and N is taken as 300.",
    )


def test_run_that_could_not_begin_is_refused_and_leaves_nothing_behind(planned, folder):
    with pytest.raises(PdiffError, match="evaluate.sources: got members 101, expected 1 to 100, all trained"):
        planned({**FEW, "evaluate.sources.soup16.members": 101})
    assert not list(folder.glob(".plan-*"))


def test_collection_without_snapshots_is_refused(moons, tmp_path):
    plugin = tmp_path / "lonely.py"
    plugin.write_text(f"{PLUGIN}\n\n{PLAN}".replace("snapshots=100", "snapshots=1"))
    config = load_config(str(plugin), None, {}, FEW)
    with pytest.raises(PdiffError, match="plan: got a collection of 1 snapshots, expected 2 at least. Change collect"):
        make_plan(config, tmp_path / "run", PLENTY)


def test_vectors_that_do_not_fit_are_refused_before_they_are_made(planned):
    with pytest.raises(PdiffError, match="plan: run directory: got 37 kB, expected at most 30 kB"):
        planned(FEW, limits=Limits(None, 30_000))


def test_plan_of_a_finished_run_is_about_what_it_used(finished, tiny, tmp_path):
    plan = make_plan(resolve(tiny), tmp_path / "run", limits_now(tmp_path, "cpu"))
    assert (plan.checkpoints, plan.candidates) == (10, 10 + 5 + 1 + 9 * 4 + 8 * 2)
    for name, used in finished.records().items():
        disk = stored(finished.folder(name)) + (finished.base.stat().st_size if name == "collect" else 0)
        assert stage(plan, name).disk_bytes == pytest.approx(disk, rel=0.2)
        assert 2 / 3 < stage(plan, name).peak_memory_bytes / used["peak_memory_bytes"] < 3 / 2


def test_checkpoints_of_the_user_are_counted(finished, tiny, tmp_path):
    (tmp_path / "files").mkdir()
    for number in range(4):
        torch.save(read_tensors(finished.base), tmp_path / "files" / f"{number}.pth")
    tiny["checkpoints"] = {"files": str(tmp_path / "files")}
    plan = make_plan(resolve(tiny), tmp_path / "run", PLENTY)
    assert plan.checkpoints == 4
    assert stage(plan, "collect").seconds > 0


def test_checkpoints_of_another_network_are_refused(finished, tiny, tmp_path):
    tensors = read_tensors(finished.base)
    torch.save(tensors | {"conv1.0.weight": torch.zeros(1)}, tmp_path / "0.pth")
    tiny["checkpoints"] = {"files": str(tmp_path / "*.pth")}
    with pytest.raises(PdiffError, match="0.pth: does not fit the network .* Check task in the config"):
        make_plan(resolve(tiny), tmp_path / "run", PLENTY)
