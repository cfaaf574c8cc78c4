"""Candidates that are trained on: each as it would be alone, kept once made, each mistake one line."""

import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pdiff.commands import run as command
from pdiff.run.behaviour import Behaviour
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.export import export, export_for
from pdiff.run.keeping import log_of
from pdiff.run.refining import Refinement, are_same, check_finite, keep_refined, looked_at
from pdiff.run.run import Run
from pdiff.run.sources import check_sources, open_pool, open_source
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import merge
from pdiff.runtime.storage import read_json, read_tensors, write_json, write_tensors
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import import_plugin

REFINED = {"type": "refined", "of": "nearest", "steps": 30, "lr": 0.05, "together": 4}
TOGETHER = {"type": "ensemble_of", "members": 2}
SPACES = {space: {**REFINED, "space": space} for space in ("latent", "weights", "subspace")}
FEW = ("oracle", "generated", "nearest")


@pytest.fixture
def own(closed) -> dict:
    """Return the values of a config with a source in each space."""
    left_out = {name: None for name in resolve(closed).evaluate.conditional if name not in FEW}
    closed["evaluate"] = {"conditional": {**left_out, **SPACES}}
    return closed


@pytest.fixture
def collected(own, conditional, tmp_path) -> Run:
    """Return a run that has everything but an evaluation."""
    shutil.copytree(conditional.path, tmp_path / "collected")
    RunDirectory(tmp_path / "collected").drop(ORDER[3:])
    return Run(resolve(own), RunDirectory(tmp_path / "collected"))


@pytest.fixture
def with_source(own, collected):
    """Return a function that gives the same run with another source `more`, and that one's settings changed."""

    def give(**settings) -> Run:
        changed = merge(own, {"evaluate": {"conditional": {"more": {**REFINED, **settings}}}})
        return Run(resolve(changed), collected.directory)

    return give


def exact(run: Run) -> torch.Tensor:
    """Return the vectors of the networks for the wanted conditions `(W, P)`."""
    network = import_plugin(run.config.plugin).exact
    return torch.stack([network(values).flatten() for values in open_pool(run).wanted.conditions.values])


def errors(run: Run, vectors: torch.Tensor) -> torch.Tensor:
    """Return how far each vector is from the network for its condition `(W,)`."""
    return (vectors - exact(run)).square().mean(1)


@pytest.mark.parametrize("space", SPACES)
def test_every_candidate_comes_nearer_to_the_network_for_its_condition(collected, space):
    pool = open_pool(collected)
    found, begun = open_source(collected, space, pool), open_source(collected, "nearest", pool)
    assert found.wanted.tolist() == [*range(15)]
    assert found.seconds > 0
    before, after = (errors(collected, each.vectors[:]) for each in (begun, found))
    assert (after < before).all()
    assert after.mean() < 0.3 * before.mean()


@pytest.mark.parametrize("space", SPACES)
def test_each_is_trained_as_it_would_be_alone(with_source, space):
    together, alone = with_source(space=space, together=15), with_source(space=space, together=1)
    first, second = (open_source(run, "more", open_pool(run)).vectors for run in (together, alone))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", SPACES)
def test_no_step_gives_the_beginning(collected, with_source, space):
    run = with_source(space=space, steps=0)
    pool = open_pool(run)
    begun = open_source(run, "nearest", pool).vectors[:]
    torch.testing.assert_close(open_source(run, "more", pool).vectors, begun, rtol=1e-5, atol=1e-6)


def test_refined_may_begin_with_refined_and_every_draw_is_trained(own, collected):
    own["generate"] = {"draws": 1}
    sources = {"first": {**REFINED, "of": "generated", "steps": 3}, "second": {**REFINED, "of": "first", "steps": 3}}
    run = Run(resolve(merge(own, {"evaluate": {"conditional": sources}})), collected.directory)
    check_sources(run)
    pool = open_pool(run)
    generated, first, second = (open_source(run, name, pool) for name in ("generated", *sources))
    assert torch.equal(second.wanted, generated.wanted)
    assert second.seconds > first.seconds > 0
    assert (
        errors(run, second.vectors).mean() < errors(run, first.vectors).mean() < errors(run, generated.vectors).mean()
    )


def test_evaluation_keeps_it_and_whoever_comes_later_reads_it(own, tmp_path):
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve(own), directory, gates=False)
    files = sorted((directory.path / "evaluation").glob("refined.*"))
    assert len(files) == len(SPACES)
    assert not [*(directory.path / "evaluation").glob("*.state.safetensors")]
    for file in files:
        kept = read_tensors(file)
        write_tensors(file, {**kept, "vectors": kept["vectors"] + 1})
        write_json(log_of(file), {"seconds": 30.0})
    run = Run(resolve(own), directory)
    found = open_source(run, "weights", open_pool(run))
    assert errors(run, found.vectors - 1).mean() < 0.1
    assert found.seconds == 30
    for file in files:
        log_of(file).unlink()
    assert math.isnan(open_source(run, "weights", open_pool(run)).seconds), "nobody knows"


