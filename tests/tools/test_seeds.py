"""The table of runs that differ in the seed alone."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "tools" / "bench" / "seeds.py"


@pytest.fixture(scope="module")
def tool():
    """The module of the tool."""
    spec = importlib.util.spec_from_file_location("seeds", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_source_that_one_run_lacks_is_left_empty_there_and_in_the_mean(tool, compared, capsys):
    sources = {"trained": {"mean": 0.5, "select": 0.5}, "generated": {"mean": 0.6, "select": 0.6}}
    runs = [compared("one", environment={"seed": 1}), compared("two", environment={"seed": 2}, sources=sources)]
    figures = {"trained": {"difference": 0.01, "ci": None}}
    runs.append(compared("three", environment={"seed": 3}, sources=sources, comparisons=figures))
    assert tool.main(list(map(str, [runs[0], runs[2]]))) == 0
    title, _, *rows = capsys.readouterr().out.splitlines()
    place = title.split(" | ").index("soup")
    assert [row.split(" | ")[place] for row in rows] == ["0.5200", "", ""]
    assert [row.split(" | ")[place - 1] for row in rows] == ["0.5100", "0.6000", "0.5550"]


def test_what_is_no_finished_run_is_one_line(tool, compared, tmp_path, capsys):
    one = compared("one", environment={"seed": 1})
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("plugin: classification\n")
    for runs, words in (
        ([one, tmp_path / "none"], "none: is no run directory. Give the --work-dir of a run."),
        ([one, tmp_path / "begun"], "begun: is not compared yet. Finish the run: the same command with --resume."),
        ([one, one], "twice, expected different run directories. Leave one out."),
        ([compared("cut", verdict_kind=None) / "report"], "report: is no run directory."),
    ):
        assert tool.main(list(map(str, runs))) == 2
        assert words in capsys.readouterr().err
