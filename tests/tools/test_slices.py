"""The bench of all stages on larger and larger networks."""

import importlib.util
from pathlib import Path

import pytest

from pdiff.run.directory import ORDER

FILE = Path(__file__).parents[2] / "tools" / "bench" / "slices.py"


@pytest.fixture(scope="module")
def tool():
    """The module of the tool."""
    spec = importlib.util.spec_from_file_location("slices", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_line_through_two_lengths_gives_every_cost_of_a_third(tool):
    costs = tool.straight((10, {"fit": (1.0, 100, 5)}), (20, {"fit": (3.0, 300, 5)}), 40)
    assert costs == {"fit": (7.0, 700, 5)}


def test_a_collection_that_was_taken_costs_neither_time_nor_disk(tool):
    costs = dict.fromkeys(ORDER, (2.0, 10 ** 9, 10 ** 9))
    own, taken = tool.cells(costs, True), tool.cells(costs, False)
    assert own[1:-1] == taken[1:-1] == ["2 s, 1.00 GB"] * 4
    assert (own[0], own[-1]) == ("2 s, 1.00 GB", "5.00 GB")
    assert (taken[0], taken[-1]) == ("as above", "4.00 GB")


@pytest.mark.slow
def test_a_run_that_is_done_is_told_again_and_not_repeated(tool, tmp_path, capsys):
    arguments = [str(tmp_path / "runs"), "--networks", "tiny", "--engines", "fast"]
    assert tool.main(arguments) == 0
    stages = tmp_path / "runs" / "tiny_fast" / "stages.json"
    first, written = capsys.readouterr().out, stages.stat().st_mtime_ns
    assert tool.main(arguments) == 0
    again = capsys.readouterr().out
    row = next(line for line in first.splitlines() if line.startswith("| tiny | 283,474 | 20 | fast | "))
    assert row in again
    assert stages.stat().st_mtime_ns == written