def test_it_is_a_row_of_the_report_with_the_seconds_of_the_training(own, tmp_path):
    drawn = {**REFINED, "of": "generated", "space": "weights"}
    own["evaluate"]["conditional"]["drawn"] = drawn
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve(own), directory, gates=False)
    for file in (directory.path / "evaluation").glob("refined.*"):
        write_json(log_of(file), {"seconds": 30.0})
    directory.drop(["compare"])
    run_pipeline(resolve(own), directory, ["compare"], gates=False)
    summary = read_json(directory.path / "report" / "summary.json")
    row = summary["sources"]["weights"]
    assert row["seconds"] == pytest.approx(2, abs=0.1)
    assert row["note"] == "nearest, trained for the condition for 30 steps (weights); seconds: those of both"
    assert summary["sources"]["drawn"]["seconds"] > row["seconds"], "it was drawn before"
    assert summary["sources"]["weights"]["mean"] > summary["sources"]["nearest"]["mean"]
    assert summary["best_source"] in {*SPACES, "drawn"}
    assert "drawn" not in summary["verdict"], "what is made of the generated is none of their rivals"
    where = tmp_path / "network.safetensors"
    assert export_for(directory.path, "best", ["bit0=0.25", "bit1=0.75"], where) == summary["best_source"]


def test_what_is_kept_of_other_vectors_or_conditions_is_not_taken(collected):
    keeping = replace(open_pool(collected), refine=partial(keep_refined, collected))
    kept = open_source(collected, "weights", keeping).vectors
    pool = replace(keeping, wanted=keeping.wanted.instead(keeping.wanted.conditions.take([2, 0])))
    torch.testing.assert_close(open_source(collected, "weights", pool).vectors, kept[[2, 0]], rtol=1e-3, atol=1e-3)
    vectors = torch.randn(3, 200)
    begun = looked_at(vectors)
    assert begun.shape == (3, 64)
    assert are_same(begun, looked_at(vectors * (1 + 1e-5)))
    assert not are_same(begun, looked_at(vectors + 0.01 * torch.randn(3, 200)))
    assert not are_same(begun, begun[:2])
    assert not are_same(begun, begun / 0)


def test_two_processes_keep_what_one_keeps_but_for_rounding(own, conditional, together, tmp_path):
    own["evaluate"]["conditional"] |= {"soup": {"type": "soup"}, "one": {**REFINED, "of": "nearest", "together": 1}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    found = []
    for number in (1, 2):
        path = tmp_path / str(number)
        shutil.copytree(conditional.path, path)
        RunDirectory(path).drop(ORDER[3:])
        arguments = ("--config", tmp_path / "own.yaml", "--overwrite", "--stage", "evaluate", "--no-gates")
        if number == 1:
            assert command.main([*map(str, arguments), "--work-dir", str(path)]) == 0
        else:
            started = together(*arguments, "--work-dir", path)
            assert started.codes() == [0, 0], started.text("err")
        found.append({file.name: read_tensors(file) for file in (path / "evaluation").glob("refined.*")})
    assert found[0].keys() == found[1].keys()
    for name, kept in found[0].items():
        torch.testing.assert_close(kept, found[1][name], rtol=1e-4, atol=1e-5)


def test_evaluation_that_is_killed_in_between_ends_with_the_same_bytes(own, conditional, killed, results, tmp_path):
    own["evaluate"]["conditional"] |= {"latent": None, "subspace": None}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    paths = [tmp_path / "once", tmp_path / "again"]
    for path in paths:
        shutil.copytree(conditional.path, path)
        RunDirectory(path).drop(ORDER[3:])

    def evaluate(path):
        arguments = ["--config", tmp_path / "own.yaml", "--overwrite", "--stage", "evaluate", "--no-gates"]
        return command.main([*map(str, arguments), "--work-dir", str(path)])

    def resume():
        arguments = ["--config", tmp_path / "own.yaml", "--resume", "--no-gates"]
        return command.main([*map(str, arguments), "--work-dir", str(paths[1])])

    assert evaluate(paths[0]) == 0
    (file,) = (paths[0] / "evaluation").glob("refined.*")
    stem = file.name.removesuffix(".vectors.safetensors")
    work = partial(evaluate, paths[1])
    for name in (f"{stem}.0.done.state.safetensors", f"{stem}.4.state.safetensors", file.name, "weights.jsonl"):
        assert killed(work, "os.rename", paths[1] / "evaluation" / name, 1), name
        work = resume
    assert resume() == 0
    first, second = map(results, paths)
    assert first == {name: second[name] for name in first}
    assert not [*(paths[1] / "evaluation").glob("*.state.safetensors")]
    assert log_of(file).exists()
    assert not log_of(paths[1] / "evaluation" / file.name).exists(), "nobody knows the seconds of what was cut off"


def test_export_trains_on_for_a_condition_and_reads_what_is_kept(own, tmp_path):
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve(own), directory, gates=False)
    export_for(directory.path, "weights", ["bit0=0.25", "bit1=0.75"], tmp_path / "one.safetensors")
    network = import_plugin(own["plugin"]).exact(torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(load_file(tmp_path / "one.safetensors")["weight"], network, atol=0.3, rtol=0)
    export(directory.path, "weights", "3", tmp_path / "two.safetensors")
    run = Run(resolve(own), directory)
    kept = open_source(run, "weights", open_pool(run)).vectors[3]
    assert torch.equal(load_file(tmp_path / "two.safetensors")["weight"].flatten(), kept)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"of": "closest"}, r"\.of: got 'closest'\. .*Known: "),
        ({"of": "more"}, r"\.of: got 'more', and more of more has no beginning, expected a source that is not made of"),
        ({"space": "latents"}, r"\.space: got 'latents'\. Did you mean 'latent'\? Known: latent, subspace, weights\."),
        ({"steps": -1}, r"\.steps: got -1, expected a finite number from 0 on\."),
        ({"steps": 1.5}, r"\.steps: got 1\.5, expected an integer"),
        ({"lr": -0.1}, r"\.lr: got -0\.1, expected a finite number from 0 on\."),
        ({"weight_decay": -1.0}, r"\.weight_decay: got -1\.0, expected a finite number from 0 on\."),
        ({"axes": 0}, r"\.axes: got 0, expected an integer from 1 on\."),
        ({"together": 0}, r"\.together: got 0, expected an integer from 1 on\."),
        ({"num": 3}, r"\.num: got 3, expected none where networks are for conditions, for all of nearest are taken\."),
    ],
)
def test_settings_that_cannot_be_are_told_before_anything_is_computed(with_source, settings, words):
    with pytest.raises(PdiffError, match=rf"^evaluate\.conditional\.more{words}"):
        check_sources(with_source(**settings))


