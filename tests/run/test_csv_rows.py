import csv
import io

from pdiff.run.comparison import read_runs
from pdiff.run.csv_rows import csv_rows, csv_text


def configured(path, text):
    (path / "config.yaml").write_text(f"plugin: classification\n{text}\n")
    return path


def test_row_has_names_seeds_values_and_figures(compared):
    paths = [configured(compared(f"run{seed}"), f"seed: {seed}\ngenerate: {{path: 4}}") for seed in (0, 1)]
    paths.insert(1, configured(compared("other"), "seed: 0\nfit: {seed: 7}\ngenerate: {path: 0}"))
    rows = csv_rows(read_runs(paths))
    assert [row["run"] for row in rows] == ["run0", "other", "run1"]
    assert [row["group"] for row in rows] == ["path=4", "other", "path=4"]
    assert [(row["seed"], row["fit.seed"]) for row in rows] == [(0, 0), (0, 7), (1, 1)]
    assert [row["generate.path"] for row in rows] == ["4", "0", "4"]
    assert rows[0]["generated.mean"] == 0.51


def test_rows_of_runs_with_other_sources_have_the_same_columns(compared_over_conditions):
    few = {"oracle": (0.8, 1.0), "ridge": (0.7, 1.0), "generated": (0.6, 1.0)}
    paths = [configured(compared_over_conditions("one"), "seed: 0")]
    paths += [configured(compared_over_conditions("two", few), "seed: 1")]
    one, two = csv_rows(read_runs(paths))
    assert list(one) == list(two)
    assert (one["base.mean"], two["base.mean"]) == (0.4, None)


def test_text_is_read_back_with_nothing_for_what_does_not_exist(compared):
    rows = csv_rows(read_runs([compared("one, two")]))
    (back,) = csv.DictReader(io.StringIO(csv_text(rows)))
    assert back == {name: "" if value is None else str(value) for name, value in rows[0].items()}
    assert (back["run"], back["soup.similarity"], back["seed"]) == ("one, two", "", "")
