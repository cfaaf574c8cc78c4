"""The bench of beginnings: how many steps from each to what a training for the condition reaches."""

import importlib.util
import math
import shutil
from pathlib import Path

import pytest

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.settings import merge
from pdiff.stages.pipeline import run_pipeline

FILE = Path(__file__).parents[2] / "tools" / "bench" / "starts.py"


@pytest.fixture(scope="module")
def tool():
    """The module of the tool."""
    spec = importlib.util.spec_from_file_location("starts", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair(closed, tmp_path) -> list[str]:
    """Two runs over conditions that differ in the seed, generated, and not evaluated yet."""
    paths = [tmp_path / "runs" / str(seed) for seed in (0, 1)]
    for seed, path in enumerate(paths):
        own = {"seed": seed, "evaluate": {"conditional": {"base": {"type": "base"}}}}
        run_pipeline(resolve(merge(closed, own)), RunDirectory(path), ["collect", "fit", "generate"], gates=False)
    return list(map(str, paths))


def rows(said: str) -> dict[str, list[str]]:
    """Return the cells of each row of the table by the first."""
    lines = [line[2:-2].split(" | ") for line in said.splitlines() if line.startswith("| ")]
    return {name: cells for name, *cells in lines}


def test_a_training_comes_nearer_to_the_oracle_and_the_best_rate_on_select_counts(tool, pair, tmp_path, capsys):
    given = ["--steps", "30", "2", "2", "--rates", "1e-5", "0.05", "--beginnings", "base", "ridge"]
    assert tool.main([*pair, *given, "--draw", str(tmp_path / "starts.png")]) == 0
    table = rows(capsys.readouterr().out)
    assert table["begun at"][:3] == ["0", "2", "30"], "in order, each once"
    base, ridge = ([float(cell) for cell in table[name][:3]] for name in ("base", "ridge"))
    assert base[0] < base[1] < base[2]
    assert base[2] - base[0] > 0.1, "at the rate 1e-5 nothing moves"
    assert ridge[0] > base[0]
    assert table["base"][-1].split(" (")[0] in ("1.00", "")
    assert (tmp_path / "starts.png").read_bytes()[1:4] == b"PNG"


def test_a_rate_that_drives_networks_to_infinity_is_left_out_and_said(tool, pair, capsys, caplog):
    given = ["--steps", "3", "--beginnings", "base"]
    assert tool.main([pair[0], *given, "--rates", "0.05"]) == 0
    expected = rows(capsys.readouterr().out)
    assert tool.main([pair[0], *given, "--rates", "1e38", "0.05"]) == 0
    assert rows(capsys.readouterr().out) == expected
    assert "base after 3 steps at the rate 1e+38 is left out: " in caplog.text
    assert tool.main([pair[0], *given, "--rates", "1e38"]) == 2
    assert "got NaN or infinity after 3 steps" in capsys.readouterr().err


def test_beginnings_that_a_run_lacks_are_no_default(tool, closed, pair, capsys):
    assert tool.main([pair[0], "--steps", "1", "--rates", "0.01"]) == 0
    assert list(rows(capsys.readouterr().out))[1:] == ["base", "soup", "nearest", "ridge", "kernel_ridge", "generated"]


def test_what_it_cannot_be_of_is_one_line(tool, pair, finished, tmp_path, capsys):
    shutil.copytree(pair[0], tmp_path / "copy")
    for arguments, words in (
        ([pair[0], tmp_path / "none"], "none: is no run directory. Give the --work-dir of a run."),
        ([finished.path], "has no conditions. Give runs whose checkpoints have."),
        ([pair[0], tmp_path / "copy"], "which are of one config, seed included, expected runs that differ. Leave one"),
        ([pair[0], pair[0]], "which are of one config, seed included, expected runs that differ. Leave one"),
        ([pair[0], "--beginnings", "base", "ridges"], "--beginnings: got 'ridges'. Did you mean 'ridge'?"),
        ([pair[0], "--steps", "0"], "starts.steps: got 0, expected an integer from 1 on."),
        ([pair[0], "--rates", "inf"], "starts.rates: got inf, expected a finite number from 0 on."),
    ):
        assert tool.main(list(map(str, arguments))) == 2, arguments
        assert words in capsys.readouterr().err


def test_a_plugin_without_the_hook_is_one_line(tool, closed, tmp_path, capsys):
    text = Path(closed["plugin"]).read_text()
    (tmp_path / "lacking.py").write_text(text.replace("@hookimpl\ndef loss", "def loss"))
    own = {**closed, "plugin": str(tmp_path / "lacking.py")}
    run_pipeline(resolve(own), RunDirectory(tmp_path / "run"), ["collect", "fit", "generate"], gates=False)
    assert tool.main([str(tmp_path / "run")]) == 2
    assert "run: the plugin lacking has no hook loss. Define it." in capsys.readouterr().err


def test_steps_to_the_oracle_lie_on_the_line_between_two_points(tool):
    assert tool.steps_to({0: -0.3, 8: -0.2, 16: 0.2, 32: -0.1}) == 12
    assert tool.steps_to({0: 0.0, 8: 0.1}) == 0
    assert tool.steps_to({0: -0.2, 8: -0.1}) == math.inf


def test_a_ratio_to_what_needs_no_step_is_left_empty(tool, capsys):
    tool.print_curves([{"base": {0: 0.1, 8: 0.2}, "soup": {0: -0.2, 8: 0.2}}], ["base", "soup"])
    table = rows(capsys.readouterr().out)
    assert table["soup"] == ["-0.2000", "+0.2000", "4", ""]
