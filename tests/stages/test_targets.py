"""A target instead of a condition: what the engine is taught of checkpoints without conditions, and asked for."""

import math
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.heldout import split_population
from pdiff.run.record import read_gate
from pdiff.run.results import read_metrics
from pdiff.run.run import Run
from pdiff.run.sources import source_names
from pdiff.run.targets import open_targets
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import merge
from pdiff.runtime.storage import read_json, read_tensors
from pdiff.stages import targets as writing
from pdiff.stages.pipeline import run_pipeline
from pdiff.stages.targets import column, told
from pdiff.task.task import Metric

SOURCES = {
    "half": {"type": "interpolation", "weight": 0.5, "num": 3},
    "ridge_gaussian": {"type": "ridge_gaussian", "num": 20},
    "generated_soup": {"type": "generated_soup", "members": 4, "num": 5},
    "generated_ensemble": {"type": "generated_ensemble", "members": 4},
}


VALUES = {
    "plugin": str(Path(__file__).parents[1] / "closed_form.py"),
    "device": "cpu",
    "collect": {"networks": 40, "conditional": False},
    "fit": {"conditions": ["fit"]},
    "engine": {
        "autoencoder": {"latent": 8},
        "denoiser": {"width": 32, "depth": 1},
        "generator_training": {"steps": 300},
    },
    "generate": {"num": 40, "path": 2},
    "evaluate": {"num": 20, "sources": SOURCES},
}


@pytest.fixture(scope="session")
def targeted(tmp_path_factory) -> RunDirectory:
    """A finished run with a target; not to be changed."""
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "targeted")
    run_pipeline(resolve(VALUES), directory, gates=False)
    return directory


@pytest.fixture
def run(targeted) -> Run:
    return Run(resolve(targeted.config()), targeted)


def test_the_engine_is_taught_the_metric_on_select_and_asked_for_a_quantile_of_the_fitted(run):
    metrics, targets = read_metrics(run, "trained"), open_targets(run)
    rows = split_population(run)[0].rows.numpy()
    np.testing.assert_allclose(targets.values[:, 0], metrics["select"][rows], rtol=1e-6)
    assert targets.wanted.tolist() == pytest.approx([np.quantile(metrics["select"][rows], 0.95)])
    assert run.engine.condition == 1
    latents = read_tensors(run.directory.folder("generate") / "latents.safetensors")["latents"]
    drawn = run.engine.sample_latents(40, run.seed("generate"), conditions=targets.wanted.expand(40, 1))
    assert torch.equal(latents, drawn)
    assert not torch.equal(latents, run.engine.sample_latents(40, run.seed("generate")))
    written = read_json(run.directory.folder("generate") / "samples.json")
    assert written["target"] == {"fit": targets.wanted.item()}


def test_the_generated_are_nearer_to_what_is_asked_for_than_the_trained_and_than_a_line_gives(run):
    means = {name: read_metrics(run, name)["test"].mean() for name in ("trained", "generated", "ridge_gaussian")}
    assert means["trained"] + 0.05 < means["ridge_gaussian"] < means["generated"]


def test_a_run_with_a_target_stays_one_without_conditions(run):
    assert not run.conditional
    assert list(source_names(run))[-4:] == [*SOURCES]
    assert [line["passed"] for line in read_gate(run.directory, "fit") + read_gate(run.directory, "generate")]


def test_measuring_goes_on_where_it_was_killed_and_ends_with_the_same(targeted, tmp_path, monkeypatch, killed, results):
    shutil.copytree(targeted.path, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    directory.drop(ORDER[1:])
    monkeypatch.setattr(writing, "BLOCK", 8)
    again = partial(run_pipeline, resolve(VALUES), directory, ["fit"], resume=True, gates=False)
    state = directory.folder("fit") / "targets.state.safetensors"
    assert killed(again, "os.rename", state, 3)
    assert len(read_tensors(state)["metric"]) == 16
    again()
    own, whole = results(directory.path), results(targeted.path)
    assert not [name for name in own if name.endswith("targets.state.safetensors")]
    names = [name for name in whole if name.startswith("engine/")]
    assert {name: own[name] for name in names} == {name: whole[name] for name in names}


def test_two_processes_measure_together_what_one_measures(targeted, tmp_path, together):
    shutil.copytree(targeted.path, tmp_path / "run")
    (tmp_path / "targeted.yaml").write_text(yaml.safe_dump(VALUES))
    arguments = ("--config", tmp_path / "targeted.yaml", "--work-dir", tmp_path / "run", "--no-gates")
    fit = ("--stage", "fit", "--overwrite", "--cfg-options", "engine.generator_training.steps=1")
    assert together(*arguments, *fit).codes() == [0, 0]
    own, whole = (path / "engine" / "targets.json" for path in (tmp_path / "run", targeted.path))
    assert own.read_bytes() == whole.read_bytes()


def test_the_summary_says_what_was_asked_and_holds_nothing_against_averages_of_the_generated(run):
    summary = read_json(run.directory.folder("compare") / "summary.json")
    select = read_metrics(run, "generated")["select"].mean()
    assert summary["target"] == {
        "names": ["fit"],
        "quantile": 0.95,
        "wanted": open_targets(run).wanted.tolist(),
        "measured": [pytest.approx(select)],
    }
    own = {"generated", "generated_soup", "generated_ensemble"}
    assert set(summary["comparisons"]) == set(summary["sources"]) - own
    assert "novel" not in summary, "of two lineages or one"
    assert "- asked of the generated: fit " in (run.directory.folder("compare") / "table.md").read_text()


def test_a_zoo_of_many_lineages_says_how_many_candidates_are_new_and_good(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    changes = {
        "collect": {"networks": 2, "lineages": 20},
        "engine": {"generator_training": {"steps": 20}},
        "generate": {"path": 0},
        "evaluate": {"sources": dict.fromkeys(("swag", "gaussian", "latent_gaussian", "noise05"))},
    }
    run_pipeline(resolve(merge(VALUES, changes)), directory, gates=False)
    summary = read_json(directory.folder("compare") / "summary.json")
    novel = summary["novel"]
    assert novel["multiples"] == [0.5, 1.0, 2.0]
    assert novel["metric"] == pytest.approx(summary["sources"]["trained"]["mean"] - summary["margin"])
    assert set(novel["sources"]) == set(summary["sources"]) - {"ensemble", "generated_ensemble"}
    for name, found in novel["sources"].items():
        assert found["shares"] == sorted(found["shares"], reverse=True)
        assert summary["sources"][name]["novel"] == found["shares"][1]
    assert (directory.folder("compare") / "novel.png").exists()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"fit": {"conditions": ["accuracy"]}}, r"^fit\.conditions: got 'accuracy'\. Known: fit, network, step\."),
        (
            {"collect": {"conditional": True}},
            r"^fit\.conditions: got \['fit'\], but the checkpoints have conditions of their own \(bit0, bit1\), ",
        ),
        (
            {"evaluate": {"sources": {"generated_soup": {"members": 41}}}},
            r"^evaluate\.sources\.generated_soup\.members: got 41, expected at most 40, those that are generated\.",
        ),
        ({"evaluate": {"sources": {"half": {"weight": 2}}}}, r"^evaluate\.sources\.half\.weight: got 2, expected "),
        (
            {"evaluate": {"sources": {"ridge_gaussian": {"degree": 0}}}},
            r"^evaluate\.sources\.ridge_gaussian\.degree: got",
        ),
    ],
)
def test_what_cannot_be_is_told_in_one_line(tmp_path, changes, line):
    with pytest.raises(PdiffError, match=line):
        run_pipeline(resolve(merge(VALUES, changes)), RunDirectory(tmp_path / "run"), ["collect", "fit"], gates=False)


