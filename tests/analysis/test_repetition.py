"""Figures over runs."""

import math

import pytest

from pdiff.analysis.repetition import interval_over_runs, over_runs


def test_interval_is_that_of_students_t():
    assert over_runs([0.1, 0.2, 0.3], "{:.3f}") == "0.200 (-0.048 to 0.448)"  # t of 2 degrees of freedom: 4.303


def test_one_run_has_no_interval():
    assert over_runs([0.25], "{:+.2f}") == "+0.25"


@pytest.mark.parametrize("values", [[], [None, 1.0], [math.inf, 1.0], [math.nan]])
def test_nothing_is_said_where_a_run_has_no_figure(values):
    assert over_runs(values) == ""


@pytest.mark.parametrize("values", [[0.7, 0.7, 0.7], [0.0, 0.0], [0.7, 0.7 + 1e-9]])
def test_what_is_the_same_in_all_runs_has_no_interval(values):
    assert interval_over_runs(values) is None
    assert "to" not in over_runs(values)
