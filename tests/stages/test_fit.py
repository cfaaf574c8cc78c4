"""Several fits of one population: what they share, what they do not, and that none is done twice."""

import json
import shutil
from functools import partial

import pytest
import torch

from pdiff.gates.diffusion import denoising_losses
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.heldout import split_population
from pdiff.run.record import read_gate
from pdiff.run.run import Run
from pdiff.runtime.settings import merge
from pdiff.runtime.storage import read_tensors
from pdiff.stages.fit import groups_of
from pdiff.stages.pipeline import run_pipeline


@pytest.fixture
def values(tiny):
    return merge(tiny, {"fit": {"repeats": 3}})


@pytest.fixture
def collected(finished, tmp_path) -> RunDirectory:
    """A run of which only the population is there."""
    shutil.copytree(finished.path, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    directory.drop(ORDER[1:])
    return directory


def go_on(values, directory, stages=("fit", "generate")):
    run_pipeline(resolve(values), directory, stages, resume=True, overwrite=True, gates=False)
    return Run(resolve(values), directory)


def test_the_first_of_several_fits_is_that_of_a_single_one(values, collected, finished, results):
    go_on(values, collected, ["fit"])
    own, single = results(collected.path), results(finished.path)
    names = [name for name in single if name.startswith("engine/") and not name.endswith("gate.json")]
    assert {name: own[name] for name in names} == {name: single[name] for name in names}
    repeats = {name for name in own if name.startswith("engine/repeats/")}
    assert {name.split("/")[2] for name in repeats} == {"1", "2"}
    assert not [name for name in own if name.endswith(".state.safetensors")]
    recorded = collected.records()["fit"]["files"]
    assert "engine/repeats/2/engine.json" in recorded
    assert not [name for name in recorded if "logs" in name]


def test_fits_differ_in_their_seed_alone(values, collected):
    run = go_on(values, collected, ["fit"])
    first, *others = run.engines
    assert first is run.engine
    assert len({engine.seed for engine in run.engines}) == 3
    for other in others:
        assert other.config == first.config
        assert torch.equal(other.scaling.state_dict()["mean"], first.scaling.state_dict()["mean"])
        assert not torch.equal(next(other.generator.denoiser.parameters()), next(first.generator.denoiser.parameters()))


def test_generated_vectors_are_shared_among_the_fits_in_order(values, collected):
    run = go_on(values, collected)
    assert run.fits == [0, 0, 1, 1, 2]
    folder = collected.folder("generate")
    assert json.loads((folder / "samples.json").read_text())["fits"] == run.fits
    latents = read_tensors(folder / "latents.safetensors")["latents"]
    torch.testing.assert_close(run.engine.decode(latents), run.generated[:2])
    second = run.engines[1].sample_latents(2, run.fit_seed(1, "generate"))
    torch.testing.assert_close(run.engines[1].decode(second), run.generated[2:4])


def test_a_single_fit_draws_all_and_names_none(finished):
    run = Run(resolve(finished.config()), finished)
    assert run.fits == [0] * 5
    assert "fits" not in json.loads((finished.folder("generate") / "samples.json").read_text())
    assert run.engines == [run.engine]


def test_the_gate_shows_the_worst_of_several_fits(values, collected):
    run = go_on(values, collected, ["fit"])
    (shown,) = (check for check in read_gate(collected, "fit") if check["name"] == "denoiser")
    fitted = split_population(run)[0]
    losses = [denoising_losses(each, each.encode(fitted), run.seed("gate", "denoiser")) for each in run.engines]
    ratios = [loss / linear for loss, linear in losses]
    assert shown["figures"]["ratio"] == pytest.approx(max(ratios))
    assert shown["figures"]["fit"] == ratios.index(max(ratios))
    assert shown["line"].endswith(f". This is the worst of 3 fits, number {shown['figures']['fit']}.")


def test_a_fit_that_is_finished_is_not_repeated_and_an_interrupted_one_ends_with_the_same(
    values, collected, killed, results
):
    stage = partial(go_on, values, collected, ["fit"])
    stage()
    whole = results(collected.path)
    collected.drop(ORDER[1:])
    assert killed(stage, "os.rename", collected.folder("fit") / "repeats" / "2" / "denoiser.safetensors")
    folder = collected.folder("fit")
    before = {path: path.stat().st_mtime_ns for path in (folder / "engine.json", folder / "repeats/1/engine.json")}
    assert not (folder / "repeats/2/engine.json").exists()
    stage()
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert results(collected.path) == whole


def test_a_watched_training_leaves_out_whole_branches_of_the_fitted_ones(values, collected):
    patient = merge(values, {"fit": {"repeats": 1}, "engine": {"generator_training": {"patience": 3}}})
    run = go_on(patient, collected, ["fit"])
    fitted = split_population(run)[0]
    branches = [run.population.provenance[row]["branch"] for row in fitted.rows.tolist()]
    assert len({*zip(groups_of(run, fitted).tolist(), branches, strict=True)}) == len({*branches}) > 1
    assert len(run.engine.history["watched"]) == 1


def test_conditions_are_watched_whole(conditional):
    run = Run(resolve(conditional.config()), conditional)
    fitted = split_population(run)[0]
    assert len({*groups_of(run, fitted).tolist()}) == len(
        run.population.conditions.take(fitted.rows).values.unique(dim=0)
    )