def test_a_plugin_without_the_hook_is_told_before_anything_is_computed(own, tmp_path):
    text = Path(own["plugin"]).read_text()
    (tmp_path / "lacking.py").write_text(text.replace("@hookimpl\ndef loss", "def loss"))
    own["plugin"] = str(tmp_path / "lacking.py")
    with pytest.raises(PdiffError, match=r"^evaluate\.conditional\.latent: needs the hook loss, which the plugin lack"):
        check_sources(Run(resolve(own), RunDirectory(tmp_path / "run")))


def test_a_rate_that_drives_vectors_to_infinity_is_one_line(with_source):
    run = with_source(space="weights", lr=1e38, steps=3)
    with pytest.raises(PdiffError, match=r"^(plugin closed_form: loss|source refined: got NaN or infinity after 3)"):
        open_source(run, "more", open_pool(run))


def test_without_conditions_the_first_candidates_are_trained_on_training_data(tiny, tmp_path):
    kinds = {"drawn": {"of": "generated", "num": 3}, "points": {"of": "trained"}, "few": {"of": "soup"}}
    given = {"type": "refined", "space": "weights", "steps": 3, "lr": 0.01}
    sources = {name: {**given, **own} for name, own in kinds.items()}
    config = resolve(merge(tiny, {"evaluate": {"sources": {**sources, "both": {**TOGETHER, "of": "points"}}}}))
    run = Run(config, RunDirectory(tmp_path / "run"))
    run_pipeline(config, run.directory, gates=False)
    pool = open_pool(run)
    drawn, points, few, both = (open_source(run, name, pool) for name in (*sources, "both"))
    assert [len(found.vectors) for found in (drawn, points, few)] == [3, 4, 1]
    assert points.parents.tolist() == [0, 1, 2, 3]
    assert both.vectors[:].shape == (1, 2, run.layout.size)
    behaviour, numbers = Behaviour(run), torch.zeros(4, dtype=torch.long)
    before, after = (
        sum(behaviour(vectors, numbers, step).mean().item() for step in range(3))
        for vectors in (run.population.tensor()[:4], points.vectors)
    )
    assert after < before
    summary = read_json(run.directory.path / "report" / "summary.json")
    assert {*sources, "both"} <= set(summary["sources"])
    assert "drawn" not in summary["comparisons"], "what is made of the generated is no baseline of theirs"
    assert {"points", "few"} <= set(summary["comparisons"])


def test_vectors_that_were_driven_to_infinity_are_one_line():
    how = Refinement("nearest", 3, 0.1, "weights", 32, 64, 0.0)
    check_finite(how, torch.zeros(2, 3))
    with pytest.raises(
        PdiffError, match=r"^source refined: got NaN or infinity after 3 steps on the candidates of nea"
    ):
        check_finite(how, torch.tensor([[1.0, math.inf]]))


def test_one_of_several_processes_does_not_begin_to_train_alone(collected, monkeypatch):
    monkeypatch.setattr("pdiff.runtime.processes.size", lambda: 2)
    with pytest.raises(
        PdiffError, match=r"refined\..*\.vectors\.safetensors: is missing, or of other vectors\. Repeat"
    ):
        open_source(collected, "weights", open_pool(collected))
