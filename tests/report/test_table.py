import pytest

from pdiff.report.table import COLUMNS, cells, markdown_table, print_table

ROW = {
    "n": 3, "best": 0.9, "best_ci": [0.85, 0.95], "mean": 0.8, "std": 0.1, "median": 0.8, "worst": 0.7,
    "similarity": 0.5, "distance": 1.25, "spread": None,
}  # fmt: skip
SUMMARY = {
    "metric": {"name": "FID", "higher_is_better": False},
    "verdict": "as it is",
    "sources": {"trained": ROW, "soup": {**ROW, "best_ci": None}},
}


def test_every_column_has_a_cell():
    assert len(cells("trained", ROW)) == len(COLUMNS)


def test_undefined_figures_are_empty():
    assert cells("soup", {**ROW, "best_ci": None})[3] == ""
    assert cells("soup", ROW)[-1] == ""


def test_markdown_has_verdict_sources_and_direction():
    text = markdown_table(SUMMARY)
    assert text.startswith("as it is\n")
    assert "| trained | 3 | 0.9000 | 0.8500 to 0.9500 |" in text
    assert "FID on the test split, lower is better" in text


def test_caption_names_the_facts_of_the_task_that_are_texts():
    facts = {"features": "own classifier", "network": {"sha256": "0a"}}
    text = markdown_table({**SUMMARY, "task": facts})
    assert "; features: own classifier" in text
    assert "0a" not in text.splitlines()[-1]


@pytest.mark.parametrize("width", ["60", "200"])
def test_printed_table_has_every_source(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    print_table(SUMMARY)
    printed = capsys.readouterr().out
    assert "trained" in printed
    assert "soup" in printed
    assert "as it is" in printed
