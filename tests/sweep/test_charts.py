"""What the pictures of a sweep show."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from pdiff.sweep.charts import by_place, caption, draw_key, lines_of, positions, results_that_vary, write_charts
from pdiff.sweep.results import Result
from pdiff.sweep.setting import Setting

METRIC = {"name": "accuracy", "higher_is_better": True}


def result(values, generated=0.5, seed=0, ablations=(0,), **others) -> Result:
    """Return the result of a finished run whose sources have some means."""
    means = {"generated": generated, **others}
    summary = {"metric": METRIC, "sources": {name: {"mean": mean} for name, mean in means.items()}}
    setting = Setting(f"{values}{seed}", values, seed, {}, "all", frozenset(ablations))
    return Result(setting, None, SimpleNamespace(summary=summary))


def drawn(key, keys, results):
    axes = Figure().subplots()
    draw_key(axes, key, keys, results)
    return axes


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def test_line_is_the_mean_over_runs_and_a_bar_their_interval():
    axes = drawn("x", ["x"], [result({"x": x}, x / 10 + 0.1 * seed, seed) for x in (1, 2) for seed in (0, 1, 2)])
    assert lines(axes)["generated"].get_xydata() == pytest.approx(np.array([[1, 0.2], [2, 0.3]]))
    low, high = axes.lines[1].get_ydata()
    assert (low, high) == pytest.approx((0.2 - 0.2484, 0.2 + 0.2484), abs=1e-4)  # t of 2 degrees of freedom: 4.303


def test_runs_that_are_all_the_same_have_no_bar():
    axes = drawn("x", ["x"], [result({"x": x}, 0.5, seed) for x in (1, 2) for seed in (0, 1)])
    assert list(lines(axes)) == ["generated"]
    assert len(axes.lines) == 1


def test_bar_of_two_runs_does_not_stretch_the_axis():
    results = [result({"x": x}, 0.90 + 0.01 * x + 0.02 * seed, seed) for x in (1, 2) for seed in (0, 1)]
    axes = drawn("x", ["x"], results)
    low, high = axes.get_ylim()
    assert high - low < 0.05
    assert "some end beyond the picture" in axes.get_title(loc="left")


def test_place_where_a_run_has_no_living_network_has_no_point():
    results = [result({"x": 1}, 0.5, 0), result({"x": 1}, None, 1), result({"x": 2}, 0.5, 0), result({"x": 2}, 0.7, 1)]
    assert by_place(results, "x", {"1": 1.0, "2": 2.0}, "generated") == {2.0: [0.5, 0.7]}
    assert "no point where a run has no living network" in drawn("x", ["x"], results).get_title(loc="left")


def test_combinations_of_the_other_keys_are_lines_and_other_sources_are_left_out():
    results = [result({"x": x, "y": y}, soup=0.4, oracle=0.9) for x in (1, 2) for y in (True, None)]
    assert list(lines(drawn("x", ["x", "y"], results))) == ["generated, y=true", "generated, y=null", "oracle"]
    assert list(lines(drawn("x", ["x"], results[::2]))) == ["generated", "soup", "oracle"]


def test_sections_of_one_type_are_lines_of_their_own():
    flows = [{"type": "flow", "noise_scale": scale} for scale in (0.5, 1.0)]
    found = lines_of("x", ["x", "g"], [result({"x": x, "g": flow}) for x in (1, 2) for flow in flows])
    assert {name: len(own) for name, own in found.items()} == {
        "g={type: flow, noise_scale: 0.5}": 2, "g={type: flow, noise_scale: 1.0}": 2,
    }  # fmt: skip


def test_more_combinations_than_can_be_told_apart_are_left_out_and_said():
    axes = drawn("x", ["x", "y"], [result({"x": x, "y": y}) for x in (1, 2) for y in range(8)])
    assert len(lines(axes)) == 6
    assert "; the first 6 of 8 combinations of the other keys; other sources" in axes.get_title(loc="left")


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([1, 2, 4], [1, 2, 4]),
        ([10, 100, 1000], [10, 100, 1000]),
        ([0.0, 0.001, 0.1], [0, 1, 2]),
        (["mlp", "conv"], [0, 1]),
        ([False, True], [0, 1]),
        ([None, 4], [0, 1]),
        ([3], [3]),
    ],
)
def test_numbers_stand_where_they_are_and_all_else_one_after_another(values, places):
    assert positions(values) == places


def test_axis_of_far_apart_numbers_is_logarithmic():
    assert drawn("x", ["x"], [result({"x": x}) for x in (10, 1000)]).get_xscale() == "log"
    assert drawn("x", ["x"], [result({"x": x}) for x in (10, 20)]).get_xscale() == "linear"


def test_key_is_drawn_over_the_ablations_that_vary_it():
    own = [result({"x": 1, "y": 1}, ablations=(0, 1)), result({"x": 2, "y": 1}, ablations=(0,))]
    other = [result({"x": 1, "y": 2}, ablations=(1,)), result({"y": 3}, ablations=(1,))]
    assert results_that_vary("x", own + other) == own
    assert results_that_vary("z", own + other) == []


def test_caption_says_how_many_runs_a_point_is_of():
    assert caption([{1.0: [0.5]}], 1, False, False) == "one run each"
    assert caption([{1.0: [0.5, 0.6], 2.0: [0.5]}], 1, False, False) == "means over 1 to 2 runs, bars: 95 % interval"
    assert caption([{}], 1, False, True) == "one run each; no point where a run has no living network"


def test_every_key_of_several_values_has_a_picture(tmp_path):
    results = [result({"a.x": x, "b.x": 1}) for x in (1, 2)]
    assert write_charts(tmp_path, ["a.x", "b.x"], results) == [tmp_path / "a.x.png"]
    assert (tmp_path / "a.x.png").read_bytes().startswith(b"\x89PNG")
    assert write_charts(tmp_path, ["a.x", "b.x"], []) == []
