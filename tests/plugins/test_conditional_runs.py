"""Detectors and segmentors for sets of classes, from nothing to the table, beside one another, and exported."""

import shutil

import numpy as np
import pytest
import torch
import yaml

from pdiff.commands import compare, export
from pdiff.run import Run
from pdiff.run.behaviour import Behaviour
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.finetuning import finetune
from pdiff.runtime.settings import merge
from pdiff.runtime.storage import read_json
from pdiff.stages.pipeline import run_pipeline
from pdiff.testing import Conformance

SETS = [
    ["0", "1", "2", "3"],
    ["3", "4", "5"],
    ["6", "7", "8", "9"],
    ["1", "3", "5", "7"],
    ["2", "4", "6", "8"],
    ["0", "9", "5"],
]
SOURCES = {
    "base": {"type": "base"},
    "finetuned1": {"type": "finetuned", "steps": 1},
    **dict.fromkeys(("nearest10", "interpolation2", "ridge2", "kernel_ridge", "regression", "oracle_codec", "soup")),
}

# What is trained through the losses of networks.
BRIEF = {"steps": 3, "batch_size": 4}
REFINED = {"type": "refined", "of": "nearest", "steps": 2, "lr": 0.001}
TRAINED = {
    "fit": {"decoder": BRIEF, "hypernet": {**BRIEF, "width": 16}},
    "evaluate": {
        "conditional": {"hypernet": {"type": "hypernet"}}
        | {space: {**REFINED, "space": space} for space in ("latent", "weights", "subspace")}
    },
}


def over_conditions(values: dict) -> dict:
    """Return the config of a tiny run over conditions, from that of a run without."""
    values["task"]["data"]["scenes"] |= {"train": 16, "select": 8, "test": 8, "digits": [6, 8], "seed": 3}
    networks = {"steps": 2, "optimizer": {"type": "AdamW", "lr": 0.003}}
    values["collect"] = {"conditions": {"type": "classes", "subsets": SETS}, "networks": networks, "together": 4}
    values["fit"] = {"split": {"type": "random", "select": 0.1, "unseen": 0.3}}
    return {**values, "generate": {}, "evaluate": {"conditional": SOURCES}}


@pytest.fixture(scope="module", params=("detection", "segmentation"))
def finished(request, cases, tmp_path_factory):
    """Return the directory of a finished run over conditions; not to be changed."""
    values = over_conditions(cases(request.param).values())
    directory = RunDirectory(tmp_path_factory.mktemp("conditional") / request.param)
    run_pipeline(resolve(values), directory, gates=False)
    return directory


def test_table_has_every_source_over_unseen_sets(finished):
    summary = read_json(finished.path / "report" / "summary.json")
    assert summary["conditions"]["names"] == [f"classes.{digit}" for digit in range(10)]
    assert summary["conditions"]["unseen"] == 2
    assert summary["sources"].keys() == {
        "oracle", "base", "finetuned1", "nearest", "ridge", "generated", "generated_permuted",
    }  # fmt: skip
    assert all(row["n"] == 2 for row in summary["sources"].values())
    assert any("too few" in note for note in summary["notes"])
    beside = [note for note in summary["notes"] if "base, what every network was fine-tuned from (gain " in note]
    assert len(beside) == (summary["best_source"] != "base")


@pytest.mark.parametrize("plugin", ["detection", "segmentation"])
def test_loss_for_conditions_is_what_a_network_is_fine_tuned_by(cases, tmp_path, plugin):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(over_conditions(cases(plugin).values())))
    finding = Conformance(plugin, tmp_path / "runs", str(tmp_path / "tiny.yaml")).check("loss")
    assert finding.state == "passed", finding.line
    assert finding.line.endswith("; the first step of finetune goes against it for 4 conditions")


@pytest.mark.slow
@pytest.mark.parametrize("plugin", ["detection", "segmentation"])
def test_run_with_all_that_losses_train_ends_on_a_gpu_with_the_bytes_of_the_cpu(
    cases, tmp_path, plugin, on_gpu, losses_of_the_cpu
):
    directory = RunDirectory(tmp_path / "on_cpu")
    run_pipeline(resolve(merge(over_conditions(cases(plugin).values()), TRAINED)), directory, gates=False)
    on_gpu(directory)


def test_base_is_what_every_network_began_with(finished):
    from pdiff.runtime.storage import read_tensors
    from pdiff.weights.population import Population

    population = Population.open(finished.folder("collect"))
    base = population.layout.flatten(read_tensors(finished.base)).numpy()
    assert len(population) == len(SETS)
    moved = np.abs(population.vectors - base).max(1)
    assert (moved > 0).all()
    assert (moved < 0.1).all()


def test_losses_that_the_plugin_tells_are_those_of_its_training(finished):
    run = Run(resolve(finished.config()), finished)
    table = run.population.conditions
    vectors, _ = finetune(run, table, 1)
    vectors.requires_grad_(True)
    numbers = torch.arange(len(table))
    losses = Behaviour(run, table)(vectors, numbers, 1)
    assert losses.tolist() == [origin["loss"] for origin in run.population.provenance]
    losses.sum().backward()
    assert vectors.grad.isfinite().all()
    assert (vectors.grad != 0).any(1).all()
    some = Behaviour(run, table)(vectors[[4, 1]], numbers[[4, 1]], 1)
    assert torch.equal(some, losses[[4, 1]])


def test_runs_over_conditions_stand_side_by_side(finished, tmp_path, capsys):
    compare.main([str(finished.path), "-o", str(tmp_path / "comparison.html")])
    assert finished.path.name in capsys.readouterr().out
    assert (tmp_path / "comparison.png").stat().st_size > 10_000


def test_network_for_a_set_that_nobody_trained_is_exported(finished, tmp_path, capsys):
    target = tmp_path / "network.pth"
    export.main([str(finished.path), "--source", "ridge", "--condition", "classes=0,3,7", "-o", str(target)])
    assert "ridge for classes=0,3,7" in capsys.readouterr().out
    assert target.is_file()
    assert target.with_suffix(".py").is_file()


def test_collecting_again_gives_the_same_population(finished, tmp_path):
    again = RunDirectory(tmp_path / "again")
    shutil.copytree(finished.path, again.path)
    before = (again.folder("collect") / "vectors.f32").read_bytes()
    shutil.rmtree(again.folder("collect"))
    run_pipeline(resolve(again.config()), again, stages=["collect"], gates=False, overwrite=True)
    assert (again.folder("collect") / "vectors.f32").read_bytes() == before
