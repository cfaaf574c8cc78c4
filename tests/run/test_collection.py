"""A run takes the collection of another one, which stays as it is."""

import json
import os
import shutil
from pathlib import Path

import pytest

from pdiff.run.collection import take_collection
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import write_json
from pdiff.stages.pipeline import run_pipeline


@pytest.fixture
def source(finished, tmp_path) -> RunDirectory:
    """A copy of a finished run, to be changed at will."""
    shutil.copytree(finished.path, tmp_path / "source")
    return RunDirectory(tmp_path / "source")


@pytest.fixture
def own(tiny, tmp_path) -> RunDirectory:
    """The directory of a run that is about to begin."""
    directory = RunDirectory(tmp_path / "own")
    directory.path.mkdir()
    directory.begin(resolve(tiny).to_dict(), ORDER, resume=False, overwrite=False)
    return directory


def taken(directory: RunDirectory) -> dict[str, bytes]:
    """Return the files of a collection: those that are recorded."""
    return {name: (directory.path / name).read_bytes() for name in directory.records()["collect"]["files"]}


def left_aside(directory: RunDirectory) -> list[Path]:
    """Return what an interrupted call has left."""
    return [*directory.path.rglob("*.part"), *directory.path.glob(".dropped")]


def state(path: Path) -> dict[Path, tuple[int, int]]:
    """Return when each file of a folder was changed, and how long it is."""
    return {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in path.rglob("*") if file.is_file()}


def test_collection_of_another_run_gives_the_same_bytes_as_collecting(source, tiny, tmp_path, results):
    before = state(source.path)
    directory = RunDirectory(tmp_path / "own")
    run_pipeline(resolve(tiny), directory, ORDER[:4], gates=False, collection=source.path)
    assert results(directory.path) == results(source.path)
    assert {**before, **state(source.path)} == before
    assert directory.config() == source.config()


def test_files_are_linked_and_the_record_says_where_from(source, own, tiny):
    take_collection(source.path, own, resolve(tiny).to_dict())
    for name in ("base.safetensors", "population/vectors.f32"):
        assert (own.path / name).samefile(source.path / name)
    record = own.records()["collect"]
    assert record == {**source.records()["collect"], "from": "../source"}
    own.require("collect")
    assert not (own.path / "population" / "canonical").exists()
    assert not left_aside(own)


def test_files_of_the_plugin_are_copied(source, own, tiny):
    (source.folder("collect") / "task").mkdir()
    (source.folder("collect") / "task" / "drawn.npz").write_text("data")
    source.finish("collect", {"seconds": 1.0})
    take_collection(source.path, own, resolve(tiny).to_dict())
    (own.folder("collect") / "task" / "drawn.npz").write_text("other")
    source.require("collect")


