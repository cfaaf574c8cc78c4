import pytest

from pdiff.report.side_by_side_conditions import (
    TITLES,
    best_label,
    cells,
    print_comparison,
    table,
    time_text,
    trade,
    write_comparison,
)  # fmt: skip
from pdiff.run.comparison import read_runs
from pdiff.run.grouping import group_runs

FID = {
    "oracle": (4.0, 100.0), "finetuned": (5.0, 99.0), "ridge": (8.0, 1.0), "nearest": (10.0, 0.0), "generated": (6, 2.0)
}  # fmt: skip
DEAD = {"oracle": (0.8, None), "ridge": (None, None), "generated": (None, 1.0)}
FAILED = [{"stage": "fit", "name": "codec", "passed": False, "line": "codec: too small", "figures": {}}]
FEW = {"unseen": 7, "groups": {"seen": 20, "select": 7, "unseen": 7}}


def grouped(paths):
    return group_runs(read_runs(paths))


@pytest.fixture
def seeded(compared_over_conditions):
    """Return a function that writes runs of seeds 0, 1, ... of one setting, by their sources and other changes."""

    def write(name, latent, summaries):
        paths = [
            compared_over_conditions(f"{name}{seed}", sources, **changes)
            for seed, (sources, changes) in enumerate(summaries)
        ]
        for seed, path in enumerate(paths):
            config = f"plugin: classification\nfit: {{seed: {seed}}}\nengine: {{autoencoder: {{latent: {latent}}}}}\n"
            (path / "config.yaml").write_text(config)
        return paths

    return write


@pytest.fixture
def runs(compared_over_conditions):
    write = compared_over_conditions
    return grouped(
        [write("one"), write("two", FID, higher=False), write("three", DEAD, best_source=None, verdict_kind="dead")]
    )


def test_row_says_how_close_in_what_time_and_where_the_generated_stand(runs):
    assert cells(runs[0]) == [
        "one", "accuracy ↑", "40 / 20", "0.8000", "ridge", "0.7600", "-5.00 %", "-6.00 to -4.00 %", "1/100", "0.7200",
        "2 of 4", "-50.00 %", "90 %", "behind",
    ]  # fmt: skip


def test_row_of_a_metric_of_which_less_is_better_is_below_0_where_worse(runs):
    assert cells(runs[1])[1] == "FID ↓"
    assert cells(runs[1])[6] == "-100.00 %"


def test_run_without_a_best_source_has_blanks(runs):
    assert cells(runs[2]) == ["three", "accuracy ↑", "40 / 20", "0.8000", *[""] * 9, "dead"]


def test_conditions_that_are_no_groups_are_counted_alone(compared_over_conditions):
    (run,) = grouped([compared_over_conditions("one", conditions=FEW)])
    assert cells(run)[2] == "7"


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, ""), (1.904, "190 %"), (0.1, "10 %"), (0.04, "1/25"), (0.000446, "1/2,200"), (0.0, "0 %")],
)
def test_times_are_told_in_per_cent_or_as_a_fraction(share, text):
    assert time_text(share) == text


def test_points_are_shares_of_the_oracle_without_what_nobody_can_have(runs):
    points = {"oracle": (1.0, 100.0), "ridge": (0.01, 95.0), "generated": (0.02, 90.0), "base": (0.0001, 50.0)}
    assert list(trade(runs[0])) == list(points)
    assert all(trade(runs[0])[name] == pytest.approx(point) for name, point in points.items())


def test_points_without_a_time_or_a_living_network_are_left_out(runs):
    assert list(trade(runs[1])) == ["oracle", "finetuned", "generated", "ridge"]
    assert trade(runs[2]) == {}


def test_points_stand_at_seconds_where_the_oracles_are_not_known(compared_over_conditions):
    (run,) = grouped([compared_over_conditions("one", {"oracle": (0.8, None), "generated": (0.4, 2.0)})])
    assert trade(run) == {"generated": (2.0, 50.0)}


def test_printed_table_fits_and_has_every_run_and_verdict(capsys, runs):
    print_comparison([*runs, runs[0]])
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 132
    assert any("│ one " in line for line in printed)
    assert any("gain reached" in line for line in printed)
    assert "two: behind <ridge>: the best on select conditions" in printed


def test_columns_of_a_base_are_shown_only_where_there_is_one(capsys, runs):
    print_comparison(runs[1:])
    assert "base" not in capsys.readouterr().out


