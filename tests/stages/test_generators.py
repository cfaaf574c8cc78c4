"""Whole runs with each of the generators that draw in one pass."""

import json

import pytest
import torch
from safetensors.torch import load_file

from pdiff import GENERATORS, Generator
from pdiff.engine.process import Flow
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.export import export, export_for
from pdiff.run.run import Run
from pdiff.runtime.storage import read_json
from pdiff.stages.pipeline import run_pipeline

NARROW = {"width": 16, "depth": 1}
ONE_PASS = [{"type": "gaussian"}, {"type": "vae", **NARROW}, {"type": "gan", **NARROW}]
BRIEF = {"steps": 10, "batch_size": 8}


def finish(values, directory, generator, **changes):
    """Run a config with a generator, and return its directory and its summary."""
    values = {**values, "engine": {**values["engine"], "generator": generator}, **changes}
    directory = RunDirectory(directory)
    run_pipeline(resolve(values), directory, gates=False)
    return directory, read_json(directory.path / "report" / "summary.json")


@pytest.mark.parametrize("generator", ONE_PASS, ids=lambda generator: generator["type"])
def test_a_run_is_compared_and_exported(closed, tmp_path, generator):
    closed["collect"]["conditional"] = False
    directory, summary = finish(closed, tmp_path / "run", generator)
    assert {"trained", "generated", "latent_gaussian"} <= summary["sources"].keys()
    names = [check["name"] for check in summary["gates"]]
    assert {"latents", "spread"} <= {*names}
    assert not {"denoiser", "collapse", "schedule"} & {*names}
    history = json.loads((directory.path / "engine" / "history.json").read_text())
    trained = generator["type"] != "gaussian"
    assert history.keys() == {"autoencoder", *([generator["type"]] if trained else [])}
    assert "path_steps" not in read_json(directory.path / "samples" / "samples.json")
    assert export(directory.path, "generated", "best", tmp_path / "network.safetensors") >= 0
    assert load_file(tmp_path / "network.safetensors")["weight"].isfinite().all()


@pytest.mark.parametrize("generator", ONE_PASS, ids=lambda generator: generator["type"])
def test_a_run_over_conditions_with_a_tuned_decoder_and_a_hypernetwork_is_compared_and_exported(
    closed, tmp_path, generator
):
    fit = {**closed["fit"], "decoder": BRIEF, "hypernet": {**BRIEF, "width": 16}}
    closed["evaluate"]["conditional"]["hypernet"] = {"type": "hypernet"}
    directory, summary = finish(closed, tmp_path / "run", generator, fit=fit)
    assert {"oracle", "generated", "hypernet"} <= summary["sources"].keys()
    run = Run(resolve(directory.config()), directory)
    assert run.engine.tuned is not None
    assert len(run.engine.history["decoder"]) == 10
    asked = ["bit0=0.25", "bit1=0.75"]
    assert export_for(directory.path, "generated", asked, tmp_path / "network.safetensors") == "generated"
    assert load_file(tmp_path / "network.safetensors")["weight"].isfinite().all()


def test_for_other_conditions_a_gaussian_draws_other_networks(closed, tmp_path):
    directory, summary = finish(closed, tmp_path / "run", {"type": "gaussian"})
    engine = Run(resolve(directory.config()), directory).engine
    low, high = (engine.sample(50, conditions=torch.full((50, 2), value)) for value in (0.2, 0.8))
    assert (low.mean(0) - high.mean(0)).abs().max() > 3 * low.std(0).max()
    assert all(check["passed"] for check in summary["gates"] if check["name"] == "latents")


class WithoutDenoiser(Generator):
    """Goes the way of a flow by other means than a denoiser."""

    def __init__(self, size: int, process: Flow):
        super().__init__()
        self.process = process

    @classmethod
    def process_of(cls, config):
        return Flow()

    def draw(self, shape, rng, c=None, guidance=1.0, sampler=None):
        z = torch.randn(shape, generator=rng)
        yield from [(z, z)] * 3


def test_where_there_is_a_process_and_no_denoiser_the_run_has_no_checks_of_one(closed, tmp_path):
    closed["collect"]["conditional"] = False
    closed["engine"]["sampler"] = {"type": "Euler"}
    GENERATORS.register_module(name="without", module=WithoutDenoiser)
    try:
        directory, summary = finish(closed, tmp_path / "run", {"type": "without"})
    finally:
        GENERATORS.module_dict.pop("without")
    names = [check["name"] for check in summary["gates"]]
    assert "latents" in names
    assert not {"denoiser", "collapse"} & {*names}
    assert (directory.path / "samples" / "path.safetensors").exists()
