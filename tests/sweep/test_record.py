"""The record of the sweep in a folder."""

import pytest

from pdiff.run.directory import RunDirectory
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json
from pdiff.sweep.record import begin_sweep, pictures_of
from pdiff.sweep.setting import Setting
from pdiff.sweep.sweep import Sweep

SWEEP = {
    "plugin": "classification", "config": None, "options": {"a": (1, 2)}, "vary": [{"engine.x": [1, 2]}],
    "seeds": [0], "only": [], "collect_again": False,
}  # fmt: skip
SETTINGS = [Setting(name, {}, 0, {}, "all", frozenset()) for name in ("x=1", "x=2")]


def begin(folder, resume=False, overwrite=False, **changes):
    begin_sweep(folder, Sweep(**{**SWEEP, **changes}), SETTINGS, resume, overwrite)


def test_folder_says_what_is_swept_and_which_directories_are_its(tmp_path):
    begin(tmp_path / "s")
    record = read_json(tmp_path / "s" / "sweep.json")
    assert (record["vary"], record["runs"], record["collections"]) == ([{"engine.x": [1, 2]}], ["x=1", "x=2"], ["all"])


def test_folder_of_a_sweep_is_left_as_it_is_unless_something_says_what_to_do(tmp_path):
    begin(tmp_path)
    with pytest.raises(PdiffError, match="was swept before. Give --resume to go on, or --overwrite to repeat it.$"):
        begin(tmp_path)
    begin(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"vary": [{"engine.x": [1, 3]}]}, "vary"),
        ({"seeds": [0, 1], "only": ["soup"]}, "seeds, only"),
        ({"collect_again": True}, "collect_again"),
    ],
)
def test_another_sweep_does_not_go_on_and_what_differs_is_named(tmp_path, changes, names):
    begin(tmp_path)
    before = (tmp_path / "sweep.json").read_bytes()
    with pytest.raises(PdiffError) as error:
        begin(tmp_path, resume=True, **changes)
    line = f"{tmp_path}: is of another sweep ({names} differ)"
    assert str(error.value) == f"{line}. Give another --work-dir, or --overwrite to drop its runs."
    assert (tmp_path / "sweep.json").read_bytes() == before


def test_config_that_was_changed_since_is_one_line_and_nothing_is_lost(tmp_path):
    begin(tmp_path)
    run = RunDirectory(tmp_path / "runs" / "x=2")
    run.begin({"engine": {"x": 3}}, ["collect"], True, False)
    (run.folder("collect") / "branches").mkdir(parents=True)
    (run.folder("collect") / "branches" / "snapshot").write_text("some")
    (tmp_path / "table.md").write_text("figures")
    with pytest.raises(PdiffError) as error:
        begin(tmp_path, resume=True)
    line = f"{run.path}: was made with another config (engine.x differ). Set it as it was, give another --work-dir, or"
    assert str(error.value) == f"{line} --overwrite to drop all runs."
    assert (tmp_path / "table.md").read_text() == "figures"


def test_overwriting_drops_the_sweep_and_what_was_made_of_it_but_no_other_file(tmp_path):
    begin(tmp_path)
    for name in ("runs/x=1/a", "collections/all/a", "configs/x=1.yaml", "table.md", "sweep.csv", "x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    (tmp_path / "runs" / "mine").mkdir()
    (tmp_path / "mine.png").write_text("mine")
    begin(tmp_path, overwrite=True, vary=[{"engine.y": [1, 2]}])
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert kept == {"runs", "runs/mine", "collections", "mine.png", "sweep.json"}


@pytest.mark.parametrize("event", ["os.rename", "shutil.rmtree"])
def test_overwriting_that_is_killed_leaves_no_half_of_a_run(tmp_path, killed, event):
    begin(tmp_path)
    for name in ("runs/x=1", "runs/x=2", "collections/all"):
        for part in ("a/b", "c"):
            (tmp_path / name / part).mkdir(parents=True)
    where = tmp_path / ("runs/x=2" if event == "os.rename" else ".dropped")
    assert killed(lambda: begin(tmp_path, overwrite=True), event, where, 1)
    left = {path.name: sorted(part.name for part in path.iterdir()) for path in (tmp_path / "runs").iterdir()}
    assert left == {"x=2": ["a", "c"]}
    begin(tmp_path, resume=True)
    begin(tmp_path, overwrite=True)
    assert not [*(tmp_path / "runs").iterdir(), *(tmp_path / "collections").iterdir()]
    assert not (tmp_path / ".dropped").exists()


def test_pictures_are_called_by_the_shortest_names_of_their_keys(tmp_path):
    pictures = pictures_of(tmp_path, ["a.b.x", "c.y", "d.y"])
    assert pictures == {"a.b.x": tmp_path / "x.png", "c.y": tmp_path / "c.y.png", "d.y": tmp_path / "d.y.png"}
