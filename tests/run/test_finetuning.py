"""What a collection began with, and what a short training makes of it: made once, kept, each mistake one line."""

import math
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pdiff import hookimpl
from pdiff.commands import run as command
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.export import export, export_for
from pdiff.run.finetuning import file_of
from pdiff.run.keeping import log_of
from pdiff.run.run import Run
from pdiff.run.sources import check_sources, open_pool, open_source
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import merge
from pdiff.runtime.storage import read_json, read_tensors, write_json, write_tensors
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import import_plugin

SOURCES = {"base": {"type": "base"}, "short": {"type": "finetuned", "steps": 2}}
FEW = ("oracle", "generated", "nearest", *SOURCES)


@pytest.fixture
def own(closed) -> dict:
    """Return the values of a config with both sources."""
    left_out = {name: None for name in resolve(closed).evaluate.conditional if name not in FEW}
    closed["evaluate"] = {"conditional": {**left_out, **SOURCES}}
    return closed


@pytest.fixture
def directory(own, tmp_path) -> RunDirectory:
    """Return a finished run with both sources."""
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve(own), directory, gates=False)
    return directory


@pytest.fixture
def collected(own, conditional, tmp_path) -> Run:
    """Return a run that has everything but an evaluation."""
    shutil.copytree(conditional.path, tmp_path / "collected")
    RunDirectory(tmp_path / "collected").drop(ORDER[3:])
    return Run(resolve(own), RunDirectory(tmp_path / "collected"))


def exact(run: Run) -> torch.Tensor:
    """Return the vectors of the networks for the wanted conditions `(W, P)`."""
    network = import_plugin(run.config.plugin).exact
    return torch.stack([network(values).flatten() for values in open_pool(run).wanted.conditions.values])


class Hook:
    """A hook that yields what a function makes."""

    def __init__(self, work):
        self.work = work

    @hookimpl(tryfirst=True)
    def finetune(self, task, start, conditions, steps):
        """Return what the function returns."""
        return self.work(task, start, conditions)


def test_both_are_rows_of_the_report(directory):
    summary = read_json(directory.path / "report" / "summary.json")
    assert {"base", "short"} <= set(summary["sources"])
    base, short = (summary["sources"][name] for name in ("base", "short"))
    assert base["spread"] == 0
    assert base["note"] == "what every network was fine-tuned from, as it is"
    assert short["note"].endswith("seconds: those of this training")
    assert summary["sources"]["oracle"]["mean"] > short["mean"] > base["mean"]
    assert "| short" in (directory.path / "report" / "table.md").read_text()


def test_base_is_what_the_collection_began_with_for_every_condition(collected):
    found = open_source(collected, "base", open_pool(collected))
    expected = collected.layout.flatten(read_tensors(collected.directory.base))
    assert torch.equal(found.vectors[:], expected.expand(15, -1))
    assert found.wanted.tolist() == [*range(15)]


def test_finetuned_is_what_the_hook_yields_for_each_condition(collected):
    found = open_source(collected, "short", open_pool(collected))
    assert torch.equal(found.vectors, torch.lerp(torch.zeros(15, 12), exact(collected), 0.75))
    assert found.seconds > 0
    assert not file_of(collected, 2).exists(), "only the evaluation keeps it"


def test_evaluation_keeps_it_and_whoever_comes_later_reads_it(directory, own):
    run = Run(resolve(own), directory)
    kept = read_tensors(directory.path / "evaluation" / "finetuned.2.vectors.safetensors")
    assert torch.equal(kept["conditions"], open_pool(run).wanted.conditions.values)
    write_tensors(file_of(run, 2), {**kept, "vectors": kept["vectors"] + 1})
    write_json(log_of(file_of(run, 2)), {"seconds": 30.0})
    found = open_source(run, "short", open_pool(run))
    assert torch.equal(found.vectors, kept["vectors"] + 1)
    assert found.seconds == 30
    log_of(file_of(run, 2)).unlink()
    assert math.isnan(open_source(run, "short", open_pool(run)).seconds), "nobody knows"


