"""What follows from evaluations, on sources that are made up."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from pdiff.analysis.dead import dead
from pdiff.analysis.judgement import (
    CORE,
    Case,
    chosen_by_training_data,
    comparisons,
    drift,
    find,
    lacking,
    notes,
    row,
)
from pdiff.analysis.references import Place
from pdiff.analysis.source_results import SourceResults
from pdiff.analysis.verdict import BETTER, DEAD, LEFT_OUT, SATURATED, judge
from pdiff.runtime.errors import PdiffError
from pdiff.task.task import Metric


def source(
    name: str, test, *, select=None, train=None, ndim=2, details=(), scores=None, chance=None, **given
) -> SourceResults:
    """Return a source whose vectors are random, with an error on every second sample."""
    test = np.array(test, dtype=float)
    metrics = {"select": test if select is None else np.array(select, dtype=float), "test": test}
    if train is not None:
        metrics["train"] = np.array(train, dtype=float)
    rng = torch.Generator().manual_seed(len(name))
    shape = (len(test), 3, 6) if ndim == 3 else (len(test), 6)
    tensors = {"test.signature": torch.arange(8).expand(len(test), 8) % 2 == 0}
    if scores is not None:
        tensors["test.scores"] = torch.as_tensor(scores)
    lost = dead(metrics, metrics, Metric("quality", chance=chance))
    given = {"type": name, **given}
    return SourceResults(name, torch.randn(shape, generator=rng), tensors, metrics, lost, list(details), **given)


def trained_of(test, **given) -> SourceResults:
    """Return the trained, of which each is a row of the population."""
    return source("trained", test, parents=np.arange(len(test)), **given)


def case_of(
    *sources: SourceResults, higher: bool = True, branches: int = 2, heldout: Sequence[int] = (), chance=None, **given
) -> Case:
    """Return a case of so many branches of one length, in which everybody is as similar as can be to the last."""
    by_name = {each.name: each for each in sources}
    trained = by_name["trained"].vectors
    similarities = {
        name: torch.linspace(0.2, 0.9, len(trained)).expand(len(each.test), -1) for name, each in by_name.items()
    }
    places = {
        name: Place(np.ones(len(each.test)), spread=0.5, marginal=0.2, projected=np.ones((len(each.test), 2)), shown={})
        for name, each in by_name.items()
        if each.has_place
    }
    length = math.ceil(len(trained) / branches)
    values = {
        "metric": Metric("quality", higher, chance),
        "sources": by_name,
        "similarities": similarities,
        "to_soup": {},
        "places": places,
        "population": trained,
        "provenance": [{"network": 0, "branch": number // length} for number in range(len(trained))],
        "fitted": [number for number in range(len(trained)) if number not in heldout],
        "heldout": heldout,
        "decode": lambda rows: rows,
        "margin": 0.5,
        "seed": 0,
    }
    return Case(**(values | given))


TRAINED = trained_of([0.5, 0.6, 0.7, 0.6])


def walk(length, seed=0, rho=0.95) -> np.ndarray:
    """Return a series each step of which is near to the one before."""
    rng = np.random.default_rng(seed)
    series = [0.0]
    for step in rng.standard_normal(length - 1):
        series.append(rho * series[-1] + step * (1 - rho**2) ** 0.5)
    return 0.8 + 0.01 * np.array(series)


def around(mean, count, seed=0) -> np.ndarray:
    """Return independent metrics around a mean."""
    return mean + 0.01 * np.random.default_rng(seed).standard_normal(count)


def test_best_is_that_of_select_and_reported_on_test():
    generated = source("generated", [0.1, 0.9, 0.5], select=[0.8, 0.2, 0.3])
    found = row(case_of(TRAINED, generated), "generated")
    assert (found["best_index"], found["best"], found["worst"]) == (0, 0.1, 0.1)
    lowest = row(case_of(TRAINED, generated, higher=False), "generated")
    assert (lowest["best_index"], lowest["best"], lowest["worst"]) == (1, 0.9, 0.9)


def test_the_best_of_equals_is_their_average():
    generated = source("generated", [0.1, 0.9, 0.5], select=[0.8, 0.2, 0.8])
    assert row(case_of(TRAINED, generated), "generated")["best"] == pytest.approx(0.3)


def test_without_a_chance_means_are_those_of_the_living_and_the_dead_are_counted():
    found = row(case_of(TRAINED, source("generated", [0.4, -math.inf, 0.6])), "generated")
    assert (found["n"], found["dead"]) == (3, 1)
    assert found["mean"] == pytest.approx(0.5)
    assert found["worst"] is None, "JSON has no infinity"
    assert found["mean_ci"][0] <= 0.5 <= found["mean_ci"][1]


def test_what_is_not_finite_counts_as_chance_where_that_is_known():
    scores = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    generated = source("generated", [0.5, -math.inf, 1.0], scores=scores, chance=0.1)
    case = case_of(replace(TRAINED), generated, chance=0.1)
    assert row(case, "generated")["mean"] == pytest.approx((0.5 + 0.1 + 1.0) / 3)
    assert row(case, "generated")["dead"] == 1
    values = case.values("generated")
    assert values.columns.mean() == pytest.approx(values.mean), "the scores of the test samples, too"


def test_where_all_are_dead_there_is_nothing_to_compare():
    case = case_of(TRAINED, source("generated", [math.inf, math.inf]), higher=False)
    findings = find(case)
    assert findings.dead == 1
    assert comparisons(case, findings) == {}
    assert judge(findings).kind == DEAD
    assert row(case, "generated")["mean"] is None
    assert row(case, "generated")["effective_n"] == 0
    assert findings.novelty.line == "not shown to be new: no generated network lives"


def test_where_everything_is_dead_there_is_a_verdict():
    case = case_of(
        trained_of([math.inf] * 4), source("generated", [math.inf, math.inf]), source("soup", [math.inf]), higher=False
    )
    findings = find(case)
    assert judge(findings).kind == DEAD
    assert all(row(case, name)["mean"] is None for name in case.sources)
    assert notes(case, findings)[0] == "no trained checkpoint has a finite metric: nothing is compared with them"


def test_trained_that_are_all_dead_are_refused_where_the_generated_live():
    case = case_of(trained_of([math.inf] * 4), source("generated", [0.5, 0.6]), higher=False)
    with pytest.raises(PdiffError, match=r"^trained: got no checkpoint with a finite quality on test, expected one"):
        find(case)


def test_an_ensemble_lies_nowhere_and_a_single_candidate_has_no_interval():
    found = row(case_of(TRAINED, source("generated", [0.5, 0.6]), source("ensemble", [0.7], ndim=3)), "ensemble")
    assert (found["distance"], found["spread"], found["marginal"], found["mean_ci"]) == (None, None, None, None)
    assert found["effective_n"] == 1


def test_every_source_has_the_budget_of_the_smallest_of_several():
    case = case_of(TRAINED, source("generated", [0.5, 0.6]), source("soup", [0.7]))
    assert case.budget == 2
    assert row(case, "soup")["best_of"] == 0.7
    assert row(case, "trained")["best_of"] < 0.7, "the best of four, when two are drawn"


@pytest.mark.parametrize("higher", [True, False])
def test_generated_are_set_against_every_other_source(higher):
    better, worse = around(0.9, 12), around(0.1, 12)
    trained = trained_of(around(0.5, 40, seed=1))
    generated = source("generated", better if higher else worse)
    case = case_of(trained, generated, source("soup", [0.5]), source("swag", around(0.5, 9)), higher=higher, branches=4)
    found = comparisons(case, find(case))
    assert list(found) == ["trained", "soup", "swag"]
    assert all(figures["difference"] > 0 and figures["superiority"] == 1 for figures in found.values())
    assert found["trained"]["p"] == found["trained"]["p_adjusted"] < 0.05, "it stands by itself"
    assert found["swag"]["p_adjusted"] == pytest.approx(2 * found["swag"]["p"]), "of two baselines"
    assert {figures["relation"] for figures in found.values()} == {"better"}
    assert found["swag"]["ci_simultaneous"][0] < found["swag"]["ci"][0]


def test_a_difference_that_is_sure_only_by_itself_says_so():
    others = [source(f"noise{k}", around(0.5, 10, seed=k)) for k in range(20)]
    shift = 0.5 + 0.011
    case = case_of(trained_of(around(0.5, 40)), source("generated", around(shift, 10, seed=50)), *others, branches=4)
    relations = {figures["relation"] for figures in comparisons(case, find(case)).values()}
    assert "no clear difference (better if it were the only one)" in relations


def test_two_single_candidates_without_scores_have_no_interval():
    case = case_of(TRAINED, source("generated", [0.5]), source("soup", [0.6]))
    figures = comparisons(case, find(case))["soup"]
    assert [figures[key] for key in ("ci", "ci_simultaneous", "p", "p_adjusted")] == [None] * 4
    assert figures["relation"] == "no clear difference"


def test_a_series_that_depends_on_itself_is_worth_less_than_its_length():
    trained = trained_of(np.concatenate([walk(50, seed) for seed in range(6)]))
    generated = source("generated", around(0.8, 100))
    case = case_of(trained, generated, branches=6)
    assert case.time > 3
    assert (case.unit, len(set(case.units))) == ("branches", 6)
    assert row(case, "trained")["effective_n"] < 60
    assert row(case, "generated")["effective_n"] == pytest.approx(100)
    effective, width = row(case, "trained")["effective_n"], np.ptp(row(case, "trained")["mean_ci"])
    assert width > 3 * 1.96 * trained.test.std() / 300**0.5, f"worth {effective}"


def test_one_long_branch_has_blocks_of_steps_for_units():
    case = case_of(trained_of(walk(400, rho=0.8)), source("generated", around(0.8, 20)), branches=1)
    assert case.unit == "blocks of steps"
    assert 4 <= len(set(case.units)) <= 400 / (2 * case.time)
    assert find(case).main.known


def test_checkpoints_of_no_order_are_draws_of_their_own():
    case = case_of(trained_of(around(0.8, 60, seed=1)), source("generated", around(0.8, 20)), branches=1)
    assert (case.unit, len(set(case.units))) == ("checkpoints", 60)
    assert row(case, "trained")["effective_n"] == pytest.approx(60)


def test_lineages_are_the_units_where_there_are_enough():
    provenance = [{"network": number // 6, "branch": number // 3} for number in range(30)]
    case = case_of(trained_of(around(0.8, 30)), source("generated", around(0.8, 9)), provenance=provenance)
    assert (case.unit, len(set(case.units))) == ("lineages", 5)


def test_trained_that_are_too_dependent_have_no_interval_and_say_so():
    case = case_of(trained_of(walk(30, rho=0.99)), source("generated", around(0.8, 20)), branches=1)
    assert case.units is None
    assert not find(case).main.known
    assert row(case, "trained")["mean_ci"] is None
    assert row(case, "trained")["effective_n"] == 1
    assert "collect more, in several branches (collect.branches)" in judge(find(case)).line
    line = "the trained are too few, or too dependent, for a test: 30 checkpoints in 1 branch, one independent in "
    assert notes(case, find(case))[0].startswith(line)
    files = replace(case, provenance=[{"file": f"{number}.pth"} for number in range(30)])
    assert "1 training that is told apart, one independent in " in notes(files, find(files))[0]
    assert "Say which files are of one training (checkpoints.lineage), and bring more" in notes(files, find(files))[0]
    assert not any("collect." in words for words in (*notes(files, find(files)), judge(find(files)).line))


def test_few_of_many_checkpoints_are_no_test_of_those_that_were_not_measured():
    population = torch.randn(60, 6)
    trained = source("trained", around(0.8, 3), parents=np.array([0, 30, 59]))
    provenance = [{"network": 0, "branch": 0}] * 60
    given = {"population": population, "provenance": provenance, "fitted": list(range(60))}
    case = case_of(trained, source("generated", around(0.8, 20)), **given)
    assert case.units is None
    assert notes(case, find(case))[0].endswith("Raise evaluate.sources.trained.num")


@pytest.mark.parametrize("alone", ["trained", "generated"])
def test_a_single_one_says_nothing_of_others(alone):
    counts = {"trained": 40, "generated": 20} | {alone: 1}
    scores = {name: np.random.default_rng(0).random((count, 50)) for name, count in counts.items()}
    trained, generated = (scores[name].mean(1) for name in ("trained", "generated"))
    soup = source("soup", [0.1], scores=np.linspace(0, 0.2, 50)[None])
    case = case_of(
        trained_of(trained, scores=scores["trained"]),
        source("generated", generated, scores=scores["generated"]),
        soup,
        branches=min(4, counts["trained"]),
    )
    findings = find(case)
    assert not findings.main.known
    assert judge(findings).kind == "not decided"
    if alone == "generated":
        assert not findings.differences["soup"].known, "the one may be lucky"
        assert any(line.startswith("a single one was generated: ") for line in notes(case, findings))
        assert "too few independent candidates of generated for a test: raise generate.num" in judge(findings).line


def test_a_metric_that_never_differs_is_told():
    case = case_of(trained_of([0.5] * 40), source("generated", [0.5] * 20), branches=4)
    assert "all trained have the same quality: it tells nobody apart, and the margin is 0" in notes(case, find(case))


def test_dead_averages_are_no_averages_to_be_like():
    metrics = {"select": np.full(12, 0.1), "test": np.full(12, 0.1)}
    averages = replace(source("soup16", metrics["test"]), dead=np.ones(12, dtype=bool))
    trained, generated = trained_of(around(0.8, 40)), source("generated", around(0.8, 20))
    to_soup = {each.name: np.linspace(0.5, 0.9, len(each.test)) for each in (averages, trained, generated)}
    case = case_of(trained, generated, averages, branches=4, to_soup=to_soup, averages="soup16")
    assert find(case).averaging is None


def test_nothing_is_new_where_no_fitted_one_was_evaluated():
    trained = source("trained", around(0.8, 2), parents=np.array([0, 39]))
    provenance = [{"network": 0, "branch": number // 10} for number in range(40)]
    given = {"population": torch.randn(40, 6), "provenance": provenance, "fitted": list(range(10, 30))}
    found = find(case_of(trained, source("generated", around(0.8, 20)), **given)).novelty
    assert (found.similarity, found.distinct) == (None, False)
    assert found.line.endswith("none of the evaluated trained is one that was fitted")


def test_the_best_has_no_interval_where_one_of_its_equals_is_dead():
    scores = np.array([[1.0, 0.0], [math.nan, math.nan], [1.0, 1.0]])
    generated = source("generated", [0.5, -math.inf, 1.0], select=[0.9, 0.9, 0.1], scores=scores)
    found = row(case_of(TRAINED, generated), "generated")
    assert (found["best"], found["best_ci"]) == (None, None)


def test_what_is_made_of_one_checkpoint_shares_the_unit_of_its_parent():
    parents = np.arange(40) % 4 * 10
    noise = source("noise05", around(0.8, 40), parents=parents, type="relative_noise")
    case = case_of(trained_of(around(0.8, 40)), source("generated", around(0.8, 9)), noise, branches=4)
    assert len(set(case.values("noise05").units)) == 4
    assert case.values("noise05").component.count == 4
    assert case.values("noise05").component.what == "branches of noise05"
    assert case.values("generated").units is None


def test_what_is_made_of_dependent_checkpoints_is_as_dependent():
    noise = source("noise05", around(0.8, 40), parents=np.arange(40) % 30, type="relative_noise")
    case = case_of(trained_of(walk(30, rho=0.99)), source("generated", around(0.8, 20)), noise, branches=1)
    assert case.units is None
    assert not find(case).differences["noise05"].known


def test_the_generated_share_their_fit():
    fits = np.repeat(np.arange(3), 10)
    shifted = around(0.8, 30) + 0.05 * fits
    case = case_of(trained_of(around(0.8, 40)), source("generated", shifted, fits=fits), branches=4)
    assert case.values("generated").component.what == "fits of generated"
    assert row(case, "generated")["effective_n"] < 5
    assert "the generated are of one fit" not in " ".join(notes(case, find(case)))


def test_details_are_those_of_the_best_and_the_mean_of_those_that_have_them():
    details = [{"size": 1.0}, {"size": 3.0, "rare": 5.0}]
    found = row(case_of(TRAINED, source("generated", [0.5, 0.4], details=details)), "generated")
    assert found["details"] == {"size": {"best": 1.0, "mean": 2.0}, "rare": {"best": None, "mean": 5.0}}


def test_choice_by_training_data_is_reported_where_it_was_measured():
    assert chosen_by_training_data(case_of(TRAINED, source("generated", [0.5, 0.6]))) is None
    measured = source("generated", [0.5, 0.6, 0.7], train=[0.9, 0.8, 0.7])
    found = chosen_by_training_data(case_of(TRAINED, measured))
    assert found["spearman"] == pytest.approx(-1)
    assert found["regret"] == pytest.approx(0.2)


def test_choosing_by_training_data_stands_beside_choosing_on_select_and_no_choice():
    scores = np.array([[1, 0, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 1, 1]], dtype=float)
    test = scores.mean(1)
    measured = source("generated", test, train=[0.9, 0.8, 0.7, 0.6], select=[0.1, 0.2, 0.4, 0.3], scores=scores)
    found = chosen_by_training_data(case_of(TRAINED, measured))
    assert found["gain"] == pytest.approx(test[0] - test.mean())
    assert found["select"]["gain"] == pytest.approx(1 - test.mean())
    assert found["difference"] == pytest.approx(-0.5)
    low, high = found["difference_ci"]
    assert low < -0.5 < high


def test_a_choice_that_is_dead_has_no_regret_and_no_gain():
    measured = source("generated", [0.5, -math.inf, 0.7], train=[0.8, 0.9, 0.7])
    found = chosen_by_training_data(case_of(TRAINED, measured))
    assert (found["regret"], found["gain"], found["difference"]) == (None, None, None)
    assert found["select"]["gain"] == pytest.approx(0.1)


def test_without_scores_a_choice_has_a_gain_without_an_interval():
    measured = source("generated", [0.5, 0.6, 0.7], train=[0.9, 0.8, 0.7])
    found = chosen_by_training_data(case_of(TRAINED, measured))
    assert found["gain"] == pytest.approx(-0.1)
    assert (found["gain_ci"], found["difference_ci"], found["select"]["gain_ci"]) == (None, None, None)


def test_a_trained_one_leaves_its_branch_out_of_its_similarity():
    case = case_of(TRAINED, source("generated", [0.5, 0.6]))
    similarities = np.linspace(0.2, 0.9, 4)
    assert case.nearest["generated"] == pytest.approx([0.9, 0.9])
    assert case.nearest["trained"] == pytest.approx(similarities[[3, 3, 1, 1]])


def test_nobody_is_similar_to_what_was_held_out():
    case = case_of(TRAINED, source("generated", [0.5, 0.6]), heldout=[2, 3])
    similarities = np.linspace(0.2, 0.9, 4)
    assert case.nearest["generated"] == pytest.approx(similarities[[1, 1]])
    assert case.nearest["trained"] == pytest.approx([np.nan, np.nan, *similarities[[1, 1]]], nan_ok=True)


def test_a_single_branch_leaves_out_what_is_near_in_time_and_shows_nobody_to_be_new():
    case = case_of(trained_of(around(0.8, 30)), source("generated", around(0.8, 20)), branches=1)
    own = case.nearest["trained"]
    similarities = np.linspace(0.2, 0.9, 30)
    assert own[0] == pytest.approx(similarities[-1])
    assert own[-1] < similarities[-1]
    findings = find(case)
    assert findings.novelty.line == "not shown to be new: there is no other branch to hold it against"
    assert findings.copying.line.startswith("copying is not tested: 1 branch is fitted")
    assert findings.copying.line in notes(case, findings)


def test_drift_inside_the_branches_is_noted_with_its_direction():
    better = np.concatenate([around(0.8, 20, seed) + np.linspace(0, 0.1, 20) for seed in range(5)])
    generated = source("generated", around(0.8, 20))
    case = case_of(trained_of(better), generated, branches=5)
    assert drift(case).startswith("the trained still drift: the later half of a branch is better by 0.0")
    assert drift(case) in notes(case, find(case))
    assert "is worse by" in drift(case_of(trained_of(better), generated, branches=5, higher=False))
    assert drift(case_of(trained_of(around(0.8, 100)), generated, branches=5)) is None
    assert drift(case_of(trained_of(better), generated, branches=1)) is None


def test_one_fit_and_a_test_set_without_scores_are_noted():
    case = case_of(TRAINED, source("generated", [0.5, 0.6]))
    found = notes(case, find(case))
    assert "the generated are of one fit: no interval speaks of another. Raise fit.repeats" in found
    assert "the metric has no scores: intervals take the test set as it is" in found
    scored = case_of(TRAINED, source("generated", [0.5, 0.6], scores=np.eye(2)))
    assert "the metric has no scores: intervals take the test set as it is" not in notes(scored, find(scored))


def core() -> list[SourceResults]:
    """Return every core baseline, worse than the trained, by a name of its own."""
    types = ("soup_of", "gaussian", "latent_gaussian", "relative_noise")
    several = [source(f"my {kind}", around(0.5, 12, seed), type=kind) for seed, kind in enumerate(types)]
    return [*several, source("my soup", [0.5], type="soup", scores=np.full((1, 8), 0.5))]


def judged(*baselines, **given) -> Case:
    """Return a case in which the generated are better than everybody."""
    fine = {"scores": np.tile(np.linspace(0.7, 0.9, 8), (12, 1))}
    trained = trained_of(around(0.6, 40), scores=np.full((40, 8), 0.6))
    return case_of(trained, source("generated", around(0.8, 12), **fine), *baselines, branches=4, **given)


def test_better_than_every_core_baseline_is_better():
    assert lacking(judged(*core())) == []
    assert judge(find(judged(*core()))).kind == BETTER


@pytest.mark.parametrize("missing", range(5))
def test_a_core_baseline_that_is_left_out_is_named_by_its_type_and_none_is_better(missing):
    kept = [baseline for number, baseline in enumerate(core()) if number != missing]
    case = judged(*kept)
    (words,) = lacking(case)
    assert core()[missing].type in CORE[words]
    assert judge(find(case)).kind == LEFT_OUT


def test_a_core_baseline_of_too_few_candidates_or_members_does_not_count():
    few = [replace_rows(each, 9) if each.type == "gaussian" else each for each in core()]
    assert lacking(judged(*few)) == ["a Gaussian (gaussian)"]
    assert lacking(judged(*core(), small=["my soup_of"])) == ["averages of a few (soup_of)"]


def replace_rows(each: SourceResults, count: int) -> SourceResults:
    """Return the first candidates of a source."""
    return source(each.name, each.test[:count], type=each.type)


def test_the_name_of_a_source_does_not_make_it_a_core_baseline():
    renamed = [
        each if each.type != "soup_of" else replace(each, name="soup16", type="relative_noise") for each in core()
    ]
    assert lacking(judged(*renamed)) == ["averages of a few (soup_of)"]


def test_absolute_noise_counts_as_noise():
    others = [replace(each, type="absolute_noise") if each.type == "relative_noise" else each for each in core()]
    assert lacking(judged(*others)) == []


def test_more_noise_does_not_change_what_is_said_of_the_trained():
    many = [source(f"noise{k}", around(0.75, 20, seed=k), type="relative_noise") for k in range(40)]
    few, more = (find(judged(*core(), *noises)) for noises in ((), many))
    assert few.main == more.main
    assert judge(few).kind == judge(more).kind == BETTER


def test_the_margin_is_in_deviations_of_the_trained_and_the_room_that_to_the_best_value():
    trained = trained_of(around(0.8, 40))
    case = case_of(trained, source("generated", around(0.8, 12)), branches=4)
    assert find(case).margin == pytest.approx(0.5 * trained.test.std(ddof=1))
    assert find(case).room is None
    best = replace(case, metric=Metric("quality", best=1.0))
    assert find(best).room == pytest.approx(1 - trained.test.mean())


def test_noise_of_equal_quality_is_what_is_not_surely_worse():
    def noises(*means):
        return [source(f"noise{k}", around(mean, 30, k), type="relative_noise") for k, mean in enumerate(means)]

    base = (trained_of(around(0.8, 40)), source("generated", around(0.8, 30, seed=9)))
    assert find(case_of(*base, *noises(0.8, 0.5), branches=4)).novelty.noise == "noise0"
    assert find(case_of(*base, *noises(0.5), branches=4)).novelty.noise is None
    assert find(case_of(*base, *noises(0.9), branches=4)).novelty.noise == "noise0", "better noise is as good"


def test_the_generated_that_are_the_fitted_are_copies():
    rng = torch.Generator().manual_seed(0)
    places = torch.randn(8, 1, 30, generator=rng) + 0.2 * torch.randn(8, 10, 30, generator=rng)
    population = places.flatten(0, 1)
    trained, generated = trained_of(around(0.8, 80)), source("generated", around(0.8, 30))
    held = list(itertools.chain(range(20, 30), range(60, 70)))
    case = case_of(trained, generated, branches=8, heldout=held, population=population)
    copied = replace(generated, vectors=population[:20].repeat(2, 1)[:30])
    case = replace(case, sources={"trained": trained, "generated": copied})
    found = find(case).copying
    assert found.power
    assert found.copies
    fresh = replace(generated, vectors=torch.randn(30, 30, generator=rng))
    assert not find(replace(case, sources={"trained": trained, "generated": fresh})).copying.copies


@pytest.mark.parametrize("given", [{}, {"averages": "soup2", "small": ["soup2"]}])
def test_a_run_without_averages_says_that_likeness_to_them_is_not_tested(given):
    few = source("soup2", around(0.8, 20))
    case = case_of(trained_of(around(0.8, 40)), source("generated", around(0.8, 20)), few, branches=4, **given)
    line = "whether the generated are averages is not tested: "
    assert any(note.startswith(line) for note in notes(case, find(case)))


def erring(name, counts, samples=1000, overlap=True, **given):
    """Return a source of networks that err on so many test samples, the same ones or others each."""
    scores = torch.ones(len(counts), samples)
    for number, count in enumerate(counts):
        scores[number, (0 if overlap else 10 * number) + torch.arange(count)] = 0.0
    return source(name, scores.mean(1).numpy(), scores=scores, **given)


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize(("counts", "kind"), [([0] * 20, SATURATED), ([4] * 20, SATURATED), ([4, 5] * 10, SATURATED)])
def test_a_task_with_a_handful_of_errors_has_no_room(counts, kind, overlap):
    trained = erring("trained", counts, overlap=overlap, parents=np.arange(20))
    case = case_of(trained, erring("generated", counts, overlap=overlap), metric=Metric("accuracy", best=1.0))
    found = find(case)
    assert judge(found).kind == kind
    assert judge(found).line.startswith("saturated: no room to tell: ")
    assert not found.novelty.distinct
    assert "errors on the test samples are too few to tell behaviour apart" in found.novelty.line


@pytest.mark.parametrize(
    "given", [{"counts": [30] * 20}, {"counts": [4] * 20, "samples": 30}, {"counts": [4] * 20, "best": None}]
)
def test_many_errors_or_a_small_test_set_or_an_unknown_best_are_not_saturated(given):
    counts, samples = given["counts"], given.get("samples", 1000)
    trained = erring("trained", counts, samples, parents=np.arange(20))
    metric = Metric("accuracy", best=given.get("best", 1.0))
    case = case_of(trained, erring("generated", counts, samples), metric=metric)
    assert find(case).errors is None or find(case).errors > 5
