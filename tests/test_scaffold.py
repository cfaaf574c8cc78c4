"""A new plugin runs at once, keeps the rules and the house style, and takes nobody's name."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pdiff.run.config import load_config
from pdiff.run.directory import RunDirectory
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json
from pdiff.scaffold import FILES, TEMPLATE, write_plugin
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import import_plugin
from pdiff.testing import check_plugin

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def new(tmp_path_factory) -> Path:
    """The folder of a new plugin called `mine`."""
    folder = tmp_path_factory.mktemp("plugins")
    write_plugin("mine", folder)
    return folder / "mine"


def test_new_writes_package_config_test_project_and_readme(new):
    files = {str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()}
    assert files == {"mine/__init__.py", "mine/default.yaml", "test_mine.py", "pyproject.toml", "README.md"}
    assert not [path for path in new.rglob("*") if path.is_file() and "NAME" in path.read_text()]


def test_every_file_of_the_template_is_written():
    files = {str(path.relative_to(TEMPLATE)) for path in TEMPLATE.rglob("*") if path.is_file()}
    assert {name for name in files if "cache" not in name} == set(FILES)


def test_new_says_what_to_do_next(tmp_path):
    words = write_plugin("another", tmp_path)
    assert f"pdiff run --plugin {tmp_path}/another/another\n" in words
    assert words.endswith(f"pdiff plugins check {tmp_path}/another/another")


def test_new_plugin_passes_the_linter_with_its_own_settings(new):
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", str(new)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("simulate_cuda", [False, True])
def test_new_plugin_keeps_the_rules(new, simulate_cuda):
    findings = check_plugin(str(new / "mine"), simulate_cuda=simulate_cuda)
    assert [finding.line for finding in findings if finding.state == "failed"] == []
    assert len([finding for finding in findings if finding.state == "passed"]) >= 17
    found = next(finding for finding in findings if finding.check == "loss")
    assert found.line == "finite, with a gradient in each of 2 tensors; what collect minimised at 3 steps"


@pytest.mark.parametrize("steps", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_new_plugin_runs_and_with_its_own_settings_passes_every_gate(new, tmp_path, steps):
    over = {"engine.generator_training.steps": steps}
    config = load_config(str(new / "mine"), None, {}, over)
    run_pipeline(config, RunDirectory(tmp_path / "run"), gates=steps == 200)
    summary = read_json(tmp_path / "run" / "report" / "summary.json")
    assert summary["sources"]["generated"]["n"] == 100
    assert summary["sources"]["trained"]["mean"] > 0.9


def test_new_plugin_goes_on_from_a_state_without_training_again(new, monkeypatch):
    plugin = import_plugin(str(new / "mine"))
    config = load_config(str(new / "mine"), None, {}, {"collect.train": 20, "collect.finetune": 6})
    task, names = plugin.build(cfg=config), ["3.weight", "3.bias"]
    whole = list(plugin.collect(task=task, names=names, cfg=config, state=None))
    steps = []
    take = plugin.take_step
    monkeypatch.setattr(plugin, "take_step", lambda *given: steps.append(given) or take(*given))
    resumed = plugin.build(cfg=config)
    own = {name: tensor for name, tensor in resumed.model.state_dict().items() if name in names}
    resumed.model.load_state_dict({**task.model.state_dict(), **own})  # the frozen part alone, as pdiff does it
    rest = list(plugin.collect(task=resumed, names=names, cfg=config, state=whole[3].state))
    assert (len(rest), len(steps)) == (2, 2)
    for one, other in zip(whole[4:], rest, strict=True):
        assert all(torch.equal(one.params[name], other.params[name]) for name in names)


@pytest.mark.parametrize("name", ["", "my-task", "3d", "class", "a b", "_mine", "mine_", "größe", "a.b", "../up"])
def test_a_name_that_is_no_identifier_is_refused(tmp_path, name):
    with pytest.raises(PdiffError, match=r"^new: got '.*', expected a Python identifier like my_task\. Give another"):
        write_plugin(name, tmp_path / "plugins")
    assert not (tmp_path / "plugins").exists()


def test_a_folder_that_exists_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(PdiffError, match=r"^new: got '.*mine', which exists\. Give another name, or another --path\.$"):
        write_plugin("mine", tmp_path)
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind"), [("classification", "plugin"), ("torch", "package"), ("json", "package"), ("pdiff", "package")]
)
def test_a_name_that_is_taken_is_refused(tmp_path, name, kind):
    line = rf"^new: got '{name}', which is the name of an installed {kind}\. Give another name\.$"
    with pytest.raises(PdiffError, match=line):
        write_plugin(name, tmp_path)
    assert list(tmp_path.iterdir()) == []