def test_seconds_are_those_of_the_training_however_often_it_is_compared(directory, own):
    run = Run(resolve(own), directory)
    write_json(log_of(file_of(run, 2)), {"seconds": 30.0})
    directory.drop(["compare"])
    run_pipeline(resolve(own), directory, ["compare"], gates=False)
    row = read_json(directory.path / "report" / "summary.json")["sources"]["short"]
    assert row["seconds"] == pytest.approx(2, abs=0.1)


def test_what_is_kept_for_other_conditions_is_not_taken(directory, own):
    run = Run(resolve(own), directory)
    pool = open_pool(run)
    vectors, _ = pool.finetune(pool.wanted.conditions.take([2, 0]), 2)
    assert torch.equal(vectors, open_source(run, "short", pool).vectors[[2, 0]])


def test_two_processes_keep_what_one_keeps(directory, own, together, results, tmp_path):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    shutil.copytree(directory.path, tmp_path / "two")
    RunDirectory(tmp_path / "two").drop(ORDER[3:])
    started = together("--config", tmp_path / "own.yaml", "--resume", "--no-gates", "--work-dir", tmp_path / "two")
    assert started.codes() == [0, 0], started.text("err")
    assert results(tmp_path / "two") == results(directory.path)


def test_evaluation_that_is_killed_before_or_behind_it_ends_with_the_same_bytes(
    directory, own, killed, results, tmp_path
):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    shutil.copytree(directory.path, tmp_path / "again")
    RunDirectory(tmp_path / "again").drop(ORDER[3:])
    arguments = ["--config", str(tmp_path / "own.yaml"), "--work-dir", str(tmp_path / "again"), "--no-gates"]
    again = partial(command.main, [*arguments, "--resume"])
    for file in ("finetuned.2.vectors.safetensors", "short.jsonl"):
        assert killed(again, "os.rename", tmp_path / "again" / "evaluation" / file, 1), file
    assert again() == 0
    assert results(tmp_path / "again") == results(directory.path)


def test_export_makes_one_for_a_condition_and_one_by_its_number(directory, own, tmp_path):
    export_for(directory.path, "short", ["bit0=0.25", "bit1=0.75"], tmp_path / "one.safetensors")
    network = import_plugin(own["plugin"]).exact(torch.tensor([0.25, 0.75]))
    assert torch.equal(load_file(tmp_path / "one.safetensors")["weight"], torch.lerp(torch.zeros(2, 6), network, 0.75))
    export_for(directory.path, "base", ["bit0=0.25", "bit1=0.75"], tmp_path / "base.safetensors")
    assert not load_file(tmp_path / "base.safetensors")["weight"].any()
    export(directory.path, "short", "3", tmp_path / "two.safetensors")
    kept = read_tensors(directory.path / "evaluation/finetuned.2.vectors.safetensors")["vectors"]
    assert torch.equal(load_file(tmp_path / "two.safetensors")["weight"].flatten(), kept[3])


def test_both_are_in_the_form_of_the_population(own, tmp_path):
    own["fit"]["canonical"] = "permutation"
    (tmp_path / "formed.py").write_text(FORMED)
    own |= {"plugin": str(tmp_path / "formed.py"), "select": "all"}
    run_pipeline(resolve(own), RunDirectory(tmp_path / "run"), gates=False)
    run = Run(resolve(own), RunDirectory(tmp_path / "run"))
    pool, base = open_pool(run), run.layout.flatten(read_tensors(run.directory.base))[None]
    assert not torch.equal(run.form.apply(base), base)
    assert torch.equal(open_source(run, "base", pool).vectors[:1], run.form.apply(base))
    found = open_source(run, "short", pool).vectors
    assert torch.equal(run.form.apply(found), found)


