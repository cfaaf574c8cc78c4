from dataclasses import replace

import numpy as np
import pytest

from pdiff.report.evidence import Evidence
from pdiff.report.figures import draw_figures, plans

NAMES = [
    "distribution", "differences", "similarity", "novel", "distance", "coordinates", "projection", "path", "codec",
    "choice", "training",
]  # fmt: skip


def planned(case):
    return {plan.name: plan for plan in plans(*case)}


def test_all_figures_are_drawn_and_returned_in_order(drawn):
    folder, figures = drawn
    assert [figure.png for figure in figures] == [(folder / f"{name}.png").read_bytes() for name in NAMES]
    assert len(list(folder.iterdir())) == len(NAMES)


def test_each_figure_has_a_title_and_one_sentence(drawn):
    for figure in drawn[1]:
        assert figure.title
        assert figure.caption.endswith(".")
        assert ". " not in figure.caption


def test_figures_stay_small(drawn):
    assert sum(len(figure.source) for figure in drawn[1]) < 1_500_000


def test_figure_without_its_arrays_is_left_out(tmp_path, made):
    summary, evidence = made()
    figures = draw_figures(tmp_path, {**summary, "comparisons": {}}, Evidence(tests=evidence.tests))
    assert [figure.title for figure in figures] == ["Every candidate: accuracy"]


def test_codec_solved_in_closed_form_has_no_curve(made):
    summary, evidence = made()
    assert not planned((summary, replace(evidence, losses={"autoencoder": []})))["training"].shown


def test_only_the_worst_tensors_are_drawn(made):
    worst, total = planned(made())["codec"].arguments
    assert (len(worst), total) == (12, 30)
    assert worst[0] == ("layer4.1.bn14.weight", pytest.approx(0.14))
    assert "layer4.1.bn0.weight" not in dict(worst)


def test_minimised_metric_says_where_better_is(made):
    rows = planned(made(higher=False))
    assert rows["distribution"].caption.endswith("left is better.")
    assert "the axis is turned round" in rows["similarity"].caption


def test_source_whose_candidates_are_all_dead_is_drawn(tmp_path, made):
    summary, evidence = made()
    dead = np.full(200, -np.inf)
    evidence = replace(evidence, tests={**evidence.tests, "generated": dead}, path=np.full((11, 6), -np.inf))
    nothing = dict.fromkeys(("difference", "ci", "ci_simultaneous", "superiority", "p", "p_adjusted"))
    comparisons = {**summary["comparisons"], "soup": nothing}
    assert len(draw_figures(tmp_path, {**summary, "comparisons": comparisons}, evidence)) == len(NAMES)