def test_files_are_copied_where_they_cannot_be_linked(source, own, tiny, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    take_collection(source.path, own, resolve(tiny).to_dict())
    assert not own.base.samefile(source.base)
    assert taken(own) == taken(source)
    assert not left_aside(own)


def test_collection_that_is_done_is_kept(source, own, tiny, tmp_path):
    take_collection(source.path, own, resolve(tiny).to_dict())
    before = state(own.path)
    shutil.rmtree(source.path)
    take_collection(source.path, own, resolve(tiny).to_dict())
    take_collection(tmp_path / "none", own, resolve(tiny).to_dict())
    assert state(own.path) == before


def test_resumed_run_goes_on_behind_the_collection_that_it_has_taken(source, tiny, tmp_path, results):
    directory = RunDirectory(tmp_path / "own")
    run_pipeline(resolve(tiny), directory, ["fit"], gates=False, collection=source.path)
    shutil.move(source.path, tmp_path / "gone")
    run_pipeline(resolve(tiny), directory, ORDER[:4], resume=True, gates=False, collection=source.path)
    assert results(directory.path) == results(tmp_path / "gone")


def test_deleting_what_was_taken_leaves_it_where_it_is_from(source, own, tiny):
    take_collection(source.path, own, resolve(tiny).to_dict())
    own.drop(ORDER)
    source.require("collect")


def test_fit_with_other_settings_shares_the_collection(source, tiny, tmp_path):
    directory = RunDirectory(tmp_path / "own")
    tiny["engine"]["generator_training"]["steps"] = 10
    run_pipeline(resolve({**tiny, "device": "cpu"}), directory, ["fit"], gates=False, collection=source.path)
    assert directory.config()["engine"]["generator_training"]["steps"] == 10
    assert source.config()["engine"]["generator_training"]["steps"] == 20
    source.require("fit")


@pytest.mark.parametrize(
    ("event", "file", "count"),
    [
        ("os.link", ".dropped/population/provenance.jsonl", 1),
        ("os.rename", "base.safetensors", 1),
        ("open", "stages.json.part", 1),
        ("os.rename", "population", 1),
        ("shutil.rmtree", ".dropped", 1),
    ],
)
def test_killed_at_any_moment_the_same_call_ends_with_the_same(source, own, tiny, killed, event, file, count):
    def take() -> None:
        own.drop(own.repeated(resolve(tiny).to_dict(), ORDER, resume=True, overwrite=False))
        take_collection(source.path, own, resolve(tiny).to_dict())

    assert killed(take, event, own.path / file, count)
    take()
    assert taken(own) == taken(source)
    assert not left_aside(own)
    source.require("collect")


def test_run_that_was_killed_in_it_and_collects_changes_nothing_there(source, tiny, tmp_path, killed, results):
    directory = RunDirectory(tmp_path / "own")
    given = {"resume": True, "gates": False}

    def take() -> None:
        run_pipeline(resolve(tiny), directory, ["fit"], **given, collection=source.path)

    assert killed(take, "open", directory.path / "stages.json.part")
    run_pipeline(resolve(tiny), directory, ORDER[:4], **given)
    assert results(directory.path) == results(source.path)
    assert not directory.base.samefile(source.base)
    source.require("collect")


def test_run_that_was_killed_in_it_says_what_is_missing(source, tiny, tmp_path, killed):
    directory = RunDirectory(tmp_path / "own")

    def take() -> None:
        run_pipeline(resolve(tiny), directory, ["fit"], resume=True, gates=False, collection=source.path)

    assert killed(take, "os.rename", directory.folder("collect"))
    with pytest.raises(PdiffError, match=r"own/population/.*: is missing\. Repeat its stage"):
        run_pipeline(resolve(tiny), directory, resume=True, gates=False)
    source.require("collect")


def test_collection_that_stopped_before_its_first_snapshot_makes_room(source, own, tiny):
    (own.folder("collect") / "task").mkdir(parents=True)
    take_collection(source.path, own, resolve(tiny).to_dict())
    assert taken(own) == taken(source)


def test_collection_that_is_not_finished_is_not_overwritten(source, own, tiny):
    own.folder("collect").mkdir()
    (own.folder("collect") / "vectors.f32").write_bytes(b"rows")
    with pytest.raises(PdiffError, match=r"own: holds a collection that is not finished, expected none beside"):
        take_collection(source.path, own, resolve(tiny).to_dict())
    assert (own.folder("collect") / "vectors.f32").read_bytes() == b"rows"


def test_lost_collection_is_taken_again_from_the_same_run_alone(source, own, tiny):
    take_collection(source.path, own, resolve(tiny).to_dict())
    shutil.rmtree(own.folder("collect"))
    take_collection(source.path, own, resolve(tiny).to_dict())
    assert taken(own) == taken(source)
    shutil.rmtree(own.folder("collect"))
    write_json(source.folder("collect") / "gate.json", [])
    source.finish("collect", {"seconds": 1.0})
    with pytest.raises(PdiffError, match=r"own: lacks its collection, and that of .*source is another one\."):
        take_collection(source.path, own, resolve(tiny).to_dict())


def test_other_collection_is_refused_by_its_keys(source, own, tiny):
    tiny["collect"]["finetune"]["steps"] = 4
    line = r"^--collection: got .*, which was collected with another config \(seed, collect.finetune.steps d"
    with pytest.raises(PdiffError, match=line):
        take_collection(source.path, own, resolve({**tiny, "seed": 1, "generate": {"num": 3}}).to_dict())
    assert own.records() == {}


def test_directory_that_is_of_no_run_is_refused(own, tiny, tmp_path):
    with pytest.raises(PdiffError, match=r"^--collection: got .*none, expected the directory of a run\. Name one\.$"):
        take_collection(tmp_path / "none", own, resolve(tiny).to_dict())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("a: 1\n")
    with pytest.raises(PdiffError, match=r"other: holds a config\.yaml that is not of a run\."):
        take_collection(tmp_path / "other", own, resolve(tiny).to_dict())


def test_collection_that_is_not_done_is_refused(source, own, tiny):
    source.drop(ORDER)
    with pytest.raises(PdiffError, match=r"^--collection: got .*source, whose collection is not done, expected a fin"):
        take_collection(source.path, own, resolve(tiny).to_dict())


def test_damaged_collection_is_named(source, own, tiny):
    (source.folder("collect") / "vectors.f32").write_bytes(b"torn")
    with pytest.raises(PdiffError, match=r"source/population/vectors\.f32: differs from its checksum\."):
        take_collection(source.path, own, resolve(tiny).to_dict())
    assert own.records() == {}


@pytest.mark.parametrize(
    ("stages", "overwrite", "line"),
    [
        (
            ["collect"],
            False,
            r"^--stage: got collect beside --collection, which takes a collection instead of collecting",
        ),
        (ORDER, True, r"^--overwrite: got it beside --collection, which .* collecting anew\. Leave one out, or give"),
    ],
)
def test_collecting_anew_beside_it_is_refused(source, tiny, tmp_path, stages, overwrite, line):
    with pytest.raises(PdiffError, match=line):
        run_pipeline(resolve(tiny), RunDirectory(tmp_path / "own"), stages, overwrite=overwrite, collection=source.path)
    assert not (tmp_path / "own").exists()


def test_mistake_in_it_drops_nothing(source, tiny, tmp_path):
    tiny["seed"] = 1
    with pytest.raises(PdiffError, match=r"none, expected the directory of a run"):
        run_pipeline(resolve(tiny), source, resume=True, overwrite=True, collection=tmp_path / "none")
    assert source.records().keys() == set(ORDER)


def test_settings_that_cannot_be_are_told_before_the_fit(source, tiny, tmp_path):
    tiny["evaluate"]["sources"]["x"] = {"type": "nosuch"}
    with pytest.raises(PdiffError, match=r"evaluate\.sources\.x\.type: got 'nosuch'"):
        run_pipeline(resolve(tiny), RunDirectory(tmp_path / "own"), gates=False, collection=source.path)
    assert not (tmp_path / "own" / "engine").exists()


def test_several_processes_take_it_together(source, tiny, tmp_path, together, results):
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny))
    arguments = ("--config", tmp_path / "tiny.yaml", "--work-dir", tmp_path / "own", "--no-gates")
    run = together(*arguments, "--stage", "fit", "--collection", source.path)
    assert run.codes() == [0, 0], run.text("err")
    assert taken(RunDirectory(tmp_path / "own")) == taken(source)


def test_plan_counts_what_is_taken(source, tiny, tmp_path, call):
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny))
    arguments = ("--config", tmp_path / "tiny.yaml", "--work-dir", tmp_path / "own", "--dry-run")
    assert "N 10 checkpoints" in call("run", *arguments, "--collection", source.path).out
    refused = call("run", *arguments, "--collection", source.path, "--seed", 1)
    assert (refused.code, "(seed differ)" in refused.err) == (2, True)
    assert not (tmp_path / "own").exists()


def test_population_over_conditions_is_taken(conditional, closed, tmp_path, results):
    directory = RunDirectory(tmp_path / "own")
    run_pipeline(resolve(closed), directory, ORDER[:4], gates=False, collection=conditional.path)
    assert results(directory.path) == results(conditional.path)
