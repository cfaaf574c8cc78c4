import itertools

import numpy as np
import pytest

from pdiff.report import charts
from pdiff.report.evidence import Evidence


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_trained_and_generated_look_the_same_whatever_else_there_is():
    few, many = charts.source_styles(["trained", "generated"]), charts.source_styles(["soup", "generated", "trained"])
    assert (few["trained"], few["generated"]) == (many["trained"], many["generated"])


def test_fourteen_sources_look_different():
    styles = charts.source_styles(["trained", "generated", *(f"own{k}" for k in range(12))])
    assert len(set(styles.values())) == 14


def test_window_holds_everything_that_is_finite():
    low, high = charts.window([np.array([1.0, 2.0, np.nan]), np.array([3.0, np.inf])])
    assert 0.8 < low < 1
    assert 3 < high < 3.2


def test_window_leaves_out_what_lies_far_beyond():
    low, high = charts.window([np.linspace(0.8, 0.9, 100), np.array([0.1, 5.0])])
    assert 0.5 < low < 0.8
    assert 0.9 < high < 1.2


@pytest.mark.parametrize("values", [np.array([]), np.array([np.inf]), np.array([0.0]), np.array([3.0, 3.0])])
def test_window_is_never_empty(values):
    low, high = charts.window([values])
    assert low < high


def test_candidates_beyond_the_axis_are_counted_at_its_edge(axes):
    values = {"trained": np.linspace(0.8, 0.9, 100), "generated": np.array([-np.inf, 0.1, 0.85, np.inf])}
    charts.strips(axes, values, charts.source_styles(values), "accuracy", {"generated": 2})
    assert [text.get_text() for text in axes.texts] == ["", "◂ 2 ▸ 1"]


def test_distances_of_zero_are_counted_beyond_a_logarithmic_axis(axes):
    values = {"trained": np.array([0.0, 0.1, 1.0, 10.0])}
    charts.strips(axes, values, charts.source_styles(values), "distance", {}, logarithmic=True)
    assert axes.texts[0].get_text() == "◂ 1"


@pytest.mark.parametrize(("span", "fewest"), [(2.0, 2), (30.0, 4), (900.0, 3), (1e6, 3)])
def test_labels_of_a_logarithmic_axis_do_not_touch(axes, span, fewest):
    values = {"trained": np.geomspace(0.023, 0.023 * span, 50)}
    charts.strips(axes, values, charts.source_styles(values), "distance", {}, logarithmic=True)
    axes.figure.draw_without_rendering()
    low, high = axes.get_xlim()
    labels = [label for label in axes.get_xticklabels(which="both") if label.get_text()]
    boxes = [label.get_window_extent() for label in labels if low <= label.get_position()[0] <= high]
    assert len(boxes) >= fewest
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(sorted(boxes, key=lambda box: box.x0)))


def test_difference_far_from_all_others_is_a_number_at_the_edge(axes):
    figures = {"ci": [0.0, 0.0], "ci_simultaneous": [0.0, 0.0], "superiority": 0.5, "p_adjusted": 1.0}
    near = {name: {**figures, "difference": value} for name, value in zip("abcdef", (0, 1, 2, 1, 0, 1), strict=True)}
    comparisons = {**near, "far": {**figures, "difference": -50.0}}
    charts.differences(axes, comparisons, charts.source_styles(comparisons), "accuracy", 0.5)
    assert axes.texts[-1].get_text() == "◂ -50"


def test_difference_without_an_interval_is_an_empty_point(axes):
    known = {
        "difference": 0.3,
        "ci": [0.1, 0.5],
        "ci_simultaneous": [0.05, 0.55],
        "superiority": 0.9,
        "p_adjusted": 0.01,
    }
    unknown = {**dict.fromkeys(("ci", "ci_simultaneous", "p_adjusted")), "difference": 0.2, "superiority": 0.5}
    comparisons = {"soup": known, "trained": unknown}
    charts.differences(axes, comparisons, charts.source_styles(comparisons), "accuracy", 0.05)
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [point.get_markerfacecolor() for point in points] == [points[0].get_markeredgecolor(), "none"]
    bars = [
        list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2 and list(line.get_ydata()) == [0, 0]
    ]
    assert bars[:2] == [[0.05, 0.55], [0.1, 0.5]]
    assert not [line for line in axes.lines if list(line.get_ydata()) == [1, 1]]


def test_the_margin_is_a_dotted_line_left_of_zero(axes):
    comparisons = {
        "trained": {"difference": 0.0, "ci": [-1, 1], "ci_simultaneous": [-1, 1], "superiority": 0.5, "p_adjusted": 1.0}
    }
    charts.differences(axes, comparisons, charts.source_styles(comparisons), "accuracy", 0.25)
    assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [-0.25]


@pytest.mark.parametrize(("higher", "heights"), [(True, [1, 3, 3]), (False, [3, 1, 1])])
def test_front_rises_with_similarity_in_the_direction_of_the_metric(axes, higher, heights):
    evidence = Evidence(
        front={"soup": np.array([True]), "gaussian": np.array([True, False])},
        tests={"soup": np.array([heights[1]]), "gaussian": np.array([heights[0], 2])},
        similarities={"soup": np.array([0.9]), "gaussian": np.array([0.5, 0.7])},
    )
    charts.draw_front(axes, evidence, higher)
    assert axes.lines[0].get_ydata().tolist() == heights
    assert axes.lines[0].get_xdata()[:2].tolist() == [0.5, 0.9]


def test_running_mean_is_the_mean_of_the_last_thirtieth():
    losses = np.arange(60.0)
    assert charts.smoothed(losses)[0] == 0
    assert np.allclose(charts.smoothed(losses)[1:], losses[1:] - 0.5)


@pytest.mark.parametrize(("lowest", "scale"), [(0.1, "log"), (-3.0, "linear")])
def test_losses_are_drawn_on_a_logarithmic_axis_where_all_are_positive(axes, lowest, scale):
    charts.training(axes, {"vae": [5.0, 1.0, lowest]})
    assert axes.get_yscale() == scale


def test_looks_at_what_is_left_out_stand_at_their_steps(axes):
    charts.training(axes, {"denoiser": [1.0] * 50, "watched": [0.9, 0.7, 0.8]})
    assert axes.lines[-1].get_xdata().tolist() == [20, 40, 50]
