"""What a sweep has found."""

import pytest

from pdiff.sweep.results import lines_below, read_result, rows_of
from pdiff.sweep.setting import Setting


def setting(name, values, seed=None, of_fit=None) -> Setting:
    return Setting(name, values, seed, {"seed": 7, "fit": {"seed": of_fit}}, "all", frozenset())


@pytest.fixture
def results(compared, tmp_path):
    """One run that is done, one that went wrong, and one that is not there."""
    (tmp_path / "runs").mkdir(exist_ok=True)
    done = compared("runs/x=1")
    (done / "config.yaml").write_text("plugin: classification\nseed: 7\n")
    settings = [setting("x=1", {"x": {"type": "a"}}), setting("x=2", {"x": [1, 2]}, 0, 3), setting("gone", {})]
    return [read_result(tmp_path, each, "x: got 2" if each.name == "x=2" else None) for each in settings]


def test_row_has_values_seeds_status_and_figures_if_the_run_is_done(results):
    done, wrong, gone = rows_of(["x"], results)
    assert list(done)[:5] == ["run", "x", "seed", "fit.seed", "status"]
    assert list(done.values())[:5] == ["x=1", "a", 7, 7, "done"]
    assert list(wrong.values())[:5] == ["x=2", "[1, 2]", 7, 3, "x: got 2"]
    assert (done["generated.mean"], wrong["generated.mean"], gone["x"]) == (0.51, None, None)
    assert list(done) == list(wrong) == list(gone)


def test_run_without_figures_has_a_line(results, tmp_path):
    gone = (tmp_path / "runs" / "gone").resolve()
    assert results[2].line == f"{gone}: is no run directory. Give the --work-dir of a run."
    assert results[2].run is None


def test_what_is_below_the_table_counts_the_runs_that_are_in_no_figure(results):
    lines = lines_below("Seeds are of all.", results)
    assert lines[:3] == [
        "Seeds are of all.", "2 of 3 runs have not ended well, and are in none of the figures:", "x=2: x: got 2",
    ]  # fmt: skip
    assert lines_below("Seeds are of all.", results[:1]) == []


def test_finished_run_has_a_metric_and_means(results):
    assert results[0].metric["name"] == "accuracy"
    assert results[0].means["generated"] == 0.51