def test_a_column_of_the_provenance_is_a_target_too(targeted, tmp_path):
    shutil.copytree(targeted.path, tmp_path / "run")
    config = resolve(merge(VALUES, {"fit": {"conditions": ["step", "fit"]}, "generate": {"target": 0.5}}))
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(config, directory, ["fit", "generate"], overwrite=True, gates=False)
    targets = open_targets(Run(config, directory))
    assert targets.names == ("step", "fit")
    assert targets.values[:, 0].tolist() == split_population(Run(config, directory))[0].rows.tolist()
    assert targets.wanted[0] == targets.values[:, 0].median() or targets.wanted[0] % 1 == 0.5


def test_of_a_metric_that_is_the_better_the_lower_the_quantile_is_counted_from_below(targeted, tmp_path):
    shutil.copytree(targeted.path, tmp_path / "run")
    config = resolve(merge(VALUES, {"task": {"higher": False}, "generate": {"target": 1}}))
    run = Run(config, RunDirectory(tmp_path / "run"))
    assert open_targets(run).wanted == open_targets(run).values.min()


@pytest.mark.parametrize(("chance", "found"), [(0.1, 0.1), (None, None)])
def test_a_checkpoint_without_a_finite_metric_counts_as_chance_where_that_is_known(chance, found):
    metric = Metric("fit", chance=chance)
    assert told(0.7, metric, 3) == 0.7
    if found is not None:
        assert told(-math.inf, metric, 3) == found
        return
    with pytest.raises(PdiffError, match=r"^fit\.conditions: got no finite fit of checkpoint 3 on the split select"):
        told(-math.inf, metric, 3)


def test_a_column_that_lacks_a_number_names_the_checkpoint():
    provenance = [{"columns": {"loss": 0.1}}, {"columns": {"loss": "high"}}]
    with pytest.raises(PdiffError, match=r"^fit\.conditions: got 'high' as 'loss' of checkpoint 1, expected a finite"):
        column(provenance, "loss", "accuracy")


def test_a_column_that_begins_without_a_number_is_no_unknown_one():
    provenance = [{"columns": {"loss": math.nan}}, {"columns": {"loss": 0.1}}]
    with pytest.raises(PdiffError, match=r"^fit\.conditions: got nan as 'loss' of checkpoint 0, expected a finite"):
        column(provenance, "loss", "accuracy")
    with pytest.raises(PdiffError, match=r"^fit\.conditions: got 'lost'\. Did you mean 'loss'\?"):
        column(provenance, "lost", "accuracy")


def test_what_is_the_same_of_every_fitted_checkpoint_is_no_target(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(PdiffError, match=r"^fit\.conditions: got 'network', which is 0 of every fitted checkpoint, "):
        run_pipeline(
            resolve(merge(VALUES, {"fit": {"conditions": ["network"]}})), directory, ["collect", "fit"], gates=False
        )


@pytest.mark.parametrize("value", [[], ["fit", "fit"], [3]])
def test_conditions_are_names_each_once(value):
    with pytest.raises(PdiffError, match=r"^fit\.conditions: got .*, expected names, each once\."):
        resolve(merge(VALUES, {"fit": {"conditions": value}}))


def test_a_target_is_a_share():
    with pytest.raises(PdiffError, match=r"^generate\.target: got 95, expected a number from 0 to 1\."):
        resolve(merge(VALUES, {"generate": {"target": 95}}))


def test_a_generated_network_of_a_run_with_a_target_is_exported(targeted, tmp_path, call):
    output = tmp_path / "network.safetensors"
    done = call("export", targeted.path, "-o", output)
    assert (done.code, done.err) == (0, "")
    assert output.is_file()
