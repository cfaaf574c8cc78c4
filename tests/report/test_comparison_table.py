from pdiff.report import side_by_side, side_by_side_conditions
from pdiff.report.comparison_table import kind, markdown_rows, table
from pdiff.report.group_columns import Table
from pdiff.run.comparison import read_runs
from pdiff.run.grouping import group_runs


def test_runs_are_compared_by_their_kind(compared, compared_over_conditions):
    plain = group_runs(read_runs([compared("one")]))
    over = group_runs(read_runs([compared_over_conditions("two")]))
    assert (kind(plain), kind(over)) == (side_by_side, side_by_side_conditions)
    assert (table(plain).rows[0][0], table(over).rows[0][0]) == ("one", "two")


def test_markdown_has_words_at_the_left_and_the_caption_below():
    made = Table(["run", "mean"], [0], [["a|b", "0.5"]], "What it means.")
    assert markdown_rows(made) == "| run | mean |\n| --- | ---: |\n| a\\|b | 0.5 |\n\nWhat it means.\n"
