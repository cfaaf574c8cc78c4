import pytest

from pdiff.report.group_columns import Table, counted, mean_gain, mean_of, stacked
from pdiff.run.summaries import Gain


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["as good"], "as good"),
        (["as good", "as good"], "as good"),
        (["worse", "as good", "as good"], "2 as good, 1 worse"),
        (["", ""], ""),
        (["soup", ""], "1 soup"),
    ],
)
def test_words_of_several_runs_are_counted(words, text):
    assert counted(words) == text


def test_mean_is_none_where_a_run_has_no_figure():
    assert mean_of([1.0, 2.0]) == 1.5
    assert mean_of([1.0, None]) is None


def test_gain_of_one_run_is_its_own():
    own = Gain("trained", 0.1, (0.0, 0.3))
    assert mean_gain([own]) is own


def test_gain_of_several_runs_has_the_interval_over_them():
    gain = mean_gain([Gain("soup", 0.1, None), Gain("soup", 0.3, (0.0, 0.9))])
    assert (gain.source, gain.value) == ("soup", pytest.approx(0.2))
    assert gain.ends == pytest.approx((0.2 - 12.706 * 0.1, 0.2 + 12.706 * 0.1), abs=1e-3)


def test_gain_that_one_run_lacks_is_none():
    assert mean_gain([Gain("soup", 0.1, None), None]) is None


def test_added_columns_stand_three_below_one_another_and_gates_below_the_last():
    titles = ["run", "a", "b", "c", "d", "metric", "mean", "verdict", "gates"]
    found = stacked(Table(titles, [0, 5, 7, 8], [list("012345678")], "meaning"), ((0, 1), (2,), (3,)), 4)
    assert found.titles == ["run\nmetric", "a\nb\nc", "d", "mean", "verdict\ngates"]
    assert found.rows == [["0\n5", "1\n2\n3", "4", "6", "7\n8"]]
    assert (found.words, found.caption) == ([0, 4], "meaning")


@pytest.mark.parametrize(("added", "cell"), [(0, "2 a, 1 b\n5"), (1, "2 a,\n1 b\n5")])
def test_several_words_have_a_line_each_beside_added_columns(added, cell):
    made = Table(["run", *["seeds"] * added, "best", "mean"], [], [["x", *["3"] * added, "2 a, 1 b", "5"]], "")
    assert stacked(made, ((0,), (1, 2)), added).rows[0][-1] == cell


def test_gain_that_no_seed_changes_has_no_interval():
    assert mean_gain([Gain("soup", 0.1, (0.0, 0.2)), Gain("soup", 0.1, (0.0, 0.2))]) == Gain("soup", 0.1, None)
