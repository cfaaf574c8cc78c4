"""The bench of many networks for conditions."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
SUBSETS = {
    "plugin": "classification",
    "device": "cpu",
    "select": "all",
    "task": {
        "network": {"type": "mlp", "hidden": [8]},
        "data": {"type": "digits", "size": 8, "train": 96, "select": 64},
        "conditions": {"type": "subsets", "limit": 6},
    },
    "collect": {"networks": {"steps": 20, "batch_size": 32, "eps": 1e-2}},
}


@pytest.fixture
def call(tmp_path):
    """Return a function that calls the bench at a tiny size."""
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(SUBSETS))

    def bench(*arguments: object) -> subprocess.CompletedProcess:
        tiny = ("--config", config, "--networks", 5, "--steps", 2, "--repeats", 1)
        tool = [sys.executable, ROOT / "tools" / "bench" / "conditions.py", *tiny, *arguments]
        return subprocess.run([*map(str, tool)], capture_output=True, text=True, check=False)

    return bench


def test_many_networks_at_once_are_those_one_by_one_and_a_new_condition_takes_no_training(call, conditional):
    done = call("--all", "--run", conditional.path)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    figures = {row[0]: row[1:] for row in rows if row[0] != "---"}
    measured = ("generated", "train, 2 steps", "evaluate")
    assert all(float(cell) > 0 for name in measured for cell in figures[name]), figures
    assert "\n5 networks: both trainings lie " in done.stdout
    assert "\nall 6 networks: " in done.stdout


def test_run_without_conditions_is_refused_in_one_line(call, finished):
    done = call("--run", finished.path)
    assert done.returncode == 2
    line = f"error: --run: the checkpoints of {finished.path} have no conditions. Give a run whose checkpoints have."
    assert done.stderr.splitlines()[-1] == line
