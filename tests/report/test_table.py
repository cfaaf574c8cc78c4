import re

import pytest

from pdiff.report import conditional_table
from pdiff.report.candidate_table import columns, remarks
from pdiff.report.cells import WIDTH
from pdiff.report.table import markdown_table, print_table, rows


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
    assert "| soup | 1 | 1 | 0 | 5.1200 | 5.1000 to 5.1400 |" in text
    assert "FID on the test split, lower is better" in text


def test_markdown_has_what_was_found_and_what_could_not_be_tested_below_the_verdict(made):
    summary, _ = made()
    lines = [line for line in markdown_table(summary).splitlines() if line.startswith("- ")]
    assert lines == [f"- {summary['baselines']}", f"- {summary['novelty']['line']}", f"- note: {summary['notes'][0]}"]
    assert remarks({**summary, "baselines": "", "notes": []}) == [summary["novelty"]["line"]]


def test_candidates_are_told_with_what_they_are_worth(made):
    summary, _ = made()
    assert cell(summary, "trained", "worth") == "12"
    assert cell(summary, "soup", "worth") == "1"


def test_what_is_new_and_good_has_a_column_and_a_line_in_a_zoo_alone(made):
    summary, _ = made()
    assert "new and good" not in markdown_table(summary)
    for name, row in summary["sources"].items():
        row["novel"] = None if name == "ensemble" else 0.25
    zoo = {**summary, "novel": {"sources": {"generated": {"shares": [0.5, 0.25, 0.0]}}}}
    assert cell(zoo, "generated", "new and good") == "25 %"
    assert cell(zoo, "ensemble", "new and good") == ""
    text = markdown_table(zoo)
    assert "- new and good at once: of the generated 50% at 0.5, 25% at 1, 0% at 2 times" in text
    assert "as far from every trained network as these are from each other" in text.splitlines()[-1]


def test_what_was_asked_of_the_generated_stands_beside_what_they_have(made):
    summary, _ = made()
    target = {"names": ["accuracy", "step"], "quantile": 0.95, "wanted": [0.9, 7.0], "measured": [0.88, None]}
    line = "asked of the generated: accuracy 0.9000 (they have 0.8800 on select), step 7.0000, the 95 % quantile of"
    assert f"- {line} the fitted\n" in markdown_table({**summary, "target": target})


@pytest.fixture
def printed(capsys, monkeypatch):
    """Return what a terminal of so many characters shows of a summary."""

    def show(summary, width):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        print_table(summary)
        return re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)

    return show


def test_caption_names_the_facts_of_the_task_that_are_texts(made):
    facts = {"features": "own classifier", "network": {"sha256": "0a"}}
    summary, _ = made()
    text = markdown_table({**summary, "task": facts})
    assert "; features: own classifier" in text
    assert "0a" not in text.splitlines()[-1]


@pytest.mark.parametrize("width", [60, 80, 100, WIDTH, 160])
def test_printed_table_fits_and_has_every_source_and_number_whole(printed, made, width):
    summary, _ = made()
    shown = printed(summary, width)
    assert max(map(len, shown.splitlines())) <= width
    assert all(f"│ {source} " in shown for source in summary["sources"])
    assert all(f" {row['mean']:.4f} " in shown for row in summary["sources"].values())
    assert " similarity " in shown
    assert "…" not in shown
    words = " ".join(shown.split())
    assert all(" ".join(line.split()) in words for line in (summary["verdict"], *remarks(summary)))


@pytest.mark.parametrize("width", [60, 80, 100, WIDTH, 160])
def test_printed_table_over_conditions_fits_and_has_every_source_and_number_whole(printed, made_conditional, width):
    summary = made_conditional(draws=width == 160)
    shown = printed(summary, width)
    assert max(map(len, shown.splitlines())) <= width
    assert all(f"│ {label} " in shown for label in conditional_table.labels(summary).values())
    assert all(f" {row['mean']:.4f} " in shown for row in summary["sources"].values())
    assert " seconds " in shown
    assert "…" not in shown
    words = " ".join(shown.split())
    lines = (summary["verdict"], *conditional_table.remarks(summary))
    assert all(" ".join(line.split()) in words for line in lines)


def test_wide_terminal_shows_every_column(printed, made):
    summary, _ = made()
    head = printed(summary, 170).splitlines()[1]
    assert all(f" {column.title} " in head for column in columns(summary))


def test_wide_terminal_shows_every_column_over_conditions(printed, made_conditional):
    summary = made_conditional(draws=True)
    head = printed(summary, 200).splitlines()[1]
    assert all(f" {column.title} " in head for column in conditional_table.columns(summary))
