"""The tools as a user calls them."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml

from pdiff.__main__ import main
from pdiff.commands.run import parse
from pdiff.runtime.storage import read_json

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tiny_file(tiny, tmp_path) -> str:
    """The tiny config as a file."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    return str(tmp_path / "tiny.yaml")


def test_dry_run_prints_the_resolved_config_and_the_plan_and_writes_nothing(call, tiny_file, tmp_path):
    options = ["--cfg-options", "generate.num=7", "engine.sampler.type=DDPM", "--seed", "5"]
    done = call("run", "--config", tiny_file, "--work-dir", str(tmp_path / "run"), "--dry-run", *options)
    assert done.code == 0, done.err
    config = yaml.safe_load(done.out)
    assert (config["generate"]["num"], config["engine"]["sampler"], config["seed"]) == (7, {"type": "DDPM"}, 5)
    assert config["select"] == "last_norms(2)"
    plan = [line for line in done.out.splitlines() if line.startswith("# ")]
    assert plan[0] == "# plan: P 384 parameters, N 300 checkpoints, L 32, M 7 generated, 341 candidates"
    assert [line.split()[1] for line in plan[2:7]] == ["collect", "fit", "generate", "evaluate", "compare"]
    assert plan[7].startswith("# N is taken as 300")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_dry_run_of_what_cannot_fit_names_the_setting(call, tiny_file, tmp_path):
    options = ["--cfg-options", "generate.num=1000000000000"]
    done = call("run", "--config", tiny_file, "--work-dir", str(tmp_path / "run"), "--dry-run", *options)
    assert done.code == 2
    assert "error: plan: run directory: got 1,536 TB, expected at most " in done.err
    assert done.err.rstrip().endswith("or lower generate.num.")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "run: got neither --plugin nor --config"),
        (["--plugin", "clasification"], "plugin: got 'clasification'. Did you mean 'classification'?"),
        (["--plugin", "classification", "--cfg-options", "genrate.num=3"], "config: got unknown key 'genrate'"),
        (["--plugin", "classification", "--device", "tpu"], "device: got 'tpu', which cannot be used here"),
        (["--plugin", "classification", "--stage", "fits"], "--stage: got 'fits'. Did you mean 'fit'?"),
        (["--config", "no.yaml"], "config: got 'no.yaml', which is no file"),
        (["--plugin", "classification", "--cfg-options", "select=norm"], "select: got unknown selector 'norm'"),
        (["--plugin", "classification", "--cfg-options", "task.date.x=1"], "task: got unknown key 'date'"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(call, tmp_path, arguments, words):
    done = call("run", "--work-dir", str(tmp_path / "run"), *arguments)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert done.err.startswith(f"error: {words}")


@pytest.mark.parametrize("tool", ["run", "sweep", "compare", "export", "plugins"])
def test_tool_is_the_command_of_its_name(tool):
    command = [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    page = import_module(f"pdiff.commands.{tool}").__doc__
    assert " ".join(page.split()) in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", ["run", "sweep", "compare", "export", "plugins"])
def test_interrupt_is_one_line_and_exit_code_130(call, monkeypatch, command):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module(f"pdiff.commands.{command}"), "parse", interrupted)
    done = call(command)
    assert done.code == 130
    after = ": the same command with --resume goes on" if command in ("run", "sweep") else ""
    assert done.err == f"interrupted{after}\n"


@pytest.mark.parametrize("word", ["seed", "=3"])
@pytest.mark.parametrize("command", [["run"], ["plugins", "check", "classification"]])
def test_option_that_sets_nothing_is_refused(capsys, command, word):
    assert main([*command, "--cfg-options", word]) == 2
    assert capsys.readouterr().err == f"error: --cfg-options: got {word!r}, expected a.b=value. Mend it.\n"


def test_options_are_values_of_yaml_or_texts_and_may_be_given_in_several_places():
    expression = r"angle(?P<angle>\d{1,3})\."
    words = ["--cfg-options", f"checkpoints.conditions={expression}", "--seed", "3", "--cfg-options", "a=[1]"]
    assert parse(words, None).cfg_options == {"checkpoints.conditions": expression, "a": [1]}


def test_command_that_there_is_not_is_one_line(capsys):
    assert main(["nosuch"]) == 2
    line = "error: pdiff: got 'nosuch'. Known: compare, export, plugins, run, sweep.\n"
    assert capsys.readouterr() == ("", line)


def test_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "pdiff", "nosuch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: pdiff: got 'nosuch'. Known: compare, export, plugins, run, sweep."]


def test_list_shows_the_plugin_with_its_hooks(call):
    done = call("plugins", "list")
    row = next(line for line in done.out.splitlines() if "classification" in line)
    assert "branches, build, collect, evaluate" in row
    assert "ready" in row


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_exported_candidate_loads_into_timm_strictly(call, finished, tmp_path, suffix):
    import timm
    from safetensors.torch import load_file

    path = tmp_path / f"model.{suffix}"
    done = call("export", str(finished.path), "--pick", "best", "-o", str(path))
    assert done.code == 0, done.err
    model = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    model.load_state_dict(torch.load(path) if suffix == "pth" else load_file(path), strict=True)
    base = load_file(finished.path / "base.safetensors")
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, base[name])}
    assert changed == {entry["name"] for entry in read_json(finished.path / "population" / "layout.json")}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pick", "99", "-o", "m.pth"], "--pick: got '99', expected best or a number from 0 to 4"),
        (["--source", "trainde", "-o", "m.pth"], "source: got 'trainde'. Did you mean 'trained'?"),
        (["-o", "m.onnx"], "--output: got 'm.onnx', expected a name that ends in .safetensors, .pth, .pt"),
    ],
)
def test_export_refuses_what_is_not_there(call, finished, arguments, words):
    done = call("export", str(finished.path), *arguments)
    assert done.code == 2
    assert words in done.err


def test_export_refuses_a_folder_that_is_no_run(call, tmp_path):
    done = call("export", str(tmp_path), "-o", "m.pth")
    assert "is no run directory" in done.err
