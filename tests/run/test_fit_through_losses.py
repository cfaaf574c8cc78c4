"""What is told of trainings through losses before anything is collected, and after."""

from pathlib import Path

import pytest
import torch

from pdiff import PdiffError
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.fit_through_losses import behaviour_of, check_behaving
from pdiff.run.heldout import split_population
from pdiff.run.run import Run
from pdiff.stages.pipeline import run_pipeline

LOSSLESS = str(Path(__file__).parents[1] / "many_lineages.py")
KEYS = ("decoder", "hypernet")


@pytest.mark.parametrize("key", KEYS)
def test_a_plugin_without_the_hook_is_told_before_anything_is_collected(tmp_path, key):
    values, directory = {"plugin": LOSSLESS, "device": "cpu", "fit": {key: {}}}, RunDirectory(tmp_path / "run")
    with pytest.raises(
        PdiffError, match=f"fit.{key}: needs the hook loss, which the plugin many_lineages lacks"
    ) as caught:
        run_pipeline(resolve(values), directory, ["collect"], gates=False)
    assert "\n" not in str(caught.value)
    assert not (directory.path / "population" / "vectors.f32").exists()
    assert "collect" not in directory.records()


@pytest.mark.parametrize("key", KEYS)
def test_settings_are_completed_and_looked_at(closed, tmp_path, key):
    fit = {**closed["fit"], key: {"steps": 7}}
    config = resolve({**closed, "fit": fit})
    assert (config.fit[key].steps, config.fit[key].batch_size) == (7, 64)
    assert resolve(closed).fit[key] is None
    with pytest.raises(PdiffError, match=f"fit.{key}.*'step'"):
        resolve({**closed, "fit": {**fit, key: {"step": 7}}})
    with pytest.raises(PdiffError, match=f"fit.{key}: got 7"):
        resolve({**closed, "fit": {**fit, key: 7}})
    config.fit[key].batch_size = 0
    with pytest.raises(PdiffError, match=f"fit.{key}.batch_size: got 0"):
        check_behaving(Run(config, RunDirectory(tmp_path / "run")))


def test_a_hypernetwork_without_conditions_is_told(closed, tmp_path):
    told = "fit.hypernet: got settings, but the checkpoints have no conditions that it could begin with. Set it to null"
    values = {**closed, "fit": {"hypernet": {}}}
    with pytest.raises(PdiffError, match=told):
        run_pipeline(
            resolve({**values, "collect": {"conditional": False}}),
            RunDirectory(tmp_path / "a"),
            ["collect"],
            gates=False,
        )
    values["fit"]["conditions"] = ["fit"]
    with pytest.raises(PdiffError, match=told):
        run_pipeline(resolve(values), RunDirectory(tmp_path / "b"), ["collect"], gates=False)


def test_a_run_without_a_hypernetwork_says_so(conditional):
    with pytest.raises(PdiffError, match="fit.hypernet: got null, expected settings. Set it"):
        _ = Run(resolve(conditional.config()), conditional).hypernet


def test_the_behaviour_of_rows_is_that_for_their_own_conditions(conditional):
    run = Run(resolve(conditional.config()), conditional)
    fitted = split_population(run)[0]
    behaviour = behaviour_of(run, fitted)
    numbers = torch.tensor([3, 0, 2])
    own = behaviour(fitted[numbers], numbers, 0)
    others = behaviour(fitted[numbers], numbers + 1, 0)
    assert own.shape == (3,)
    assert (own < 0.1 * others).all()
