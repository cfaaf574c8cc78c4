import pytest

from pdiff.run.comparison import read_runs
from pdiff.runtime.errors import PdiffError

FIGURES = {"difference": 0.01, "ci": [0.0, 0.02]}
ROW = {"mean": 1.0, "select": 1.0, "similarity": 0.9}


def test_gain_is_relative_to_the_mean_of_trained(compared):
    (run,) = read_runs([compared("one")])
    assert run.gain.value == pytest.approx(0.02)
    assert run.gain.ends == pytest.approx((0.0, 0.04))
    assert run.seconds == 66


def test_gain_of_a_negative_metric_keeps_its_sign(compared):
    sources = {"trained": {"mean": -0.5, "similarity": 0.9}, "generated": {"mean": -0.49, "similarity": 0.9}}
    (run,) = read_runs([compared("one", sources=sources, comparisons={"trained": FIGURES})])
    assert run.gain.value == pytest.approx(0.02)


@pytest.mark.parametrize(("higher", "expected"), [(True, "soup"), (False, "noise")])
def test_hardest_baseline_is_the_strongest_on_select_whatever_it_reaches_on_test(compared, higher, expected):
    names = ("trained", "generated", "soup", "noise", "dead")
    sources = {name: {**ROW, "select": value} for name, value in zip(names, (0.1, 0.2, 0.9, 0.8, None), strict=True)}
    differences = {"trained": -1.0, "soup": 0.4, "noise": -0.3, "dead": -2.0}
    comparisons = {name: {**FIGURES, "difference": value} for name, value in differences.items()}
    metric = {"name": "quality", "higher_is_better": higher, "chance": None}
    (run,) = read_runs([compared("one", comparisons=comparisons, sources=sources, metric=metric)])
    assert run.hardest.source == expected
    assert run.hardest.value == pytest.approx(differences[expected])


def test_gain_without_an_interval_has_none(compared):
    (run,) = read_runs([compared("one", comparisons={"trained": {"difference": 0.01, "ci": None}})])
    assert run.gain.value == pytest.approx(0.02)
    assert run.gain.ends is None


def test_run_without_baselines_has_no_hardest(compared):
    (run,) = read_runs([compared("one", comparisons={"trained": FIGURES})])
    assert run.hardest is None


def test_runs_of_one_plugin_are_told_apart_by_directory(compared):
    assert [run.name for run in read_runs([compared("one"), compared("two")])] == ["one", "two"]


def test_directories_of_one_name_are_told_apart_by_path(compared):
    paths = [compared("a/run"), compared("b/run")]
    assert [run.name for run in read_runs(paths)] == [str(path) for path in paths]


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(PdiffError, match="is no run directory. Give the --work-dir of a run"):
        read_runs([tmp_path])


def test_run_that_is_not_compared_is_refused(compared):
    path = compared("one")
    (path / "report" / "summary.json").unlink()
    with pytest.raises(PdiffError, match="one: is not compared yet. Finish the run"):
        read_runs([path])


def test_runs_of_both_kinds_are_refused(compared, compared_over_conditions):
    paths = [compared("one"), compared_over_conditions("two"), compared("three"), compared_over_conditions("four")]
    line = "got two, four over conditions and one, three without, expected one kind. Compare each kind alone"
    with pytest.raises(PdiffError, match=line):
        read_runs(paths)


def test_summary_of_another_version_is_refused(compared):
    path = compared("one")
    file = path / "report" / "summary.json"
    file.write_text(file.read_text().replace('"verdict_kind"', '"kind"').replace('"comparisons"', '"others"'))
    with pytest.raises(PdiffError, match="lacks verdict_kind, comparisons, so another version of pdiff wrote it"):
        read_runs([path])


def test_summary_that_is_no_json_is_refused(compared):
    path = compared("one")
    (path / "report" / "summary.json").write_text("{")
    with pytest.raises(PdiffError, match=r"summary.json: is not valid JSON"):
        read_runs([path])


@pytest.mark.parametrize("source", ["trained", "generated"])
def test_run_without_trained_or_generated_is_refused(compared, source):
    sources = dict.fromkeys({"trained", "generated"} - {source}, ROW)
    with pytest.raises(PdiffError, match=f"has no source '{source}'"):
        read_runs([compared("one", sources=sources)])


@pytest.mark.parametrize("mean", [0.0, None])
def test_mean_to_which_nothing_is_relative_is_refused(compared, mean):
    sources = {"trained": {"mean": mean, "similarity": 0.9}, "generated": {"mean": 1.0, "similarity": 0.9}}
    with pytest.raises(PdiffError, match=f"got mean {mean} of trained"):
        read_runs([compared("one", sources=sources)])


def test_run_that_is_given_twice_is_refused(compared):
    with pytest.raises(PdiffError, match="one twice, expected different run directories"):
        read_runs([compared("one"), compared("two/../one")])
