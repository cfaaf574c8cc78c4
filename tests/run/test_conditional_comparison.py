import json

import pytest

from pdiff.run.comparison import read_runs
from pdiff.runtime.errors import PdiffError

FID = {
    "oracle": (4.0, 100.0), "base": (44.0, 0.01), "ridge": (8.0, 1.0), "generated": (5.0, 2.0),
    "generated_permuted": (1.0, 2.0),
}  # fmt: skip


def read(path):
    (run,) = read_runs([path])
    return run


def edit(path, change):
    file = path / "report" / "summary.json"
    summary = json.loads(file.read_text())
    change(summary)
    file.write_text(json.dumps(summary))
    return path


def test_gain_over_the_oracle_is_relative_to_its_mean(compared_over_conditions):
    gain = read(compared_over_conditions("one")).to_oracle("ridge")
    assert gain.value == pytest.approx(-0.05)
    assert gain.ends == pytest.approx((-0.06, -0.04))


def test_gain_is_below_0_where_worse_of_a_metric_of_which_less_is_better(compared_over_conditions):
    run = read(compared_over_conditions("one", FID, higher=False))
    assert run.to_oracle("ridge").value == pytest.approx(-1.0)


def test_time_is_a_share_of_the_oracles(compared_over_conditions):
    assert read(compared_over_conditions("one")).share("ridge") == pytest.approx(0.01)


@pytest.mark.parametrize("unknown", ["oracle", "ridge"])
def test_time_that_nobody_knows_is_no_share(compared_over_conditions, unknown):
    def forget(summary):
        summary["sources"][unknown]["seconds"] = None

    assert read(edit(compared_over_conditions("one"), forget)).share("ridge") is None


def test_generated_are_ranked_among_what_one_can_have(compared_over_conditions):
    assert read(compared_over_conditions("one")).rank == (2, 4)
    assert read(compared_over_conditions("two", FID, higher=False)).rank == (1, 3)


def test_references_are_known_by_their_type_whatever_they_are_called(compared_over_conditions):
    def rename(summary):
        summary["sources"]["shuffled"] = summary["sources"].pop("generated_permuted")
        summary["sources"]["start"] = summary["sources"].pop("base")

    run = read(edit(compared_over_conditions("one"), rename))
    assert run.rank == (2, 4)
    assert run.base == "start"


def test_summary_without_types_is_read_by_the_names(compared_over_conditions):
    def forget(summary):
        for row in summary["sources"].values():
            del row["type"]

    run = read(edit(compared_over_conditions("one"), forget))
    assert (run.base, run.rank) == ("base", (2, 4))


def test_dead_generated_have_no_rank(compared_over_conditions):
    sources = {"oracle": (0.8, 100.0), "ridge": (0.7, 1.0), "generated": (None, 2.0)}
    assert read(compared_over_conditions("one", sources)).rank is None


def test_share_of_what_fine_tuning_gains(compared_over_conditions):
    assert read(compared_over_conditions("one")).reached == pytest.approx(0.9)
    assert read(compared_over_conditions("two", FID, higher=False)).reached == pytest.approx(0.9)


def test_there_is_no_such_share_where_the_oracle_is_not_surely_better(compared_over_conditions):
    sources = {"oracle": (0.8, 100.0), "base": (0.795, 0.01), "ridge": (0.76, 1.0), "generated": (0.7, 2.0)}
    run = read(compared_over_conditions("one", sources))
    assert (run.base, run.reached) == ("base", None)
    del sources["base"]
    run = read(compared_over_conditions("two", sources))
    assert (run.base, run.reached) == (None, None)


def test_run_without_a_best_source_has_no_figures_of_it(compared_over_conditions):
    run = read(compared_over_conditions("one", best_source=None))
    assert (run.best, run.to_oracle(run.best), run.reached) == (None, None, None)


def test_summary_of_another_version_is_refused(compared_over_conditions):
    path = edit(compared_over_conditions("one"), lambda summary: summary.pop("best_source"))
    with pytest.raises(PdiffError, match=r"summary.json: lacks best_source, so another version of pdiff wrote it"):
        read(path)


def test_part_of_another_version_is_refused(compared_over_conditions):
    path = edit(compared_over_conditions("one"), lambda summary: summary["sources"]["ridge"].pop("seconds"))
    with pytest.raises(PdiffError, match=r"summary.json: source 'ridge' lacks seconds, so another version"):
        read(path)
    path = edit(compared_over_conditions("two"), lambda summary: summary["conditions"].pop("groups"))
    with pytest.raises(PdiffError, match=r"summary.json: conditions lacks groups, so another version"):
        read(path)


def test_run_without_generated_is_refused(compared_over_conditions):
    with pytest.raises(PdiffError, match="has no source 'generated'"):
        read(compared_over_conditions("one", {"oracle": (0.8, 1.0), "ridge": (0.7, 1.0)}))


@pytest.mark.parametrize("mean", [0.0, None])
def test_oracle_to_whose_mean_nothing_is_relative_is_refused(compared_over_conditions, mean):
    with pytest.raises(PdiffError, match=f"got mean {mean} of oracle, expected one .* Leave this run out"):
        read(compared_over_conditions("one", {"oracle": (mean, 100.0), "generated": (0.7, 2.0)}))
