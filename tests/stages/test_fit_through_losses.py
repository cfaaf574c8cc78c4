"""A fit that trains a decoder and a hypernetwork through the losses of networks."""

import json
import shutil

import pytest
import torch

from pdiff.engine import training
from pdiff.run.behaviour import Behaviour
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.heldout import heldout_record
from pdiff.run.record import read_gate
from pdiff.run.run import Run
from pdiff.runtime import processes as group
from pdiff.stages.pipeline import run_pipeline

BRIEF = {"steps": 30, "batch_size": 8, "lr": 0.01}


@pytest.fixture
def values(closed):
    return {**closed, "fit": {**closed["fit"], "decoder": BRIEF, "hypernet": {**BRIEF, "width": 16}}}


@pytest.fixture
def collected(conditional, tmp_path):
    """Return a function that copies a run of which only the population is there."""

    def copy(name="run"):
        shutil.copytree(conditional.path, tmp_path / name)
        directory = RunDirectory(tmp_path / name)
        directory.drop(ORDER[1:])
        return directory

    return copy


def fit(values, directory):
    run_pipeline(resolve(values), directory, ["fit"], resume=True, overwrite=True, gates=False)
    return Run(resolve(values), directory)


def test_a_decoder_and_a_hypernetwork_are_written_beside_an_engine_that_is_as_it_was(
    values, collected, conditional, results
):
    run = fit(values, collected())
    own, plain = results(run.directory.path), results(conditional.path)
    same = [name for name in plain if name.startswith("engine/") and name.endswith(".safetensors")]
    assert same
    assert all(own[name] == plain[name] for name in same)
    assert "engine/decoder.safetensors" in own
    assert not [name for name in own if name.endswith(".state.safetensors")]
    assert {"engine/hypernet/hypernet.json", "engine/decoder.safetensors"} <= set(
        run.directory.records()["fit"]["files"]
    )
    history = run.engine.history
    assert len(history["decoder"]) == len(run.hypernet.history) == 30
    assert sum(run.hypernet.history[-5:]) < 0.5 * sum(run.hypernet.history[:5])


def test_the_hypernetwork_is_good_for_conditions_that_were_not_fitted(values, collected):
    values["fit"]["hypernet"] |= {"steps": 300, "width": 32}
    run = fit(values, collected())
    conditions = run.population.conditions
    rows = torch.tensor(heldout_record(run)["unseen"])
    behaviour, numbers = Behaviour(run, conditions.take(rows)), torch.arange(len(rows))
    found = behaviour(run.hypernet.predict(conditions.take(rows).values), numbers, 0)
    average = run.population.tensor().mean(0).expand(len(rows), -1)
    assert found.mean() < 0.3 * behaviour(average, numbers, 0).mean()


def test_the_gate_tells_of_the_codec_before_and_after(values, collected):
    run = fit(values, collected())
    checks = {check["name"]: check for check in read_gate(run.directory, "fit")}
    reconstruction, decoded = (checks[name]["figures"] for name in ("reconstruction", "decoded"))
    assert 0 < reconstruction["kept_fitted_tuned"] <= 1
    assert {"untuned", "decoded", "original"} <= decoded.keys()
    assert "after the codec, " in checks["decoded"]["line"]
    assert checks["decoded"]["line"].endswith("with the decoder tuned")


def test_an_interrupted_fit_goes_on_to_the_same_bytes(values, collected, results, monkeypatch):
    whole = results(fit(values, collected("whole")).directory.path)
    monkeypatch.setattr(training, "SECONDS_BETWEEN_STATES", 0)
    directory, original, calls = collected(), Behaviour.__call__, []

    def interrupted(self, vectors, numbers, step):
        calls.append(step)
        if len(calls) in (12, 40):
            raise KeyboardInterrupt
        return original(self, vectors, numbers, step)

    monkeypatch.setattr(Behaviour, "__call__", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(values, directory)
    fit(values, directory)
    assert len(calls) == 62, "no step is done twice but the two that were interrupted"
    own = results(directory.path)
    names = [name for name in whole if name.startswith("engine/")]
    assert {name: own[name] for name in names} == {name: whole[name] for name in names}


def test_of_several_fits_each_has_a_decoder_and_the_first_a_hypernetwork(values, collected):
    values["fit"]["repeats"] = 2
    run = fit(values, collected())
    assert all(engine.tuned is not None for engine in run.engines)
    first, other = (engine.history["decoder"] for engine in run.engines)
    assert first != other
    assert not (run.engine_folder(1) / "hypernet").exists()


def test_processes_share_the_trainings(values, collected, processes, tmp_path):
    alone, shared = fit(values, collected("alone")), collected("shared")

    def work(number):
        group.join("pytorch")
        fit(values, shared)

    started = processes(work)
    assert started.codes() == [0, 0], started.text("err")
    run = Run(resolve(values), shared)
    conditions = run.population.conditions.values
    assert torch.allclose(run.hypernet.predict(conditions), alone.hypernet.predict(conditions), atol=1e-2)
    assert run.engine.history["decoder"] == pytest.approx(alone.engine.history["decoder"], rel=0.1)


def test_a_decoder_is_tuned_without_conditions(tiny, finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    directory.drop(ORDER[1:])
    run = fit({**tiny, "fit": {"decoder": {"steps": 3, "batch_size": 4}}}, directory)
    assert len(run.engine.history["decoder"]) == 3
    assert json.loads((directory.path / "engine" / "engine.json").read_text())["tuned"]
