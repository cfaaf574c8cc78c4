"""Real runs that are spoilt, and the gate that stops each; a sound run passes them all."""

import shutil
from pathlib import Path

import pytest
import torch

from pdiff import PdiffError
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.record import read_gates
from pdiff.runtime.settings import merge
from pdiff.stages.pipeline import run_pipeline
from pdiff.weights.population import Population

CONFIG = {
    "plugin": str(Path(__file__).with_name("handwriting.py")),
    "select": "all",
    "engine": {"denoiser": {"width": 64, "depth": 1}, "generator_training": {"steps": 400}},
    "generate": {"num": 20},
    "evaluate": {
        "sources": {"soup16": {"num": 2}, "gaussian": {"num": 2}, **dict.fromkeys(("swag", "noise05", "noise15"))}
    },
}
ONE_STEP = {"engine": {"generator_training": {"steps": 1}}}
NARROW = merge(ONE_STEP, {"engine": {"autoencoder": {"latent": 1}}})


def config(**over):
    return resolve(merge(CONFIG, over))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> RunDirectory:
    """A run that went through all stages; not to be changed."""
    directory = RunDirectory(tmp_path_factory.mktemp("sound") / "run")
    run_pipeline(config(), directory)
    return directory


@pytest.fixture
def copied(sound, tmp_path) -> RunDirectory:
    shutil.copytree(sound.path, tmp_path / "copy")
    return RunDirectory(tmp_path / "copy")


def failed(directory: RunDirectory) -> list[str]:
    return [f"{record['stage']}/{record['name']}" for record in read_gates(directory) if not record["passed"]]


def test_a_sound_run_passes_every_gate(sound):
    assert {record["stage"] for record in read_gates(sound)} == set(ORDER[:4])
    assert [record["name"] for record in read_gates(sound)] == [
        "finite", "copies", "basin", "runs", "rank", "reconstruction", "decoded", "denoiser", "collapse", "latents",
        "spread", "alive",
    ]  # fmt: skip
    assert failed(sound) == []


def test_a_diverged_training_is_caught_at_the_collection_and_nothing_before_it_is_lost(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(PdiffError, match=r"^gate collect/finite: got NaN or infinity in checkpoint 57 \(.*step 57\)"):
        run_pipeline(config(collect={"nan_at": 57}), directory)
    assert len((directory.folder("collect") / "provenance.jsonl").read_text().splitlines()) == 58
    with pytest.raises(PdiffError, match="population: vector 57 holds NaN or infinity"):
        run_pipeline(config(collect={"nan_at": 57}), directory, resume=True, gates=False)


def test_a_mix_of_two_networks_is_caught_at_the_collection(tmp_path):
    with pytest.raises(PdiffError, match=r"gate collect/basin: got several basins .* independently trained networks"):
        run_pipeline(config(collect={"networks": 2, "steps": 6}), RunDirectory(tmp_path / "run"))


def test_a_latent_of_one_is_caught_at_the_codec(copied):
    with pytest.raises(PdiffError, match=r"gate fit/reconstruction: got \d+% of what .* engine.autoencoder.latent"):
        run_pipeline(config(**NARROW), copied, resume=True, overwrite=True)


def test_a_diffusion_of_one_step_is_caught_at_the_diffusion(copied):
    with pytest.raises(PdiffError, match=r"gate fit/denoiser: got a denoising loss .* Raise engine.generator_training"):
        run_pipeline(config(**ONE_STEP), copied, resume=True, overwrite=True)


def test_samples_of_one_step_are_caught_at_the_latents(copied):
    one = {"sampler": {"type": "DDIM", "steps": 1}}
    with pytest.raises(PdiffError, match=r"gate generate/latents: got sampled latents .* more sampling steps"):
        run_pipeline(config(generate=one), copied, resume=True, overwrite=True)


def test_a_failed_gate_stops_every_later_call_until_it_is_ignored(copied, caplog):
    narrow = config(**NARROW)
    for stages, over in ((ORDER, True), (ORDER, False), (["generate"], False)):
        with pytest.raises(PdiffError, match="gate fit/reconstruction: .* To go on all the same, give --resume --no"):
            run_pipeline(narrow, copied, stages, resume=True, overwrite=over)
    run_pipeline(narrow, copied, resume=True, gates=False)
    assert (copied.folder("compare") / "summary.json").exists()
    assert failed(copied)[:2] == ["fit/reconstruction", "fit/denoiser"]
    assert any("gate fit/reconstruction" in text and "(ignored)" in text for text in caplog.messages)


def test_what_a_gate_found_is_under_the_checksum_of_its_stage(copied):
    path = copied.folder("fit") / "gate.json"
    path.write_text(path.read_text().replace("true", "false"))
    with pytest.raises(PdiffError, match=r"gate.json: differs from its checksum"):
        run_pipeline(config(), copied, resume=True)


def test_a_population_of_fewer_than_ten_measures_no_codec(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(config(collect={"branches": 3, "steps": 3}, **ONE_STEP), directory, ORDER[:2], gates=False)
    lines = {record["name"]: record["line"] for record in read_gates(directory)}
    assert lines["decoded"] == (
        "not measured: none of 9 checkpoints is held out: that takes at least 10. Collect more, in several branches "
        "(collect.branches)."
    )


def write_files(folder: Path, states: list[dict]) -> dict:
    """Write state dicts into a folder, and return the section of a config that takes them."""
    for number, state in enumerate(states):
        torch.save(state, folder / f"{number:02}.pth")
    return {"files": str(folder)}


def in_order(state: dict, order: torch.Tensor) -> dict:
    """Return a network whose first hidden units stand in another order: the same function."""
    first = {"0.weight": state["0.weight"][order], "0.bias": state["0.bias"][order]}
    return {**state, **first, "2.weight": state["2.weight"][:, order]}


def test_files_of_one_network_in_another_order_are_said_to_be(sound, tmp_path):
    population = Population.open(sound.folder("collect"))
    own = [population.layout.unflatten(population.tensor()[row]) for row in (0, 50)]
    states = [in_order(state, torch.randperm(32)) for state in own for _ in range(4)]
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(PdiffError) as stopped:
        run_pipeline(config(checkpoints=write_files(tmp_path, states)), directory)
    assert str(stopped.value).startswith(
        "gate collect/basin: got the same function in another order: 6 of 8 checkpoints hold the values of an earlier "
        "one in every tensor and do the same, but their units (channels, heads) are permuted (01.pth is 00.pth)"
    )


def test_files_that_hold_the_same_values_but_do_something_else_are_no_copies(sound, tmp_path):
    population = Population.open(sound.folder("collect"))
    own = population.layout.unflatten(population.tensor()[0])
    states = [{**own, "2.weight": own["2.weight"][:, torch.randperm(32)]} for _ in range(6)]
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(config(checkpoints=write_files(tmp_path, states)), directory, ORDER[:1], gates=False)
    basin = next(record for record in read_gates(directory) if record["name"] == "basin")
    assert "another order" not in basin["line"]
