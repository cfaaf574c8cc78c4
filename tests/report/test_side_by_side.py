import pytest

from pdiff.report.side_by_side import cells, print_comparison, write_comparison
from pdiff.run.comparison import read_runs
from pdiff.runtime.errors import PdiffError


@pytest.fixture
def runs(compared):
    fid = {"name": "FID", "higher_is_better": False, "chance": None}
    return read_runs([compared("one"), compared("two", metric=fid, gates=[], verdict_kind="copies")])


def test_row_says_metric_gains_similarity_and_cost(runs):
    assert cells(runs[0]) == [
        "one", "accuracy ↑", "0.5000", "0.5100", "+2.00 %", "+0.00 to +4.00 %", "average-like", "soup", "-2.00 %",
        "0.9500", "66",
    ]  # fmt: skip
    assert cells(runs[1])[1] == "FID ↓"


def test_run_without_baselines_has_empty_cells(compared):
    (run,) = read_runs([compared("one", comparisons={"trained": {"difference": 0.1, "ci": [0.0, 0.2]}})])
    assert cells(run)[7:9] == ["", ""]


def test_gain_without_an_interval_has_an_empty_cell_and_is_drawn(compared, tmp_path):
    figures = {"difference": 0.1, "ci": None}
    runs = read_runs([compared("one", comparisons={"trained": figures, "soup": figures})])
    assert cells(runs[0])[4:6] == ["+20.00 %", ""]
    assert write_comparison(runs, tmp_path / "page.html").is_file()


def test_printed_table_has_every_run_and_verdict(capsys, runs):
    print_comparison(runs)
    printed = capsys.readouterr().out
    assert "│ one " in printed
    assert "two: average-like: as good as <soup>" in printed


def test_page_is_one_file_with_a_picture_beside_it(tmp_path, runs):
    picture = write_comparison(runs, tmp_path / "new" / "page.html")
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert picture == tmp_path / "new" / "page.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in picture.parent.iterdir()) == ["page.html", "page.png"]
    assert page.count('<img src="data:image/png;base64,') == 3
    assert "failed checks: codec" in page
    assert "as good as &lt;soup&gt;" in page
    assert "<script" not in page


def test_folder_that_cannot_be_written_is_named(tmp_path, runs):
    (tmp_path / "file").write_text("")
    with pytest.raises(PdiffError, match=r"page.png: cannot be written"):
        write_comparison(runs, tmp_path / "file" / "page.html")


def test_page_leads_to_the_reports_that_exist(tmp_path, runs):
    (tmp_path / "one" / "report" / "report.html").write_text("")
    write_comparison(runs, tmp_path / "out" / "page.html")
    page = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert '<a href="../one/report/report.html">one</a>' in page
    assert page.count("<a ") == 1
