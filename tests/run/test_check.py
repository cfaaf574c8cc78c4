import math

import pytest

from pdiff.run.check import Check, goodness, in_words, not_measured, share_lost, whole
from pdiff.task.task import Metric


def test_goodness_is_the_distance_from_chance_whatever_the_direction():
    assert goodness([0.9, 0.1], Metric("accuracy", chance=0.1)).tolist() == pytest.approx([0.8, 0.0])
    assert goodness([20.0, 300.0], Metric("fid", higher_is_better=False, chance=300.0)).tolist() == [280.0, 0.0]
    assert goodness([20.0, math.inf], Metric("fid", higher_is_better=False)).tolist() == [-20.0, -math.inf]


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [(0.8, 0.6, 0.25), (0.8, 0.9, 0.0), (-20.0, -30.0, 0.5), (0.0, 0.0, 0.0), (0.0, -1.0, math.inf)],
)
def test_share_lost_is_that_of_the_distance_before(before, after, lost):
    assert share_lost(before, after) == pytest.approx(lost)


def test_whole_names_chance_where_it_is_known():
    assert whole(Metric("accuracy", chance=0.1)) == "its distance from chance (0.1000)"
    assert whole(Metric("accuracy")) == "its value"


def test_figures_that_json_cannot_hold_become_null():
    record = Check("name", True, "line", {"a": math.nan, "b": math.inf, "c": 1, "d": "w"}).to_json("fit")
    assert record["figures"] == {"a": None, "b": None, "c": 1, "d": "w"}
    assert (record["stage"], record["name"], record["passed"], record["line"]) == ("fit", "name", True, "line")


def test_what_is_not_measured_holds_up_nobody():
    assert not_measured("runs", "why.") == Check("runs", True, "not measured: why.")


def test_a_metric_that_is_not_finite_is_told_in_words():
    assert [in_words(value) for value in (0.5, -math.inf, math.nan)] == ["0.5000", "nothing finite", "nothing finite"]
