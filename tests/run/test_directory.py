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
