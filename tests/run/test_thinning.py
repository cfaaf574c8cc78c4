"""An engine that is fitted to fewer checkpoints than there are."""

import numpy as np
import pytest

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.heldout import choose, heldout_record, rows_of, split_population
from pdiff.run.run import Run
from pdiff.run.thinning import thin
from pdiff.run.wanted import open_wanted
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import merge
from pdiff.stages.pipeline import run_pipeline

BRANCHES = np.repeat(np.arange(10), 10)


@pytest.fixture
def record() -> dict:
    """What is held out of ten branches of ten checkpoints."""
    return choose(0.3, BRANCHES, lambda: 1.0)


def grouped(groups) -> dict:
    """Return the record of checkpoints for conditions of which the first four are held out."""
    return {"rows": [0, 1, 2, 3], "gap": [], "by": "conditions", "line": "a line", "groups": list(groups)}


def test_without_a_number_the_record_is_as_it_was(record):
    assert thin(record, 100, None) == record


@pytest.mark.parametrize("num", [2, 7, 8, 35, 69, 70])
def test_as_many_are_fitted_as_it_says_and_the_rest_is_neither_fitted_nor_held_out(record, num):
    found = thin(record, 100, num)
    fitted = rows_of(found, 100)
    assert len(fitted) == num
    assert {key: found[key] for key in ("rows", "gap", "by")} == {key: record[key] for key in ("rows", "gap", "by")}
    assert sorted([*fitted, *found["spare"], *found["rows"]]) == list(range(100))
    assert found["line"] == (
        f"3 of 10 branches are held out, 30 of 100 checkpoints; the engine is fitted to {num} of the other 70 (fit.num)"
    )


@pytest.mark.parametrize("num", [7, 14, 20, 50])
def test_every_branch_has_its_share(record, num):
    shares = np.bincount(BRANCHES[rows_of(thin(record, 100, num), 100)], minlength=10)
    assert shares[[1, 5, 8]].tolist() == [0, 0, 0]
    assert np.ptp(np.delete(shares, [1, 5, 8])) <= 1


def test_where_nothing_is_held_out_the_line_says_both():
    found = thin(choose(0, BRANCHES, lambda: 1.0), 100, 10)
    assert found["line"] == (
        "none of 100 checkpoints is held out: fit.heldout is 0. Raise it; the engine is fitted to 10 of the other 100 "
        "(fit.num)"
    )


def test_more_than_there_are_is_refused(record):
    line = r"^fit\.num: got 71, expected at most 70, those that are not held out\. Lower it, or fit\.heldout\.$"
    with pytest.raises(PdiffError, match=line):
        thin(record, 100, 71)
    line = r"^fit\.num: got 7, expected at most 6, those for seen conditions\. Lower it, or fit\.split\.$"
    with pytest.raises(PdiffError, match=line):
        thin(grouped(range(10)), 10, 7)


def test_too_few_conditions_are_refused():
    found = thin(grouped(range(10)), 10, 3)
    assert found["line"] == "a line; the engine is fitted to 3 of the other 6 (fit.num), for 3 groups of conditions"
    line = r"^fit\.num: got 3, which are for 2 groups of conditions, expected at least 3\. Raise it\.$"
    with pytest.raises(PdiffError, match=line):
        thin(grouped([0, 1, 2, 3, 4, 4, 4, 5, 5, 5]), 10, 3)


def test_a_run_is_fitted_to_so_many_and_its_gates_say_so(finished, tiny, tmp_path, caplog):
    tiny["fit"] = {"num": 3}
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve(tiny), directory, ["fit"], gates=False, collection=finished.path)
    run = Run(resolve(tiny), directory)
    fitted, heldout = split_population(run)
    assert (len(fitted), len(heldout)) == (3, len(heldout_record(run)["rows"]))
    assert "a latent of 32 for 3 vectors" in caplog.text
    assert "fitted to 3 of the other" in (directory.folder("fit") / "gate.json").read_text()


def test_a_run_over_conditions_sees_so_many(conditional, closed, tmp_path):
    whole = Run(resolve(closed), conditional)
    values = merge(closed, {"fit": {"num": 10}})
    directory = RunDirectory(tmp_path / "run")
    run_pipeline(resolve(values), directory, gates=False, collection=conditional.path)
    wanted, before = open_wanted(Run(resolve(values), directory)), open_wanted(whole)
    assert (len(wanted.seen), len(before.seen)) == (10, 15)
    assert wanted.conditions.values.tolist() == before.conditions.values.tolist()