def test_checks_that_were_ignored_and_few_groups_are_noted(capsys, compared_over_conditions, tmp_path):
    runs = grouped([compared_over_conditions("one", gates=FAILED, conditions=FEW)])
    print_comparison(runs)
    printed = capsys.readouterr().out
    assert "one: note: failed checks, which were ignored: codec\n" in printed
    assert "one: note: its intervals are over 7 groups of conditions: too few to say much\n" in printed
    write_comparison(runs, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "failed checks: codec" in page
    assert "note: its intervals are over 7 groups" in page


def test_page_is_one_file_with_a_figure_per_run_and_a_picture_beside_it(tmp_path, runs):
    (tmp_path / "one" / "report" / "report.html").write_text("")
    picture = write_comparison(runs, tmp_path / "new" / "page.html")
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in picture.parent.iterdir()) == ["page.html", "page.png"]
    assert page.count('<img src="data:image/png;base64,') == 3
    assert '<a href="../one/report/report.html">one</a>' in page
    assert page.count("behind &lt;ridge&gt;") == 3
    assert "note: " not in page
    assert "<script" not in page


def test_one_run_is_a_comparison_too(tmp_path, runs):
    assert write_comparison(runs[:1], tmp_path / "page.html").is_file()


ONE = {"oracle": (0.8, 100.0), "base": (0.4, 0.01), "ridge": (0.76, 1.0), "generated": (0.72, 2.0)}
TWO = {"oracle": (0.8, 100.0), "base": (0.4, 0.01), "ridge": (0.68, 3.0), "generated": (0.70, 2.0)}


def test_figures_of_a_group_are_means_and_its_interval_is_over_runs(seeded):
    summaries = [(ONE, {}), (ONE, {}), (TWO, {"best_source": "generated", "verdict_kind": "level"})]
    # The gains are -5 %, -5 % and -12.5 %; Student's t of two degrees of freedom, 4.303, times 4.33 % / sqrt(3).
    assert cells(*grouped(seeded("run", 8, summaries))) == [
        "run", "accuracy ↑", "40 / 20", "0.8000", "2 ridge, 1 generated", "0.7400", "-7.50 %", "-18.26 to +3.26 %",
        "1/75", "0.7133", "1.7 of 3", "-50.00 %", "85 %", "2 behind, 1 level",
    ]  # fmt: skip


def test_group_with_a_run_without_a_figure_has_a_blank(seeded):
    row = cells(*grouped(seeded("run", 8, [(ONE, {}), (DEAD, {"best_source": None, "verdict_kind": "dead"})])))
    assert row[4:9] == ["1 ridge", "", "", "", ""]
    assert row[9:13] == ["", "", "", ""]
    assert row[13] == "1 behind, 1 dead"


def test_table_has_seeds_keys_and_gates_where_runs_repeat(seeded, capsys):
    groups = grouped([*seeded("a", 8, [(FID, {})] * 2), *seeded("b", 16, [(FID, {"gates": FAILED}), (FID, {})])])
    found = table(groups)
    shown = [title for title in TITLES[1:] if title not in ("base to oracle", "gain reached")]
    assert found.titles == ["run", "seeds", "latent", *shown, "gates"]
    assert [row[:3] + row[-1:] for row in found.rows] == [
        ["latent=8", "2", "8", "passed"], ["latent=16", "2", "16", "codec (1 of 2)"],
    ]  # fmt: skip
    assert [found.titles[place] for place in found.words] == ["run", "metric", "best ★", "verdict", "gates"]
    print_comparison(groups)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 132
    assert all(word in printed for word in ("latent=16", "codec (1 of 2)", "seeds", "b0: note: failed checks"))


def test_points_of_a_group_are_means_over_its_runs(seeded):
    (group,) = grouped(seeded("run", 8, [(ONE, {}), (TWO, {})]))
    points = {"oracle": (1.0, 100.0), "ridge": (0.02, 90.0), "generated": (0.02, 88.75), "base": (0.0001, 50.0)}
    assert all(trade(group)[name] == pytest.approx(point) for name, point in points.items())


def test_source_without_a_living_network_in_one_run_has_no_point(seeded):
    (group,) = grouped(seeded("run", 8, [(ONE, {}), ({**ONE, "ridge": (None, None)}, {"best_source": "generated"})]))
    assert list(trade(group)) == ["oracle", "generated", "base"]


def test_sources_that_are_best_in_some_runs_say_in_how_many(seeded, tmp_path):
    groups = grouped(seeded("run", 8, [(ONE, {}), (ONE, {}), (ONE, {"best_source": "generated"})]))
    assert best_label(*groups, "ridge") == "ridge ★ 2 of 3"
    assert best_label(*groups, "generated") == "generated ★ 1 of 3"
    assert best_label(*groups, "base") == "base"
    assert write_comparison(groups, tmp_path / "page.html").is_file()
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/png;base64,') == 1
