import pytest

from pdiff.report.conditional_table import caption, columns, labels, obeys, ordered, remarks, seconds
from pdiff.report.table import markdown_table, rows


def titles(summary):
    return [column.title for column in columns(summary)]


def cell(summary, label, title):
    shown = columns(summary)
    return next(line for line in rows(summary, shown) if line[0] == label)[1 + titles(summary).index(title)]


@pytest.mark.parametrize("higher", [True, False])
def test_rows_begin_with_the_oracle_and_go_from_best_to_worst(made_conditional, higher):
    summary = made_conditional(higher)
    names = ordered(summary)
    assert names[:2] == ["oracle", "oracle_codec"]
    assert names[-2:] == ["soup", "generated_permuted"]


def test_source_without_a_living_network_comes_last_and_has_empty_cells(made_conditional):
    summary = made_conditional()
    nothing = dict.fromkeys(("mean", "ci", "std", "worst", "select", "to_oracle", "agreement", "spread"))
    summary["sources"]["ridge"] |= {**nothing, "dead": 102, "near": [], "obeys": {}}
    assert ordered(summary)[-1] == "ridge"
    assert rows(summary, columns(summary))[-1][:6] == ["ridge", "102 / 51", "102", "", "", ""]


def test_the_best_on_select_is_marked(made_conditional):
    summary = made_conditional()
    assert [label for label in labels(summary).values() if "★" in label] == ["kernel_ridge ★"]
    assert not [label for label in labels({**summary, "best_source": None}).values() if "★" in label]


def test_the_oracle_has_no_difference_to_itself(made_conditional):
    summary = made_conditional()
    assert cell(summary, "oracle", "to oracle") == ""
    assert cell(summary, "oracle", "to oracle, 95 %") == ""
    assert cell(summary, "nearest", "to oracle").startswith("-0.08")


def test_difference_has_its_sign(made_conditional):
    summary = made_conditional()
    summary["sources"]["ridge"]["to_oracle"]["difference"] = 0.01
    assert cell(summary, "ridge", "to oracle") == "+0.0100"


def test_columns_without_figures_are_left_out(made_conditional):
    summary = made_conditional()
    assert "dispersion" not in titles(summary)
    assert "dead" not in titles(summary)
    assert {"dispersion", "dead"} < set(titles(made_conditional(draws=True)))
    for row in summary["sources"].values():
        row["obeys"] = {}
    assert "obeys" not in titles(summary)


def test_conditions_that_are_no_groups_are_counted_alone(made_conditional):
    summary = made_conditional()
    for row in summary["sources"].values():
        row["units"] = row["n"]
    assert cell(summary, "soup", "n") == "102"
    assert "its interval over conditions" in caption(summary)


def test_obedience_is_the_mean_slope_of_what_was_measured():
    assert obeys({"obeys": {"a": {"slope": 1.0}, "b": {"slope": 0.5}, "c": {"slope": None}}}) == 0.75
    assert obeys({"obeys": {"a": {"slope": None}}}) is None
    assert obeys({"obeys": {}}) is None


@pytest.mark.parametrize(("value", "text"), [(None, ""), (2e-5, "< 0.001"), (0.0021, "0.0021"), (12.345, "12.3")])
def test_short_times_are_told_as_short(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(("higher", "words"), [(True, "accuracy, higher is better"), (False, "error, lower is better")])
def test_caption_says_the_direction_and_what_each_column_is(made_conditional, higher, words):
    summary = made_conditional(higher, draws=True)
    text = caption(summary)
    assert text.startswith(words)
    assert all(f"; {column.title}: {column.meaning}" in text for column in columns(summary))
    assert all(column.meaning for column in columns(summary))
    assert text.endswith("network: 64-32-2 <SiLU>; chance: of a constant answer")


def test_remarks_are_the_lines_on_conditions_and_the_notes(made_conditional):
    summary = made_conditional()
    assert remarks(summary) == [*summary["conditions"]["lines"], f"note: {summary['notes'][0]}"]


def test_markdown_has_verdict_remarks_and_the_best_marked(made_conditional):
    summary = made_conditional()
    text = markdown_table(summary)
    assert text.startswith(summary["verdict"])
    assert f"- {summary['conditions']['lines'][0]}\n" in text
    assert "\n| kernel_ridge ★ | 102 / 51 | 0.9" in text