# A network of two layers, whose hidden units come in an order of their own.
FORMED = """
import torch
from pdiff import *


@hookimpl
def build(cfg):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 1))
    return Task(model, {name: torch.randn(20, 4) for name in ("train", "select", "test")}, Metric("fit"))


@hookimpl
def collect(task, names):
    rng = torch.Generator().manual_seed(1)
    for number in range(30):
        noise = {name: torch.randn(value.shape, generator=rng) for name, value in task.model.state_dict().items()}
        params = {name: value + noise[name] for name, value in task.model.state_dict().items()}
        values = {f"bit{place}": float(value) for place, value in enumerate(torch.rand(2, generator=rng))}
        yield Snapshot(params, {"network": number}, condition=values)


@hookimpl
def finetune(start, conditions, steps):
    for number in range(len(conditions)):
        yield {name: value + number for name, value in start.items()}


@hookimpl
@torch.no_grad()
def evaluate(task, candidates, split):
    for index in range(len(candidates)):
        candidates.load(task.model, index)
        y = task.model(task.splits[split])[:, 0]
        yield Evaluation(-y.abs().mean().item(), y > 0, -y.abs())


@hookimpl
def inputs(task, split):
    yield (task.splits[split],)
"""


def test_plugin_without_the_hook_has_no_such_source(own, tmp_path):
    text = Path(own["plugin"]).read_text()
    (tmp_path / "lacking.py").write_text(text.replace("@hookimpl\ndef finetune", "def finetune"))
    own["plugin"] = str(tmp_path / "lacking.py")
    run_pipeline(resolve(own), RunDirectory(tmp_path / "run"), gates=False)
    assert set(read_json(tmp_path / "run/report/summary.json")["sources"]) == set(FEW) - {"short"}


SAID = r"^plugin closed_form: finetune"


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda task, start, conditions: 7, r" returned int, expected an iterator of selections\. Yield one for"),
        (lambda task, start, conditions: [start] * 3, r" yielded 3 selections for 15 conditions\. Yield one for each"),
        (lambda task, start, conditions: [start] * 16, r" yielded more than 15 selections for 15 conditions\."),
        (lambda task, start, conditions: [3] * 15, r" yielded for bit0 0\.\d+, bit1 0\.\d+ int, expected"),
        (lambda task, start, conditions: [{"weight": 3}] * 15, r" yielded for .* int, expected tensors by name\."),
        (lambda task, start, conditions: [{}] * 15, r" yielded for .* a selection without 'weight'\. Yield every"),
        (lambda task, start, conditions: [{"weight": torch.zeros(2)}] * 15, r" yielded for .* of shape \(2,\), "),
        (lambda task, start, conditions: [{**start, "bias": torch.zeros(2)}] * 15, r" yielded .* 'bias', which is"),
        (lambda task, start, conditions: [{"weight": start["weight"] / 0}] * 15, r" yielded for .* 'weight' with"),
    ],
)
def test_what_is_no_selection_for_each_condition_is_one_line(collected, work, words):
    collected.plugin.register(Hook(work), "another")
    with pytest.raises(PdiffError, match=SAID + words):
        open_source(collected, "short", open_pool(collected))


def test_steps_that_cannot_be_and_files_are_told_before_anything_is_computed(own, tmp_path):
    few = merge(own, {"evaluate": {"conditional": {"short": {"steps": 0}}}})
    with pytest.raises(PdiffError, match=r"^evaluate\.conditional\.short\.steps: got 0, expected"):
        check_sources(Run(resolve(few), RunDirectory(tmp_path / "run")))
    files = merge(own, {"checkpoints": {"files": "zoo/*.pth"}})
    with pytest.raises(PdiffError, match=r"^evaluate\.conditional\.base: needs what the networks were fine-tuned from"):
        check_sources(Run(resolve(files), RunDirectory(tmp_path / "run")))


def test_base_without_the_selection_is_one_line(collected):
    write_tensors(collected.directory.base, {"other": torch.zeros(1)})
    with pytest.raises(PdiffError, match=r"base\.safetensors: lacks 'weight'\."):
        open_source(collected, "base", open_pool(collected))
