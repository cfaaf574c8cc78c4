"""Every candidate of every source, measured in as few passes as can be."""

import shutil

import pytest

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.errors import PdiffError
from pdiff.stages.evaluate import evaluate


@pytest.fixture
def unmeasured(finished, tmp_path):
    """Return a function that gives a finished run without its evaluations, settings of `evaluate` changed."""

    def start(**changes) -> Run:
        directory = RunDirectory(tmp_path / "run")
        shutil.copytree(finished.path, directory.path)
        shutil.rmtree(directory.folder("evaluate"))
        config = directory.config()
        config["evaluate"] |= changes
        return Run(resolve(config), directory)

    return start


def written(directory) -> dict[str, bytes]:
    """Return the evaluations of a run by file."""
    return {f.name: f.read_bytes() for f in directory.folder("evaluate").iterdir() if f.stem != "gate"}


def count_prefix(run) -> list[int]:
    """Return a list that grows by one entry for each batch of which the frozen part is computed."""
    seen = []
    run.task.model.layer1[0].conv1.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    return seen


def test_the_frozen_part_is_computed_once_per_split_for_all_sources(unmeasured, finished):
    run = unmeasured()
    seen = count_prefix(run)
    evaluate(run)
    assert written(run.directory) == written(finished)
    assert seen == [64, 900, 769, 64]  # select, test in two batches, train


def test_fewer_together_end_with_the_same_bytes(unmeasured, finished):
    run = unmeasured(together=8)
    seen = count_prefix(run)
    evaluate(run)
    assert written(run.directory) == written(finished)
    assert len(seen) > 3


def test_what_an_interrupted_run_has_measured_is_not_measured_again(unmeasured, finished, monkeypatch):
    run = unmeasured(together=8)
    from pdiff.stages import evaluate as stage

    own, calls = stage.evaluate_together, []

    def interrupted(run, asked):
        if calls:
            raise KeyboardInterrupt
        calls.append(list(asked))
        own(run, asked)

    monkeypatch.setattr(stage, "evaluate_together", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run)
    there = {path.stem for path in run.directory.folder("evaluate").glob("*.jsonl")}
    assert there == set(calls[0])
    again = []
    monkeypatch.setattr(stage, "evaluate_together", lambda run, asked: again.extend(asked) or own(run, asked))
    evaluate(run)
    assert not there & set(again)
    assert written(run.directory) == written(finished)


@pytest.mark.parametrize("value", [0, -1, 2.5, "all"])
def test_a_number_that_cannot_be_is_refused(tiny, value):
    tiny["evaluate"]["together"] = value
    with pytest.raises(PdiffError, match=r"^evaluate\.together: got .*expected an? .*integer"):
        resolve(tiny)


def test_a_source_may_be_called_path(unmeasured, finished):
    run = unmeasured(sources={"soup": {"type": "soup"}, "path": {"type": "soup"}}, only=["soup", "path"])
    evaluate(run)
    files = written(run.directory)
    assert files["path.jsonl"] == files["soup.jsonl"]
    assert files["path.json"] == written(finished)["path.json"]
