"""A network for a condition that a user names: made at once, loaded by other programs, and every mistake one line."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.export import export, export_for, made_in
from pdiff.run.run import Run
from pdiff.run.sources import open_pool
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json, write_json
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import import_plugin

ASKED = ["bit0=0.25", "bit1=0.75"]
MADE = (
    "nearest", "nearest10", "interpolation2", "ridge", "ridge2", "kernel_ridge", "regression", "generated", "soup",
)  # fmt: skip
exact = import_plugin(str(Path(__file__).parents[1] / "closed_form.py")).exact


@pytest.fixture(scope="module")
def run(conditional) -> Run:
    """Return the finished run."""
    return Run(resolve(conditional.config()), conditional)


@pytest.mark.parametrize("source", MADE)
def test_every_source_that_makes_networks_makes_one_for_a_condition(conditional, tmp_path, source):
    assert export_for(conditional.path, source, ASKED, tmp_path / "one.safetensors") == source
    assert export_for(conditional.path, source, ASKED, tmp_path / "two.pth") == source
    first, second = load_file(tmp_path / "one.safetensors"), torch.load(tmp_path / "two.pth", weights_only=True)
    assert set(first) == {"weight"}
    assert first["weight"].isfinite().all()
    assert torch.equal(first["weight"], second["weight"]), "the same condition gives the same network"


def test_ridge_gives_what_a_training_would(conditional, tmp_path):
    export_for(conditional.path, "ridge", ASKED, tmp_path / "network.safetensors")
    expected = exact(torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(load_file(tmp_path / "network.safetensors")["weight"], expected, rtol=0, atol=0.1)


def test_nearest_gives_a_seen_network(conditional, run, tmp_path):
    export_for(conditional.path, "nearest", ASKED, tmp_path / "network.safetensors")
    vector = load_file(tmp_path / "network.safetensors")["weight"].flatten()
    assert (open_pool(run).known[:] == vector).all(1).sum() == 1


def test_best_is_what_the_comparison_chose(conditional, tmp_path):
    summary = read_json(conditional.path / "report" / "summary.json")
    assert export_for(conditional.path, "best", ASKED, tmp_path / "network.safetensors") == summary["best_source"]


def test_other_conditions_are_drawn_otherwise(conditional, tmp_path):
    for name, texts in (("one", ASKED), ("two", ["bit0=0.25", "bit1=0.5"])):
        export_for(conditional.path, "generated", texts, tmp_path / f"{name}.safetensors")
    first, second = (load_file(tmp_path / f"{name}.safetensors")["weight"] for name in ("one", "two"))
    assert not torch.equal(first, second)


def test_condition_of_a_trained_network_is_no_obstacle(conditional, run, tmp_path):
    seen = open_pool(run).wanted.seen[0]
    texts = [f"{name}={value!r}" for name, value in seen.items()]
    export_for(conditional.path, "nearest", texts, tmp_path / "network.safetensors")
    vector = load_file(tmp_path / "network.safetensors")["weight"].flatten()
    assert torch.equal(vector, open_pool(run).known[0])


def test_condition_beyond_the_range_is_made_and_told(conditional, tmp_path, caplog):
    export_for(conditional.path, "ridge", ASKED, tmp_path / "network.safetensors")
    assert "beyond" not in caplog.text
    export_for(conditional.path, "ridge", ["bit0=7", "bit1=0.5"], tmp_path / "network.safetensors")
    assert "--condition: bit0 beyond the range of the conditions that were seen" in caplog.text
    assert (tmp_path / "network.safetensors").exists()


@pytest.mark.parametrize(
    ("source", "texts", "words"),
    [
        ("ridge", ["bit0=1"], "--condition: lacks 'bit1', expected bit0, bit1. Give a number for each."),
        ("ridge", ["bit0=1", "bit2=1"], "--condition: got the name 'bit2'. Did you mean 'bit1'? Known: bit0, bit1."),
        ("oracle", ASKED, "--source: got 'oracle'. Known: best, generated, interpolation2, kernel_ridge, nearest, "),
        ("generated_permuted", ASKED, "--source: got 'generated_permuted'. Did you mean 'generated'? Known: best, "),
        ("symmetry", ASKED, "--source: got 'symmetry'. Known: best, generated, "),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(conditional, tmp_path, source, texts, words):
    with pytest.raises(PdiffError) as caught:
        export_for(conditional.path, source, texts, tmp_path / "network.safetensors")
    assert str(caught.value).startswith(words)
    assert not list(tmp_path.iterdir())


def test_suffix_that_nobody_can_write_is_one_line(conditional, tmp_path):
    with pytest.raises(PdiffError, match=r"\.onnx"):
        export_for(conditional.path, "ridge", ASKED, tmp_path / "network.onnx")


def test_run_without_conditions_has_none_to_be_asked_for(finished, tmp_path):
    with pytest.raises(PdiffError, match=r"^--condition: the checkpoints of .* have no conditions\. Leave it out\.$"):
        export_for(finished.path, "best", ASKED, tmp_path / "network.safetensors")


def test_folder_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(PdiffError, match=r": is no run directory\. Give the --work-dir of a run\.$"):
        export_for(tmp_path, "best", ASKED, tmp_path / "network.safetensors")


@pytest.fixture
def copy(conditional, tmp_path):
    """Return a copy of the finished run, to be changed at will."""
    shutil.copytree(conditional.path, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def test_network_is_made_before_anything_is_evaluated_but_not_the_best(copy, tmp_path):
    copy.drop(["evaluate", "compare"])
    export_for(copy.path, "generated", ASKED, tmp_path / "network.safetensors")
    with pytest.raises(PdiffError, match="compare"):
        export_for(copy.path, "best", ASKED, tmp_path / "network.safetensors")


def test_best_of_nothing_that_lives_is_one_line(copy, tmp_path, monkeypatch):
    summary = copy.path / "report" / "summary.json"
    write_json(summary, {**read_json(summary), "best_source": None})
    monkeypatch.setattr(RunDirectory, "require", lambda *_: None)
    with pytest.raises(PdiffError, match="^--source: got 'best', but no source has living networks. Name one: near"):
        export_for(copy.path, "best", ASKED, tmp_path / "network.safetensors")


def test_ensemble_is_no_network(closed, tmp_path):
    left_out = {name: None for name in resolve(closed).evaluate.conditional if name not in ("oracle", "generated")}
    closed["evaluate"] = {"conditional": {**left_out, "several": {"type": "ensemble", "members": 3}}}
    run_pipeline(resolve(closed), RunDirectory(tmp_path / "run"), ["collect", "fit", "generate"], gates=False)
    with pytest.raises(PdiffError, match="^--source: got 'several', which are several networks each. Export one of an"):
        export_for(tmp_path / "run", "several", ASKED, tmp_path / "network.safetensors")


def test_symmetry_and_bits_are_asked_for_as_a_list(closed, tmp_path, call):
    left_out = {name: None for name in resolve(closed).evaluate.conditional if name not in ("oracle", "generated")}
    closed["evaluate"] = {"conditional": {**left_out, "symmetry": {"type": "symmetry"}}}
    closed["collect"] = {"bits": True, "numbers": 5, "width": 0.0}
    closed["fit"]["symmetry"] = {"type": "complement", "swap": ["weight"]}
    (tmp_path / "bits.yaml").write_text(yaml.safe_dump(closed))
    options = ("--config", tmp_path / "bits.yaml", "--work-dir", tmp_path / "run", "--no-gates", "--stage")
    for stage in ("collect", "fit", "generate"):
        assert call("run", *options, stage).code == 0
    asked = ("--source", "symmetry", "--condition", "bit=0,3")
    done = call("export", tmp_path / "run", *asked, "-o", tmp_path / "net.pth")
    assert done.code == 0, done.err
    assert done.out == f"{tmp_path / 'net.pth'}: symmetry for bit=0,3\n"
    weight, bits = torch.load(tmp_path / "net.pth", weights_only=True)["weight"], torch.tensor([1.0, 0, 0, 1, 0])
    near = [torch.where(torch.arange(5) == place, 1 - bits, bits) for place in range(-1, 5)]
    assert min((weight - exact(values)).abs().max() for values in near) < 1e-5, "its own network, or a neighbour's"


def test_command_takes_a_condition_or_a_number_of_a_candidate(conditional, call, tmp_path):
    output = ("-o", tmp_path / "network.safetensors")
    done = call("export", conditional.path, "--condition", *ASKED, *output)
    assert (done.code, done.out) == (0, f"{tmp_path / 'network.safetensors'}: ridge for bit0=0.25 bit1=0.75\n")
    both = call("export", conditional.path, "--condition", *ASKED, "--pick", "1", *output)
    assert both.code == 2
    assert "not allowed with argument" in both.err
    wrong = call("export", conditional.path, "--condition", "bit0", *output)
    assert wrong.err == "error: --condition: got 'bit0', expected KEY=VALUE. Known: bit0, bit1.\n"


def test_candidate_of_a_run_over_conditions_is_exported_by_its_number(conditional, run, tmp_path):
    assert export(conditional.path, "oracle", "3", tmp_path / "network.safetensors") == 3
    pool = open_pool(run)
    vector = load_file(tmp_path / "network.safetensors")["weight"].flatten()
    assert torch.equal(vector, pool.population[int(pool.wanted.oracles[3])])


def test_no_candidate_is_the_best_of_those_for_different_conditions(conditional, call, tmp_path):
    done = call("export", conditional.path, "-o", tmp_path / "network.safetensors")
    assert done.code == 2
    assert done.err.startswith("error: --pick: got 'best', but the candidates are for different conditions, and")
    assert not (tmp_path / "network.safetensors").exists()


def test_command_finds_what_the_config_names_by_a_relative_path_from_any_folder(closed, call, tmp_path, monkeypatch):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    shutil.copy(closed["plugin"], project / "mine.py")
    monkeypatch.chdir(project)
    config = resolve({**closed, "plugin": "./mine.py"})
    run_pipeline(config, RunDirectory(Path("runs/one")), ["collect", "fit", "generate"], gates=False)
    monkeypatch.chdir(elsewhere)
    arguments = ["--source", "ridge", "--condition", *ASKED, "-o", "one.safetensors"]
    done = call("export", project / "runs" / "one", *arguments)
    assert (done.code, done.out) == (0, "one.safetensors: ridge for bit0=0.25 bit1=0.75\n"), done.err
    assert Path.cwd() == elsewhere
    project.rename(tmp_path / "moved")
    done = call("export", "../moved/runs/one", *arguments, "-o", "two.safetensors")
    assert done.code == 0, done.err
    assert Path("one.safetensors").read_bytes() == Path("two.safetensors").read_bytes()


def test_relative_paths_are_from_where_the_run_was_made_then_from_here(tmp_path, monkeypatch):
    run, there = tmp_path / "runs" / "one", tmp_path / "there"
    run.mkdir(parents=True)
    there.mkdir()
    monkeypatch.chdir(tmp_path)
    assert made_in(run) == tmp_path  # nothing says it
    (run / "config.yaml").write_text("plugin: mine.py\n")
    write_json(run / "environment.json", {"folder": str(there), "folder_from_run": "../nowhere"})
    assert made_in(run) == tmp_path  # the plugin is not there
    (there / "mine.py").touch()
    assert made_in(run) == there
    (run / "config.yaml").write_text("plugin: classification\n")
    assert made_in(run) == there


NARROWED = """

