"""The bench that counts what a run makes a GPU wait for."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pdiff.run.config import load_config
from pdiff.task.defaults import LoadParams
from pdiff.task.replay import Replay
from pdiff.task.task import Candidates
from pdiff.weights.layout import Layout

FILE = Path(__file__).parents[2] / "tools" / "bench" / "copies.py"


@pytest.fixture(scope="module")
def tool():
    """The module of the tool."""
    spec = importlib.util.spec_from_file_location("copies", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_step_counts_what_more_steps_do_beyond_fewer(tool):
    gpu = SimpleNamespace(copies_to_device=0, copies_to_host=0, syncs=0)
    gpu.reset = lambda: vars(gpu).update(copies_to_device=7, copies_to_host=0, syncs=0)

    def work(steps):
        gpu.copies_to_device += steps
        gpu.syncs += 3 * steps

    number, counts = tool.each(gpu, work)
    assert tool.row("a step", number, counts) == f"| a step | {number} | 1.00 | 0.00 | 3.00 |"


def test_what_replays_a_batch_is_counted_by_its_candidates(tool):
    layout = Layout.of({"weight": torch.empty(1, 1)})
    replay = Replay(nn.Linear(1, 1, bias=False).eval(), Candidates(torch.randn(3, 1), layout, LoadParams().load_params))
    with tool.counted_passes() as passes:
        assert len(list(replay(torch.ones(2, 1)))) == 3
    assert passes == [3]
    assert len(list(replay(torch.ones(2, 1)))) == 3
    assert passes == [3]


def test_the_tiny_runs_are_of_all_tasks_and_take_no_unknown_key(tool):
    assert tool.TASKS == ("classification", "detection", "generation", "segmentation")
    for task in tool.TASKS:
        assert load_config(None, str(tool.TINY / f"{task}.yaml"), {}, tool.SMALLER[task]).plugin == task


@pytest.mark.slow
def test_every_row_is_counted(tool, capsys):
    assert tool.main(["--tasks", "classification", "--presets", "fast"]) == 0
    titles, _, *rows = capsys.readouterr().out.splitlines()
    assert titles == f"| {' | '.join(tool.TITLES)} |"
    assert [row.split(" | ")[0] for row in rows] == [
        "| classification: a candidate on a split",
        "| classification: a candidate on one more batch",
        "| fast: a step of the denoiser's training",
        "| fast: a step of DDIM",
        "| fast: a step of DDPM",
        "| fast: a step of DPM-Solver++",
    ]
    assert rows[1].endswith(" | 0.00 | 0.00 | 0.00 |")
    assert all(row.endswith(" | 10 | 0.00 | 0.00 | 0.00 |") for row in rows[3:])
