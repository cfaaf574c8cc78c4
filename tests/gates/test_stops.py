"""Real runs that are spoilt, and the gate that stops each; a sound run passes them all."""

import shutil
from pathlib import Path

import pytest

from pdiff import PdiffError
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.record import read_gates
from pdiff.runtime.settings import merge
from pdiff.stages.pipeline import run_pipeline

CONFIG = {
    "plugin": str(Path(__file__).with_name("handwriting.py")),
    "select": "all",
    "engine": {"denoiser": {"width": 64, "depth": 1}, "denoiser_training": {"steps": 400}},
    "generate": {"num": 20},
    "evaluate": {
        "sources": {"soup16": {"num": 2}, "gaussian": {"num": 2}, **dict.fromkeys(("swag", "noise05", "noise15"))}
    },
}
ONE_STEP = {"engine": {"denoiser_training": {"steps": 1}}}
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
        "finite", "copies", "basin", "runs", "rank", "reconstruction", "decoded", "denoiser", "latents", "alive"
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
    with pytest.raises(PdiffError, match=r"gate fit/denoiser: got a denoising loss .* Raise engine.denoiser_training"):
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
