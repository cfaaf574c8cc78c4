import pytest

from pdiff.report.side_by_side import (
    CAPTION,
    TITLES,
    WORDS,
    cells,
    parts_that_fit,
    print_comparison,
    print_rows,
    table,
    write_comparison,
)  # fmt: skip
from pdiff.run.comparison import read_runs
from pdiff.run.grouping import group_runs
from pdiff.runtime.errors import PdiffError

PASSED = [{"stage": "fit", "name": "codec", "passed": True, "line": "codec: as it was", "figures": {}}]
FAILED = [{"stage": "fit", "name": "codec", "passed": False, "line": "codec: too small", "figures": {}}]


def grouped(paths):
    return group_runs(read_runs(paths))


def sources(trained, generated, similarity=0.9):
    return {
        "trained": {"mean": trained, "select": trained, "similarity": 0.99},
        "generated": {"mean": generated, "select": generated, "similarity": similarity},
    }


@pytest.fixture
def seeded(compared):
    """Return a function that writes runs of seeds 0, 1, ... of one setting."""

    def write(name, latent, summaries):
        paths = [compared(f"{name}{seed}", **{"gates": PASSED, **changes}) for seed, changes in enumerate(summaries)]
        for seed, path in enumerate(paths):
            config = f"plugin: classification\nseed: {seed}\nengine: {{autoencoder: {{latent: {latent}}}}}\n"
            (path / "config.yaml").write_text(config)
        return paths

    return write


@pytest.fixture
def runs(compared):
    fid = {"name": "FID", "higher_is_better": False, "chance": None}
    return grouped([compared("one", gates=PASSED), compared("two", metric=fid, gates=[], verdict_kind="copies")])


def test_row_says_metric_gains_similarity_and_cost(runs):
    assert cells(runs[0]) == [
        "one", "accuracy ↑", "0.5000", "0.5100", "+2.00 %", "+0.00 to +4.00 %", "average-like", "soup", "-2.00 %",
        "0.9500", "66",
    ]  # fmt: skip
    assert cells(runs[1])[1] == "FID ↓"


def test_run_without_baselines_has_empty_cells(compared):
    (run,) = grouped([compared("one", comparisons={"trained": {"difference": 0.1, "ci": [0.0, 0.2]}})])
    assert cells(run)[7:9] == ["", ""]


def test_gain_without_an_interval_has_an_empty_cell_and_is_drawn(compared, tmp_path):
    figures = {"difference": 0.1, "ci": None}
    runs = grouped([compared("one", comparisons={"trained": figures, "soup": figures})])
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
    assert "as good as &lt;soup&gt;" in page
    assert "<script" not in page


def test_figures_of_a_group_are_means_and_its_interval_is_over_runs(seeded):
    gains = [{"trained": {"difference": value, "ci": [0.0, 1.0]}} for value in (0.01, 0.02, 0.03)]
    runs = seeded(
        "run", 8,
        [
            {"sources": sources(0.5, 0.51, 0.8), "comparisons": gains[0], "verdict_kind": "as good"},
            {"sources": sources(0.5, 0.52, 0.9), "comparisons": gains[1], "verdict_kind": "as good"},
            {"sources": sources(0.5, 0.53, 1.0), "comparisons": gains[2], "verdict_kind": "not decided"},
        ],
    )  # fmt: skip
    # Student's t of two degrees of freedom, 4.303, times 2 % / sqrt(3).
    assert cells(*grouped(runs)) == [
        "run", "accuracy ↑", "0.5000", "0.5200", "+4.00 %", "-0.97 to +8.97 %", "2 as good, 1 not decided", "", "",
        "0.9000", "66",
    ]  # fmt: skip


def test_strongest_baselines_of_a_group_are_counted(seeded):
    first = {"soup": {"difference": 0.01, "ci": None}, "trained": {"difference": 0.01, "ci": None}}
    rows = {**sources(0.5, 0.5), "soup": {"mean": 0.5, "select": 0.5, "similarity": None}}
    other = {**rows, "noise": {"mean": 0.5, "select": 0.6, "similarity": None}}
    second = {**first, "noise": {"difference": 0.03, "ci": None}}
    summaries = [{"sources": rows, "comparisons": first}] * 2 + [{"sources": other, "comparisons": second}]
    assert cells(*grouped(seeded("run", 8, summaries)))[7:9] == ["2 soup, 1 noise", "+3.33 %"]


