import numpy as np
import pytest

from pdiff.report import conditional_charts as charts

NEAR = {"ci": [-0.01, 0.0], "p": 0.2, "p_adjusted": 0.4}


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure(layout="constrained").subplots()


def differences(axes, **values):
    found = {name: {**NEAR, "difference": value} for name, value in values.items()}
    charts.differences(axes, found, charts.conditional_styles(found), "accuracy", "ridge")


def test_oracle_and_generated_look_the_same_whatever_else_there_is():
    few, many = (charts.conditional_styles(names) for names in (["ridge"], ["soup", "generated", "oracle", "ridge"]))
    assert (few["oracle"], few["generated"]) == (many["oracle"], many["generated"])
    assert len(set(many.values())) == len(many) == 5


def test_sources_that_are_far_worse_are_out_of_sight_unless_they_are_loud():
    values = {"oracle": 0.92, "ridge": 0.91, "nearest": 0.84, "dead": np.nan, "mean": 0.9, "permuted": 0.5}
    points = {name: np.array([value, np.nan]) for name, value in values.items()}
    assert charts.in_sight(points) == ["oracle", "ridge", "nearest", "mean"]
    assert charts.in_sight(points, ["permuted"]) == ["oracle", "ridge", "nearest", "mean", "permuted"]
    assert charts.in_sight({}) == []


@pytest.mark.parametrize(
    ("values", "ends"),
    [([], (0, 1)), ([np.array([np.nan])], (0, 1)), ([np.array([2.0])], (1.98, 2.02)), ([np.arange(3.0)], (-0.2, 2.2))],
)
def test_span_holds_everything_and_is_never_empty(values, ends):
    assert charts.span(values, 0.1) == pytest.approx(ends)


def test_mean_beyond_the_axis_is_a_sign_and_a_number(axes):
    means = {"oracle": 0.92, "ridge": 0.91, "nearest": 0.9, "permuted": 0.5}
    points = {name: np.linspace(mean - 0.01, mean + 0.01, 9) for name, mean in means.items()}
    rows = {name: {"mean": mean, "ci": [mean - 0.001, mean + 0.001]} for name, mean in means.items()}
    charts.networks(axes, points, rows, charts.conditional_styles(points), "accuracy", "ridge")
    assert [text.get_text() for text in axes.texts] == ["0.9200", "0.9100", "0.9000", "0.5000", "◂"]
    names = axes.get_yticklabels()
    assert [label.get_text() for label in names] == ["oracle", "ridge ★", "nearest", "permuted"]
    assert [label.get_fontweight() for label in names] == ["normal", "bold", "normal", "normal"]


def test_sure_differences_are_filled_and_others_are_empty(axes):
    found = {"ridge": {**NEAR, "difference": -0.005}, "soup": {**NEAR, "difference": -0.006, "p_adjusted": 0.01}}
    charts.differences(axes, found, charts.conditional_styles(found), "accuracy", None)
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [point.get_markerfacecolor() == point.get_markeredgecolor() for point in points] == [False, True]


def test_axis_of_differences_is_logarithmic_only_where_one_is_far(axes):
    differences(axes, ridge=-0.004, kernel=-0.005, nearest=-0.009)
    assert axes.get_xscale() == "linear"
    differences(axes, ridge=-0.004, kernel=-0.005, nearest=-0.09)
    assert axes.get_xscale() == "symlog"
    assert axes.get_xlabel().endswith("(logarithmic beyond ±0.005)")


def test_source_without_an_interval_is_a_point(axes):
    found = {"ridge": {"difference": 0.0, "ci": None, "p": None, "p_adjusted": None}}
    charts.differences(axes, found, charts.conditional_styles(found), "accuracy", None)
    assert [line for line in axes.lines if len(line.get_xdata()) == 2 and list(line.get_ydata()) == [0, 0]] == []


def near(*pairs):
    return [{"distance": distance, "mean": mean, "n": 7} for distance, mean in pairs]


def test_few_distances_stand_beside_each_other_with_their_numbers(axes):
    found = {"oracle": near((1, 0.9), (2, 0.9)), "ridge": near((1, 0.9), (2, 0.8)), "soup": near((1, 0.85), (2, 0.84))}
    charts.by_distance(axes, found, charts.conditional_styles(found), "accuracy", "bits", ["oracle"])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1\n(7)", "2\n(7)"]
    starts = [line.get_xdata()[0] for line in axes.lines]
    assert starts == sorted(set(starts))
    assert max(starts) - min(starts) < 0.3


def test_many_distances_stand_where_they_are(axes):
    found = {name: near(*((0.1 * k, 0.9) for k in range(12))) for name in ("oracle", "ridge")}
    charts.by_distance(axes, found, charts.conditional_styles(found), "accuracy", "bits", ["oracle"])
    assert {line.get_xdata()[0] for line in axes.lines} == {0.0}


def test_source_far_below_is_named_above_the_axes(axes):
    found = {name: near((1, mean), (2, mean)) for name, mean in zip("abcde", (0.9, 0.9, 0.88, 0.87, 0.5), strict=True)}
    charts.by_distance(axes, found, charts.conditional_styles(found), "accuracy", "bits", [])
    assert axes.get_title(loc="right") == "beyond the axis: e"
    assert [line.get_label() for line in axes.lines] == ["a", "b", "c", "d"]


def test_cost_beyond_the_axis_stands_at_its_edge_with_its_number(axes):
    points = {name: (0.1, mean) for name, mean in zip("abcde", (0.9, 0.9, 0.88, 0.87, 0.5), strict=True)}
    charts.costs(axes, points, charts.conditional_styles(points), "accuracy", "a")
    assert [text.get_text() for text in axes.texts] == ["a ★", "b", "c", "d", "e, 0.500"]
    assert axes.lines[-1].get_marker() == "v"


def test_panels_without_a_source_are_hidden():
    from matplotlib.figure import Figure

    panels = list(Figure().subplots(2, 2).flat)
    pair = (np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.8, 0.9]))
    found = dict.fromkeys(("oracle", "ridge", "generated"), pair)
    charts.obedience(panels, found, charts.conditional_styles(found))
    assert [axes.get_visible() for axes in panels] == [True, True, True, False]
    assert list(panels[0].lines[0].get_ydata()) == pytest.approx([0.1, 0.85])