@hookimpl(tryfirst=True)
def build(cfg):
    def narrow(model, condition):
        if condition["bit0"] == 7:
            raise PdiffError("--condition: got bit0 7, expected less. Ask for less.")
        model.weight.data[0] = condition["bit0"]
        model.register_buffer("told", torch.tensor([condition["bit0"], condition["bit1"]]))

    return replace(call(task, cfg.task, "task"), for_condition=narrow)
"""


@pytest.fixture
def narrowed(conditional, tmp_path) -> Path:
    """Return the finished run, of a plugin that changes a network for the condition that it is exported for."""
    shutil.copytree(conditional.path, tmp_path / "narrowed")
    text = Path(conditional.config()["plugin"]).read_text().replace("@hookimpl\ndef build", "def built")
    text = text.replace("from pdiff import", "from dataclasses import replace\n\nfrom pdiff import PdiffError,")
    (tmp_path / "narrowed.py").write_text(text + NARROWED)
    config = {**conditional.config(), "plugin": str(tmp_path / "narrowed.py")}
    (tmp_path / "narrowed" / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "narrowed"


def test_task_may_change_a_network_for_the_condition_that_it_is_exported_for(narrowed, tmp_path):
    export_for(narrowed, "ridge", ASKED, tmp_path / "one.safetensors")
    found = load_file(tmp_path / "one.safetensors")
    assert found["told"].tolist() == [0.25, 0.75]
    assert found["weight"][0].tolist() == [0.25] * 6
    export(narrowed, "oracle", "3", tmp_path / "two.safetensors")  # a candidate is exported as it was measured
    assert "told" not in load_file(tmp_path / "two.safetensors")
    with pytest.raises(PdiffError, match="^--condition: got bit0 7, expected less. Ask for less.$"):
        export_for(narrowed, "ridge", ["bit0=7", "bit1=0"], tmp_path / "three.safetensors")
    assert not (tmp_path / "three.safetensors").exists()


def test_an_engine_of_another_version_is_one_line_whatever_its_config_says(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "copy")
    engine, config = tmp_path / "copy" / "engine" / "engine.json", tmp_path / "copy" / "config.yaml"
    write_json(engine, {**read_json(engine), "format": 2})
    config.write_text(config.read_text().replace("generator_training", "denoiser_training"))
    with pytest.raises(PdiffError, match=r"engine.json: got format 2, expected 3. Fit again.$"):
        export(tmp_path / "copy", "generated", "best", tmp_path / "network.safetensors")
