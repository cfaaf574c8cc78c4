"""A run directory is looked at before anything in it is dropped."""

import pytest

from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.runtime.errors import PdiffError


@pytest.mark.parametrize(
    ("change", "stages", "resume", "overwrite", "words"),
    [
        ({}, ORDER, False, False, "collect was run before"),
        ({}, ["compare"], False, False, "compare was run before"),
        ({"seed": 1}, ORDER, True, False, r"made with another config \(seed differ\)"),
        ({"seed": 1}, ["evaluate"], False, True, "collect was run with another config"),
    ],
)
def test_directory_that_is_refused_is_left_as_it_is(tiny, tmp_path, change, stages, resume, overwrite, words):
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.begin(resolve(tiny).to_dict(), ORDER, resume=False, overwrite=False)
    for stage in ORDER:
        directory.folder(stage).mkdir()
        (directory.folder(stage) / "file").write_text("done")
    files = {path: path.stat().st_mtime_ns for path in directory.path.rglob("*")}
    with pytest.raises(PdiffError, match=words):
        directory.begin(resolve({**tiny, **change}).to_dict(), stages, resume=resume, overwrite=overwrite)
    assert {path: path.stat().st_mtime_ns for path in directory.path.rglob("*")} == files


@pytest.fixture
def failed(tiny, tmp_path) -> RunDirectory:
    """The directory of a run that stopped before its first snapshot."""
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.begin(resolve(tiny).to_dict(), ORDER, resume=False, overwrite=False)
    branch = directory.folder("collect") / "branches" / "0"
    (directory.folder("collect") / "task").mkdir(parents=True)
    (directory.folder("collect") / "task" / "drawn.npz").write_text("data")
    branch.mkdir(parents=True)
    (branch / "layout.json").write_text("[]")
    (branch / "provenance.jsonl").touch()
    (branch / "vectors.f32").touch()
    return directory


@pytest.mark.parametrize("change", [{}, {"seed": 1}])
def test_run_that_stopped_before_its_first_snapshot_does_not_own_its_directory(tiny, failed, change):
    (failed.path / "notes.txt").write_text("mine")
    failed.begin(resolve({**tiny, **change}).to_dict(), ORDER, resume=False, overwrite=False)
    assert failed.config()["seed"] == change.get("seed", 0)
    assert not failed.folder("collect").exists()
    assert (failed.path / "notes.txt").read_text() == "mine"


def test_resuming_keeps_what_was_prepared_before_the_first_snapshot(tiny, failed):
    failed.begin(resolve(tiny).to_dict(), ORDER, resume=True, overwrite=False)
    assert (failed.folder("collect") / "task" / "drawn.npz").exists()


@pytest.mark.parametrize("file", ["branches/0/collect.state.safetensors", "branches/0/vectors.f32", "notes.txt"])
def test_state_of_a_training_a_snapshot_and_a_foreign_file_are_not_dropped_unasked(tiny, failed, file):
    (failed.folder("collect") / file).write_text("something")
    with pytest.raises(PdiffError, match="was made with another config"):
        failed.begin(resolve({**tiny, "seed": 1}).to_dict(), ORDER, resume=False, overwrite=False)
    assert (failed.folder("collect") / file).exists()


def test_import_that_stopped_does_not_own_its_directory(tiny, tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.begin(resolve({**tiny, "checkpoints": {"files": "a"}}).to_dict(), ORDER, resume=False, overwrite=False)
    directory.folder("collect").mkdir()
    (directory.folder("collect") / "vectors.f32").write_text("rows")
    directory.begin(resolve({**tiny, "checkpoints": {"files": "b"}}).to_dict(), ORDER, resume=False, overwrite=False)
    assert not directory.folder("collect").exists()


@pytest.mark.parametrize(("name", "text"), [("config.yaml", "- a list"), ("config.yaml", "name: x"), ("samples/a", "")])
def test_directory_of_something_else_is_refused_even_with_overwrite(tiny, tmp_path, name, text):
    directory = RunDirectory(tmp_path / "other")
    (directory.path / name).parent.mkdir(parents=True)
    (directory.path / name).write_text(text)
    with pytest.raises(PdiffError, match=r"other: holds (a config\.yaml|samples) that is not of a run\. Give another"):
        directory.begin(resolve(tiny).to_dict(), ORDER, resume=False, overwrite=True)
    assert (directory.path / name).read_text() == text


def test_files_beside_those_of_a_run_are_left_alone(tiny, tmp_path):
    directory = RunDirectory(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    directory.begin(resolve(tiny).to_dict(), ORDER, resume=False, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_goes_on_with_what_no_result_shows(tiny, tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    old = resolve(tiny).to_dict()
    del old["evaluate"]["together"]  # as an earlier version of pdiff left it
    directory.begin(old, ORDER, resume=False, overwrite=False)
    directory.folder("evaluate").mkdir()
    for changes in ({"together": 8}, {"together": 9}):
        new = resolve({**tiny, "device": "cpu", "evaluate": {**tiny["evaluate"], **changes}}).to_dict()
        directory.begin(new, ORDER, resume=True, overwrite=False)
        assert directory.folder("evaluate").exists()
        assert directory.config()["evaluate"]["together"] == changes["together"]
