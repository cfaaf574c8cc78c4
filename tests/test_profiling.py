"""Where the time of a stage went."""

import hashlib
import time
from pathlib import Path

import pytest
import torch
from pdiff_plugins.images.augment import build_augmentations

from pdiff.profiling import LONGEST, profiled, readable
from pdiff.report.page import report_page
from pdiff.run.config import resolve
from pdiff.run.directory import STAGES, RunDirectory
from pdiff.runtime.seeding import derive_seed
from pdiff.runtime.storage import read_json
from pdiff.stages.pipeline import run_pipeline


def slow():
    time.sleep(0.05)
    return torch.ones(50, 50) @ torch.ones(50, 50)


def test_profile_names_own_functions_with_what_they_call_and_compiled_operations_alone(tmp_path):
    with profiled(tmp_path / "profile.json"):
        slow()
        hashlib.sha256(bytes(10))
    profile = read_json(tmp_path / "profile.json")
    functions = {row["name"]: row for row in profile["functions"]}
    operations = {row["name"]: row for row in profile["operations"]}
    name = f"{Path(__file__).parent.name}/test_profiling.py: slow"
    assert functions[name]["calls"] == 1
    assert 0.04 < functions[name]["seconds"] <= profile["seconds"]
    assert operations["time.sleep"]["seconds"] > 0.04
    assert len(profile["functions"]) <= LONGEST
    assert "site-packages" not in str(profile)


def test_functions_of_pdiff_and_of_plugins_are_own_ones_where_libraries_lie(tmp_path, monkeypatch):
    monkeypatch.setattr("pdiff.profiling.LIBRARIES", ("/",))
    with profiled(tmp_path / "profile.json"):
        slow()
        derive_seed(0)
        build_augmentations([], "augment")
    names = {row["name"] for row in read_json(tmp_path / "profile.json")["functions"]}
    assert {"pdiff/seeding.py: derive_seed", "images/augment.py: build_augmentations"} <= names
    assert not any("slow" in name for name in names)


def test_profile_is_not_written_unasked_or_after_a_failure(tmp_path):
    with profiled(None):
        slow()
    with pytest.raises(KeyError), profiled(tmp_path / "profile.json"):
        raise KeyError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<built-in method torch.conv2d>", "torch.conv2d"),
        ("<built-in method torch._C._nn.linear>", "torch._C._nn.linear"),
        ("<method 'run_backward' of 'torch._C._EngineBase' objects>", "_EngineBase.run_backward"),
        ("<method 'append' of 'list' objects>", "list.append"),
    ],
)
def test_operations_have_readable_names(name, shown):
    assert readable(name) == shown


def test_profiled_run_has_every_stage_in_its_report_and_the_same_results(tmp_path, tiny, finished, results):
    directory = RunDirectory(tmp_path / "profiled")
    run_pipeline(resolve(tiny), directory, gates=False, profile=True)
    profiles = read_json(directory.folder("compare") / "profile.json")
    assert tuple(profiles) == STAGES
    page = (directory.folder("compare") / "report.html").read_text()
    assert "Where the time went" in page
    assert "stages/fit.py: fit" in page
    assert results(directory.path) == results(finished.path)


def test_report_of_a_run_without_profile_has_no_such_table(finished):
    folder = finished.folder("compare")
    page = report_page(folder, "run", read_json(folder / "summary.json"), [], "")
    assert "Where the time went" not in page
    assert not (folder / "profile.json").exists()
