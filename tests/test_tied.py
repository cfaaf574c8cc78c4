"""Tied weights are one parameter from the selection to the exported file, whatever ties them."""

import pytest
import torch
from safetensors.torch import load_model
from torch import nn

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.export import export
from pdiff.run.run import Run
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json, read_tensors, read_tensors_and_metadata
from pdiff.stages.collect import collect
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import import_plugin
from pdiff.testing import CHECKS, Conformance

PLUGIN = """
import torch
from torch import nn

from pdiff import Evaluation, Metric, Replay, Snapshot, Task, hookimpl


class Net(nn.Module):
    def __init__(self, tie="parameter"):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.wte = nn.Linear(4, 4, bias=False)
        self.lm_head = nn.Linear(4, 4, bias=False)
        weight = self.wte.weight
        if tie == "module":
            self.lm_head = self.wte
        elif tie == "part":
            self.lm_head.weight = nn.Parameter(torch.zeros(8, 4)[:4])
            self.wte.weight = nn.Parameter(self.lm_head.weight.data[1:].T)
        else:
            memory = {"memory": weight.data, "transposed": weight.data.T}
            self.lm_head.weight = weight if tie == "parameter" else nn.Parameter(memory[tie])

    def forward(self, x):
        return self.lm_head(torch.tanh(self.wte(torch.tanh(self.body(x)))))


@hookimpl
def build(cfg):
    torch.manual_seed(cfg.seed)
    splits = {name: torch.randn(50, 4) for name in ("train", "select", "test")}
    return Task(Net(**cfg.task), splits, Metric("accuracy"), head=("lm_head",))


@hookimpl
def select_params(task, cfg):
    return cfg.collect["select"]


@hookimpl
def collect(task, names, cfg):
    rng, state = torch.Generator().manual_seed(0), task.model.state_dict()
    for step in range(8):
        with torch.no_grad():
            for name in names:
                state[name] += 0.3 * torch.randn(state[name].shape, generator=rng)
        params = {name: state[name].clone() for name in cfg.collect.get("yields", names)}
        if "off" in cfg.collect:
            params[cfg.collect.off] = params[cfg.collect.off] + 1
        yield Snapshot(params, {"step": step})


def answers(logits):
    return logits.argmax(1)


@hookimpl
def evaluate(task, candidates, split):
    x = task.splits[split]
    for logits in Replay(task.model.eval(), candidates)(x):
        wrong = answers(logits) != answers(x)
        yield Evaluation(1 - wrong.double().mean().item(), wrong, ~wrong)
"""
TIES = ("parameter", "memory", "transposed", "module")
FIRST, ALIAS = "wte.weight", "lm_head.weight"
ENGINE = {"autoencoder": {"latent": 4}, "denoiser": {"width": 8, "depth": 1}, "generator_training": {"steps": 3}}
OTHERS = ("soup", "soup16", "ensemble", "interpolation", "swag", "latent_gaussian", "noise05", "noise15")
each_tie = pytest.mark.parametrize("tie", TIES)


@pytest.fixture
def config(tmp_path):
    """Return a function that returns a config of the plugin, given a tie, a selection, and what is yielded."""
    (tmp_path / "tied.py").write_text(PLUGIN)

    def make(tie: str, select=(ALIAS,), **settings):
        return {
            "plugin": str(tmp_path / "tied.py"),
            "device": "cpu",
            "task": {"tie": tie},
            "collect": {"select": list(select), **settings},
            "engine": ENGINE,
            "generate": {"num": 2, "path": 0},
            "evaluate": {"sources": dict.fromkeys(OTHERS), "train": []},
        }

    return make


@pytest.fixture
def collected(config, tmp_path):
    """Return a function that returns a run that has collected, of the same arguments as `config`."""

    def make(*args, **settings) -> Run:
        run = Run(resolve(config(*args, **settings)), RunDirectory(tmp_path / "run"))
        collect(run)
        return run

    return make


@each_tie
@pytest.mark.parametrize("select", [[FIRST], [ALIAS], [ALIAS, FIRST], ["body.bias", ALIAS]])
def test_a_selection_by_any_name_is_that_of_the_first(collected, tie, select):
    run = collected(tie, select)
    expected = [FIRST if name == ALIAS else name for name in select]
    assert list(run.layout.names) == list(dict.fromkeys(expected))
    assert run.layout == run.population.layout


