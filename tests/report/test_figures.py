from dataclasses import replace

import numpy as np

from pdiff.report.evidence import Evidence
from pdiff.report.figures import FIGURES, distribution, draw_figures, similarity, training

NAMES = [
    "distribution", "differences", "similarity", "distance", "coordinates", "projection", "path", "codec", "choice",
    "training",
]  # fmt: skip


def test_all_figures_are_drawn_and_returned_in_order(drawn):
    folder, figures = drawn
    assert [figure.name for figure in figures] == NAMES
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.png" for name in NAMES)


def test_each_figure_has_a_title_and_one_sentence(drawn):
    for figure in drawn[1]:
        assert figure.title
        assert figure.caption.endswith(".")
        assert ". " not in figure.caption


def test_figures_stay_small(drawn):
    assert sum(len(figure.svg) for figure in drawn[1]) < 1_500_000


def test_figure_without_its_arrays_is_left_out(tmp_path, made):
    summary, evidence = made()
    figures = draw_figures(tmp_path, {**summary, "comparisons": {}}, Evidence(tests=evidence.tests))
    assert [figure.name for figure in figures] == ["distribution"]


def test_codec_solved_in_closed_form_has_no_curve(tmp_path, made):
    summary, evidence = made()
    assert training(tmp_path, summary, replace(evidence, losses={"autoencoder": []})) is None


def test_only_the_worst_tensors_are_drawn(drawn):
    svg = next(figure.svg for figure in drawn[1] if figure.name == "codec")
    assert "the worst 12 of 30 tensors" in svg
    assert "layer4.1.bn14.weight" in svg
    assert "layer4.1.bn0.weight" not in svg


def test_minimised_metric_says_where_better_is(tmp_path, made):
    case = made(higher=False)
    assert distribution(tmp_path, *case).caption.endswith("left is better.")
    assert "the axis is turned round" in similarity(tmp_path, *case).caption


def test_source_whose_candidates_are_all_dead_is_drawn(tmp_path, made):
    summary, evidence = made()
    dead = np.full(200, -np.inf)
    evidence = replace(evidence, tests={**evidence.tests, "generated": dead}, path=np.full((11, 6), -np.inf))
    nothing = dict.fromkeys(("difference", "ci", "superiority", "p", "p_adjusted"))
    comparisons = {**summary["comparisons"], "soup": nothing}
    assert len(draw_figures(tmp_path, {**summary, "comparisons": comparisons}, evidence)) == len(FIGURES)
