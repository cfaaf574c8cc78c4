import pytest

from pdiff.report.table import WIDTH, columns, fitting, markdown_table, print_table, rows, signed, table_width


def cell(summary, source, title):
    shown = columns(summary)
    titles = ["source", *(column.title for column in shown)]
    return next(line for line in rows(summary, shown) if line[0] == source)[titles.index(title)]


def test_figures_that_do_not_exist_are_empty(made):
    summary, _ = made()
    assert cell(summary, "ensemble", "distance") == ""
    assert cell(summary, "ensemble", "spread") == ""
    assert cell(summary, "soup", "mean, 95 %") == ""
    assert cell(summary, "noise_absolute", "worst") == ""


def test_choice_among_the_budget_stands_under_its_number(made):
    summary, _ = made()
    assert cell({**summary, "budget": 17}, "soup", "best of 17") == "0.8720"


def test_dead_candidates_have_a_column_only_where_there_are_any(made):
    summary, _ = made()
    assert cell(summary, "noise_absolute", "dead") == "5"
    summary["sources"]["noise_absolute"]["dead"] = 0
    assert "dead" not in [column.title for column in columns(summary)]


def test_markdown_has_verdict_sources_and_direction(made):
    summary, _ = made(higher=False)
    text = markdown_table(summary)
    assert text.startswith(summary["verdict"])
    assert "| soup | 1 | 0 | 5.1200 | 5.1000 to 5.1400 |" in text
    assert "FID on the test split, lower is better" in text


@pytest.mark.parametrize("width", [60, 80, 100, WIDTH, 200])
def test_table_fits_every_terminal(made, width):
    summary, _ = made()
    shown = fitting(summary, width)
    assert table_width(summary, shown) <= width
    assert {"mean", "similarity"} <= {column.title for column in shown}


def test_wide_terminal_has_every_column(made):
    summary, _ = made()
    assert len(fitting(summary, 200)) == len(columns(summary))


def test_caption_names_the_facts_of_the_task_that_are_texts(made):
    facts = {"features": "own classifier", "network": {"sha256": "0a"}}
    summary, _ = made()
    text = markdown_table({**summary, "task": facts})
    assert "; features: own classifier" in text
    assert "0a" not in text.splitlines()[-1]


@pytest.mark.parametrize("width", ["60", "200"])
def test_printed_table_has_every_source_whole(capsys, monkeypatch, made, width):
    summary, _ = made()
    monkeypatch.setenv("COLUMNS", width)
    print_table(summary)
    printed = capsys.readouterr().out
    assert all(f"│ {source} " in printed for source in summary["sources"])
    assert "…" not in printed
    assert " ".join(summary["verdict"].split()) in " ".join(printed.split())


@pytest.mark.parametrize(("text", "expected"), [("0.1", "+0.1"), ("-0.1", "-0.1"), ("", "")])
def test_sign_is_shown(text, expected):
    assert signed(text) == expected
