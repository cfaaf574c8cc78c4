import numpy as np
import pytest

from pdiff.report.conditional_figures import draw_conditional_figures, in_one_range, least_obeyed, plans

NAMES = ["networks", "differences", "near", "costs", "obeys", "requested"]


def planned(summary):
    return {plan.name: plan for plan in plans(summary)}


def drawn(summary):
    return [plan.name for plan in plans(summary) if plan.shown]


def test_all_figures_are_drawn_and_returned_in_order(tmp_path, made_conditional):
    figures = draw_conditional_figures(tmp_path, made_conditional())
    assert [figure.png for figure in figures] == [(tmp_path / f"{name}.png").read_bytes() for name in NAMES]
    assert sum(len(figure.source) for figure in figures) < 1_000_000
    for figure in figures:
        assert figure.title
        assert figure.caption.endswith(".")
        assert ". " not in figure.caption


def test_minimised_metric_many_distances_and_many_draws_are_drawn(tmp_path, made_conditional):
    summary = made_conditional(higher=False, levels=12, draws=True)
    assert planned(summary)["networks"].caption.endswith("left is better.")
    assert len(draw_conditional_figures(tmp_path, summary)) == len(NAMES)


def test_one_distance_is_no_figure(made_conditional):
    assert drawn(made_conditional(levels=1)) == [name for name in NAMES if name != "near"]


def test_run_without_an_oracle_has_no_differences(made_conditional):
    summary = made_conditional()
    for row in summary["sources"].values():
        row["to_oracle"] = None
    assert drawn(summary) == [name for name in NAMES if name != "differences"]


def test_task_that_does_not_measure_conditions_has_no_figure_of_obedience(made_conditional):
    summary = made_conditional()
    summary["points"]["measured"] = {}
    for row in summary["sources"].values():
        row["obeys"] = {}
    assert drawn(summary) == NAMES[:4]


def test_dead_networks_and_a_dead_source_are_drawn(tmp_path, made_conditional):
    summary = made_conditional()
    nothing = dict.fromkeys(("mean", "ci", "worst", "select", "to_oracle"))
    summary["sources"]["ridge"] |= {**nothing, "near": [], "obeys": {}, "dead": 102}
    summary["points"]["metric"]["ridge"] = [None] * 102
    summary["points"]["metric"]["generated"][:3] = [None] * 3
    summary["points"]["measured"]["generated"]["class3"][:3] = [None] * 3
    assert "ridge" not in planned(summary)["costs"].arguments[0]
    assert len(draw_conditional_figures(tmp_path, summary)) == len(NAMES)


def test_two_sources_alone_are_drawn_without_the_oracle(tmp_path, made_conditional):
    summary = made_conditional()
    summary["sources"] = {name: summary["sources"][name] | {"to_oracle": None} for name in ("ridge", "nearest")}
    assert len(draw_conditional_figures(tmp_path, summary | {"best_source": None})) == 3


def test_best_source_and_generated_are_shown_obeying_beside_the_oracle_and_the_permuted(made_conditional):
    assert list(planned(made_conditional())["obeys"].arguments[0]) == [
        "oracle", "kernel_ridge", "generated", "generated_permuted"
    ]  # fmt: skip
    best = made_conditional() | {"best_source": "generated"}
    assert list(planned(best)["requested"].arguments[0]) == ["oracle", "generated", "generated_permuted"]


def test_title_says_when_only_the_least_obeyed_numbers_are_drawn(made_conditional):
    summary = made_conditional()
    names = [f"x{k}" for k in range(40)]
    for row in summary["sources"].values():
        row["obeys"] = {name: {"slope": k / 40, "correlation": None} for k, name in enumerate(names)}
    plan = planned(summary)["obeys"]
    assert plan.arguments[1] == names[:16]
    assert plan.title == "Does it obey, number by number, the 16 that are obeyed least"


def test_least_obeyed_keep_their_order():
    slopes = {f"x{k}": {"slope": None if k == 3 else float(-k)} for k in range(18)}
    assert least_obeyed([slopes], list(slopes)) == [f"x{k}" for k in range(18) if k not in (0, 3)]


def test_numbers_of_unequal_ranges_are_drawn_from_zero_to_one():
    points = {
        "requested": {"ridge": {"angle": [-90.0, 0.0, 90.0], "metric": [0.8, 0.9, 0.9], "constant": [1.0, 1.0, 1.0]}},
        "measured": {"ridge": {"angle": [-90.0, 45.0, None], "metric": [0.85, 0.85, 1.0], "constant": [0.0, 1.0, 2.0]}},
    }
    requested, measured = in_one_range(points, "ridge")
    assert requested == pytest.approx(np.array([0, 0.5, 0, 1, 1]))
    assert measured == pytest.approx(np.array([0, 0.75, 0.5, 0.5, 2]))
