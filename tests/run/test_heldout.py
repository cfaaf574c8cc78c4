"""What is held out of a population, and that a run fits its engine to the rest."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.heldout import choose, choose_heldout, heldout_record, split_population
from pdiff.run.run import Run
from pdiff.stages.pipeline import run_pipeline
from pdiff.weights.origin import FILES, LINEAGES, UNKNOWN


def branches(count, length=10):
    return np.repeat(np.arange(count), length)


def chosen(share, labels, time=1.0):
    return choose(share, np.asarray(labels), lambda: time)


@pytest.mark.parametrize(
    ("share", "count", "held"),
    [(0.3, 10, [1, 5, 8]), (0.3, 4, [2]), (0.3, 2, [1]), (0.01, 3, [1]), (0.5, 4, [1, 3]), (0.5, 3, [0, 2])],
)
def test_whole_branches_are_held_out_evenly_spaced(share, count, held):
    found = chosen(share, branches(count))
    assert found["rows"] == np.flatnonzero(np.isin(branches(count), held)).tolist()
    assert (found["by"], found["gap"]) == ("branches", [])
    assert found["line"] == (
        f"{len(held)} of {count} branches are held out, {10 * len(held)} of {10 * count} checkpoints"
    )


def test_of_several_lineages_whole_ones_are_held_out_with_all_their_branches():
    records = [{"network": number, "branch": branch} for number in range(3) for branch in range(2) for _ in range(4)]
    population = SimpleNamespace(provenance=records, tensor=lambda: torch.zeros(len(records), 2))
    run = SimpleNamespace(collected=population, config=SimpleNamespace(fit=SimpleNamespace(heldout=0.3)))
    found = choose_heldout(run)
    assert found["rows"] == [*range(8, 16)]
    assert found["line"] == "1 of 3 lineages are held out, 8 of 24 checkpoints"
    assert "other lineages are too short" in choose(0.3, np.array([0, *[1] * 20]), lambda: 1, LINEAGES)["line"]


def test_branches_need_not_be_contiguous():
    assert chosen(0.5, [0, 1] * 10)["rows"] == list(range(1, 20, 2))


def test_of_one_branch_a_block_from_the_middle_is_held_out_between_gaps():
    found = chosen(0.3, branches(1, 100), time=4.2)
    assert found["rows"] == list(range(35, 65))
    assert found["gap"] == [*range(30, 35), *range(65, 70)]
    assert found["by"] == "block"
    assert found["line"].startswith("a block of 30 of 100 checkpoints is held out, with a gap of 5 on either side, ")
    assert found["line"].endswith("tells less than a branch of its own would (collect.branches)")


def test_a_block_is_at_least_as_long_as_the_checkpoints_depend_on_each_other():
    found = chosen(0.1, branches(1, 100), time=20)
    assert (len(found["rows"]), len(found["gap"])) == (20, 40)


@pytest.mark.parametrize(
    ("share", "labels", "time", "line"),
    [
        (0, branches(4), 1, "none of 40 checkpoints is held out: fit.heldout is 0. Raise it."),
        (0.3, branches(3, 3), 1, "none of 9 checkpoints is held out: that takes at least 10. Collect more, in "),
        (0.3, branches(1, 100), 19, "none of 100 checkpoints is held out: they are of one training, and depend on each "
         "other over 19 steps, so that too few would be left to fit to. Collect several branches (collect.branches)."),
        (0.3, [0, *[1] * 20], 1, "none of 21 checkpoints is held out: the other branches are too short to fit to. "),
    ],
)  # fmt: skip
def test_where_nothing_can_be_held_out_the_record_says_why(share, labels, time, line):
    found = chosen(share, labels, time)
    assert (found["rows"], found["gap"], found["by"]) == ([], [], "none")
    assert found["line"].startswith(line)


@pytest.mark.parametrize("origin", [FILES, UNKNOWN])
def test_of_files_no_record_speaks_of_a_collection(origin):
    cases = [(3, 3, 1), (1, 100, 19), (1, 100, 4), (3, 10, 1)]
    lines = [choose(0.3, branches(*sizes), lambda time=time: time, origin)["line"] for *sizes, time in cases]
    assert not any("collect" in line or "branch" in line for line in lines)
    assert ["unknown (checkpoints.lineage)" in line for line in lines] == [False, *[origin is UNKNOWN] * 2, False]
    assert lines[3].startswith("1 of 3 trainings")


def test_at_least_a_third_is_left_to_fit_to():
    assert chosen(0.3, branches(1, 100), 18)["by"] == "block"
    assert len(chosen(0.3, branches(1, 100), 18)["rows"]) == 30


def test_the_time_of_several_branches_is_not_computed():
    choose(0.3, branches(2), None)


def test_a_run_is_split_by_its_branches(tiny, tmp_path):
    tiny["collect"] |= {"branches": 3, "finetune": {**tiny["collect"]["finetune"], "steps": 10}}
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve(tiny), directory, ORDER[:2], gates=False)
    run = Run(resolve(tiny), directory)
    fitted, heldout = split_population(run)
    assert heldout.rows.tolist() == heldout_record(run)["rows"] == list(range(10, 20))
    assert fitted.rows.tolist() == [*range(10), *range(20, 30)]


def test_the_gap_of_a_run_is_neither_fitted_nor_held_out(tiny, tmp_path):
    tiny["collect"]["branches"] = 1
    tiny["collect"]["finetune"] |= {"steps": 40, "augment": [], "lr": 0.5}
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve(tiny), directory, ORDER[:2], gates=False)
    run = Run(resolve(tiny), directory)
    record, (fitted, heldout) = heldout_record(run), split_population(run)
    assert record["by"] == "block"
    assert sorted([*fitted.rows.tolist(), *record["gap"], *heldout.rows.tolist()]) == list(range(40))