@each_tie
@pytest.mark.parametrize("yields", [[FIRST], [ALIAS], [FIRST, ALIAS]])
def test_snapshots_may_name_a_tied_tensor_as_they_like(collected, tie, yields):
    run = collected(tie, yields=yields)
    state = run.built.model.state_dict()
    assert torch.equal(run.layout.unflatten(run.population.tensor()[-1])[FIRST], state[FIRST])


@each_tie
@pytest.mark.parametrize("off", [FIRST, ALIAS])
def test_snapshots_with_two_values_for_one_tensor_are_refused(collected, tie, off):
    with pytest.raises(
        PdiffError, match=rf"^plugin tied: collect: '{FIRST}' and '{ALIAS}' differ, though they are one"
    ):
        collected(tie, yields=[FIRST, ALIAS], off=off)


@each_tie
def test_a_snapshot_of_what_is_not_selected_is_refused_under_its_first_name(collected, tie):
    with pytest.raises(PdiffError, match=f"collect yielded '{FIRST}', which is not selected"):
        collected(tie, select=["body.bias"], yields=["body.bias", ALIAS])


@pytest.mark.parametrize("select", [FIRST, ALIAS])
def test_tensors_that_share_a_part_of_their_memory_are_refused(collected, select):
    with pytest.raises(PdiffError) as caught:
        collected("part", [select])
    words = {FIRST: f"'{FIRST}', which shares a part of its memory with '{ALIAS}'"}
    words[ALIAS] = f"'{ALIAS}', which shares a part of its memory with '{FIRST}'"
    line = "Tie whole tensors, or give each memory of its own (clone it)."
    assert str(caught.value) == f"plugin tied: select_params returned {words[select]}. {line}"


def test_tensors_that_share_a_part_of_their_memory_may_stay_frozen(collected):
    assert len(collected("part", ["body.bias"]).population) == 8


@each_tie
def test_every_check_accepts_ties(config, tmp_path, tie):
    values = config(tie)
    options = {"task.tie": tie, "collect.select": [ALIAS], "evaluate.train": []}
    conformance = Conformance(values["plugin"], tmp_path / "checks", options=options)
    assert {name: f for name in CHECKS if (f := conformance.check(name)).state == "failed"} == {}


@each_tie
def test_candidates_differ_where_the_tensor_is_used_under_its_other_name(collected, tie):
    run = collected(tie)
    candidates, x = run.candidates(run.population.tensor()), run.built.splits["test"]
    results = list(run.hook.evaluate(task=run.task, candidates=candidates, split="test", ensembles=()))
    for index, result in enumerate(results):
        candidates.load(run.task.model, index)
        assert torch.equal(result.signature, run.task.model(x).argmax(1) != x.argmax(1))


def load(network: nn.Module, file) -> None:
    """Load a file into a network, strictly, as the libraries do."""
    if file.suffix == ".pth":
        network.load_state_dict(torch.load(file, weights_only=True))
    else:
        load_model(network, file)


@each_tie
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_exported_file_loads_strictly_into_a_network_with_the_tie(collected, tmp_path, tie, suffix):
    run, file = collected(tie), tmp_path / f"net{suffix}"
    wanted = run.population.tensor()[2]
    run.candidates(wanted[None]).load(run.task.model, 0)
    run.task.export(run.task.model, file)
    network = import_plugin(run.config.plugin).Net(tie)
    if tie == "transposed" and suffix == ".safetensors":  # safetensors' load_model knows no such tie
        network.load_state_dict(read_tensors(file))
    else:
        load(network, file)
    if tie != "transposed" and suffix == ".safetensors":
        tensors, metadata = read_tensors_and_metadata(file)
        assert metadata == {ALIAS: FIRST}
        assert ALIAS not in tensors
    assert torch.equal(network.wte.weight.flatten(), wanted)
    assert torch.equal(network.lm_head.weight, network.wte.weight.T if tie == "transposed" else network.wte.weight)


def test_a_tie_goes_through_all_stages_and_into_both_kinds_of_file(config, tmp_path):
    values, folder = config("parameter"), tmp_path / "run"
    run_pipeline(resolve(values), RunDirectory(folder), gates=False)
    assert read_json(folder / "report" / "summary.json")["sources"]["generated"]["n"] == 2
    for suffix in (".pth", ".safetensors"):
        network = import_plugin(values["plugin"]).Net()
        assert export(folder, "generated", "1", tmp_path / f"net{suffix}") == 1
        load(network, tmp_path / f"net{suffix}")
        wanted = Run(resolve(values), RunDirectory(folder)).generated[1]
        assert torch.equal(network.lm_head.weight.flatten(), wanted)
