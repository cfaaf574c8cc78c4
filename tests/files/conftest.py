"""Small zoos in the formats in which public ones are stored, and runs that take them in."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.stages.collect import collect
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import import_plugin
from pdiff.weights.population import Population

PLUGIN = Path(__file__).with_name("small_network.py")
ENGINE = {
    "autoencoder": {"latent": 4},
    "denoiser": {"width": 16, "depth": 1},
    "generator_training": {"steps": 5},
}


@pytest.fixture(autouse=True)
def heard(caplog) -> None:
    """Let `caplog` hear what is said of files."""
    caplog.set_level(logging.INFO, "pdiff")


@pytest.fixture
def config() -> Callable:
    """Return a function that makes the config of a run, which takes networks from files."""

    def make(files: Path | str, select: str = "all", task: dict | None = None, **checkpoints):
        own = {"files": str(files), **checkpoints}
        values = {"plugin": str(PLUGIN), "select": select, "task": task or {}, "checkpoints": own, "engine": ENGINE}
        return resolve({**values, "device": "cpu"})

    return make


@pytest.fixture
def taken(config, tmp_path) -> Callable[..., Population]:
    """Return a function that takes networks from files, and returns the population."""

    def take(*args, folder: str = "run", **checkpoints) -> Population:
        run = Run(config(*args, **checkpoints), RunDirectory(tmp_path / folder))
        collect(run)
        return run.population

    return take


@pytest.fixture
def fitted(config, tmp_path) -> Callable[..., RunDirectory]:
    """Return a function that takes networks from files and fits an engine to them."""

    def fit(*args, **checkpoints) -> RunDirectory:
        directory = RunDirectory(tmp_path / "fitted")
        run_pipeline(config(*args, **checkpoints), directory, ["collect", "fit", "generate"], gates=False)
        return directory

    return fit


@pytest.fixture
def networks() -> list[dict[str, torch.Tensor]]:
    """Return state dicts of the small network, no two of them alike, with one set of counters."""
    torch.manual_seed(0)
    found = []
    for number in range(6):
        state = import_plugin(str(PLUGIN)).Small().state_dict()
        state["norm.running_mean"] += number
        found.append(state)
    return found