def test_table_has_seeds_keys_and_gates_where_runs_repeat(seeded):
    failing = [{}, {"gates": FAILED}]
    found = table(grouped([*seeded("a", 8, [{}, {}]), *seeded("b", 16, failing)]))
    assert found.titles == ["run", "seeds", "latent", *TITLES[1:], "gates"]
    assert [(row[:3], row[-1]) for row in found.rows] == [
        (["latent=8", "2", "8"], "passed"), (["latent=16", "2", "16"], "codec (1 of 2)"),
    ]  # fmt: skip
    assert [found.titles[place] for place in found.words] == ["run", "metric", "verdict", "strongest", "gates"]
    assert "latent: engine.autoencoder.latent" in found.caption
    assert "intervals Student's t over them" in found.caption


def test_table_of_single_runs_of_several_plugins_has_no_more_columns(runs):
    found = table(runs)
    assert (found.titles, found.words, found.caption) == (list(TITLES), list(WORDS), CAPTION)


def test_gates_are_a_column_where_one_failed(compared):
    found = table(grouped([compared("one"), compared("two", gates=PASSED)]))
    assert found.titles == [*TITLES, "gates"]
    assert [row[-1] for row in found.rows] == ["codec", "passed"]
    assert "gates: those that failed" in found.caption


def test_printed_table_of_groups_fits_and_tells_every_run(capsys, seeded):
    print_comparison(grouped([*seeded("a", 8, [{}, {}]), *seeded("b", 16, [{}, {"gates": FAILED}])]))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 132
    assert all(word in printed for word in ("latent=16", "codec (1 of 2)", "seeds", "strongest"))
    assert all(f"{name}: average-like" in printed for name in ("a0", "a1", "b0", "b1"))


def test_page_of_groups_has_a_row_and_kinds_per_group_and_a_line_per_run(tmp_path, seeded):
    groups = grouped(seeded("a", 8, [{"verdict_kind": "worse"}, {"verdict_kind": "worse"}, {"gates": FAILED}]))
    (tmp_path / "a1" / "report" / "report.html").write_text("")
    write_comparison(groups, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "3 runs side by side" in page
    assert page.count('<th scope="row">') == 1
    assert '<span class="kind bad">2 worse</span>' in page
    assert '<span class="kind middling">1 average-like</span>' in page
    assert '<a href="a1/report/report.html">a1</a>: ' in page
    assert page.count("failed checks: codec") == 1


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


def test_brackets_are_printed_as_they_are(capsys):
    print_rows(["only", "x [red]"], [0], [["[ridge]", "1"]], "caption [bold]", ["Write [soup]."])
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("[ridge]", "x [red]", "caption [bold]", "Write [soup]."))


def test_table_too_wide_is_several_with_the_first_column_each():
    titles, rows = ["run", "over\n95 %", "verdict"], [["latent=8", "+1.9 %\n+1.90 to +2.00 %", "as good as that"]]
    assert parts_that_fit(titles, rows, 49, whole=True) == [[0, 1, 2]]
    assert parts_that_fit(titles, rows, 48, whole=True) == [[0, 1], [0, 2]]
    assert parts_that_fit(titles, rows, 48, whole=False) == [[0, 1, 2]]
    assert parts_that_fit(titles, rows, 29, whole=False) == [[0, 1], [0, 2]]
    assert parts_that_fit(titles, rows, 5, whole=True) == [[0, 1], [0, 2]]
    assert parts_that_fit(["run"], [["a"]], 5, whole=True) == [[0]]


def test_caption_says_whose_seeds_are_of_one_population(seeded):
    paths = seeded("a", 8, [{}, {}]) + seeded("b", 16, [{}, {}])
    assert "on one population" not in table(grouped(paths)).caption
    for seed, path in enumerate(paths[2:]):
        config = f"plugin: classification\nseed: 0\nfit: {{seed: {seed}}}\nengine: {{autoencoder: {{latent: 16}}}}\n"
        (path / "config.yaml").write_text(config)
    alone = "of fitting and drawing alone, on one population"
    assert f"seeds of latent=16: {alone}" in table(grouped(paths)).caption
    assert f"seeds of all: {alone}" in table(grouped(paths[2:])).caption
