"""The worked examples: public names only, short, sound by the rules for plugins, and they run from end to end."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import pdiff
from pdiff.run.config import load_config
from pdiff.run.directory import RunDirectory
from pdiff.run.export import export, export_for
from pdiff.runtime.storage import read_json
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import import_plugin
from pdiff.testing import CHECKS, Conformance

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
SMALL = {
    "tabular_mlp": {"collect.warmup": 50, "collect.steps": 20},
    "sequence_lstm": {"collect.train": 60, "collect.finetune": 20},
    "lora_transformer": {"collect.base": 60, "collect.warmup": 10, "collect.steps": 20},
    "implicit_image": {"task.height": 16, "collect.train": 60, "collect.finetune": 20},
    "conditional_curve": {"collect.networks": 30, "collect.steps": 60},
}
PLAIN = [name for name in SMALL if name != "conditional_curve"]
QUICK = {
    "engine.generator_training.steps": 20,
    "generate.num": 5,
    "evaluate.num": 4,
    "evaluate.sources.soup16.members": 3,
}

# transformers looks at an old name of its own when peft wraps a network.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def path_of(name: str) -> str:
    return str(EXAMPLES / f"{name}.py")


@pytest.fixture(scope="module", params=SMALL)
def conformance(request, tmp_path_factory):
    return Conformance(path_of(request.param), tmp_path_factory.mktemp("check"), options=SMALL[request.param])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a function that returns the finished small run of an example."""
    finished = {}

    def run(name: str) -> RunDirectory:
        if name not in finished:
            finished[name] = RunDirectory(tmp_path_factory.mktemp("runs") / name)
            config = load_config(path_of(name), None, {}, SMALL[name] | QUICK)
            run_pipeline(config, finished[name], gates=False)  # so small a diffusion has learnt nothing
        return finished[name]

    return run


def test_every_example_is_tested_and_has_its_config_and_its_row():
    assert sorted(SMALL) == sorted(path.stem for path in EXAMPLES.glob("*.py"))
    assert sorted(SMALL) == sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in SMALL:
        assert f"\n| [`{name}.py`]({name}.py) |" in page


@pytest.mark.parametrize("name", SMALL)
def test_example_has_at_most_120_lines(name):
    assert len(Path(path_of(name)).read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("name", SMALL)
def test_example_uses_public_names_only(name):
    tree = ast.parse(Path(path_of(name)).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module.startswith("pdiff")]
    assert {node.module for node in imports} == {"pdiff"}
    assert {alias.name for node in imports for alias in node.names} <= set(pdiff.__all__)


@pytest.mark.parametrize("check", CHECKS)
def test_example_keeps_the_rules_for_plugins(conformance, check):
    finding = conformance.check(check)
    assert finding.state != "failed", finding.line


@pytest.mark.parametrize("name", PLAIN)
def test_example_runs_from_end_to_end(runs, name):
    summary = read_json(runs(name).folder("compare") / "summary.json")
    assert summary["plugin"] == name
    assert summary["sources"]["trained"]["n"] == 20
    assert summary["sources"]["generated"]["n"] == 5


def test_example_with_conditions_runs_from_end_to_end(runs, tmp_path):
    directory = runs("conditional_curve")
    summary = read_json(directory.folder("compare") / "summary.json")
    conditions, sources = summary["conditions"], summary["sources"]
    assert (summary["conditional"], conditions["names"]) == (True, ["a", "b"])
    assert [conditions[part] for part in ("seen", "select", "unseen")] == [21, 3, 6]
    assert {source["n"] for source in sources.values()} == {6}
    assert set(sources["oracle"]["obeys"]) == {"a", "b"}
    assert sources["kernel_ridge"]["mean"] < sources["soup"]["mean"]
    assert summary["best_source"] in sources
    export_for(directory.path, "kernel_ridge", ["a=0.5", "b=-0.2"], tmp_path / "network.safetensors")
    plugin, state = import_plugin(path_of("conditional_curve")), load_file(tmp_path / "network.safetensors")
    model = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    model.load_state_dict(state)
    error = model(plugin.X) - plugin.curve({"a": 0.5, "b": -0.2}, plugin.X)
    assert error.square().mean() < 0.15


def test_loss_of_the_curves_is_what_the_training_for_a_condition_begins_with():
    plugin = import_plugin(path_of("conditional_curve"))
    config = load_config(path_of("conditional_curve"), None, {}, {"collect.networks": 3, "collect.steps": 1})
    task = plugin.build(cfg=config)
    first = {name: value.clone() for name, value in task.model.state_dict().items()}
    for snapshot in plugin.collect(task=task, names=list(first), cfg=config):
        found = plugin.loss(task=task, cfg=config, params=first, condition=snapshot.condition)
        assert found.item() == pytest.approx(snapshot.provenance["loss"], rel=1e-6)


def test_error_of_the_table_is_to_be_minimised_and_an_ensemble_is_measured(runs):
    summary = read_json(runs("tabular_mlp").folder("compare") / "summary.json")
    assert summary["metric"]["higher_is_better"] is False
    assert summary["sources"]["ensemble"]["n"] == 1


def test_exported_adapters_are_read_by_peft(runs, tmp_path):
    from peft import PeftModel

    run, plugin = runs("lora_transformer"), import_plugin(path_of("lora_transformer"))
    index = export(run.path, "generated", "best", tmp_path / "adapters")
    base = plugin.build_network(rank=2, width=32, depth=2).unload()
    state = PeftModel.from_pretrained(base, tmp_path / "adapters").state_dict()
    names = [name for name in state if "lora_" in name]
    vector = torch.cat([state[name].flatten() for name in names])
    assert torch.equal(vector, load_file(run.folder("generate") / "vectors.safetensors")["vectors"][index])


def test_picture_of_the_photograph_is_in_the_report(runs):
    folder = runs("implicit_image").folder("compare")
    assert (folder / "photograph.png").is_file()
    assert [picture["file"] for picture in read_json(folder / "summary.json")["pictures"]] == ["photograph.png"]


def test_photograph_that_is_not_there_is_refused_by_name(tmp_path):
    config = load_config(path_of("implicit_image"), None, {}, {"task.image": "rose.jpg"})
    with pytest.raises(pdiff.PdiffError, match=r"^task\.image: got 'rose\.jpg', expected one of china"):
        run_pipeline(config, RunDirectory(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_example_passes_the_gates_as_it_stands(tmp_path, name):
    command = [sys.executable, str(ROOT / "tools" / "run.py"), "--plugin", path_of(name)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
