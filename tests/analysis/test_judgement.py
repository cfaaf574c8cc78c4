"""What follows from evaluations, on sources that are made up."""

import math

import numpy as np
import pytest
import torch

from pdiff.analysis.judgement import Case, chosen_by_training_data, comparisons, find, row
from pdiff.analysis.references import Place
from pdiff.analysis.source_results import SourceResults
from pdiff.task.task import Metric


def source(name: str, test, *, select=None, train=None, ndim: int = 2, details=()) -> SourceResults:
    """Return a source whose vectors are random, with an error on every second sample."""
    test = np.array(test, dtype=float)
    metrics = {"select": test if select is None else np.array(select, dtype=float), "test": test}
    if train is not None:
        metrics["train"] = np.array(train, dtype=float)
    rng = torch.Generator().manual_seed(len(name))
    shape = (len(test), 3, 6) if ndim == 3 else (len(test), 6)
    signature = torch.arange(8).expand(len(test), 8) % 2 == 0
    return SourceResults(name, torch.randn(shape, generator=rng), {"test.signature": signature}, metrics, list(details))


def case_of(*sources: SourceResults, higher: bool = True, heldout: int = 2) -> Case:
    """Return a case in which everybody is as similar to the first trained one as can be."""
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
    metric = Metric("quality", higher)
    return Case(metric, by_name, similarities, {}, places, trained[heldout:], trained[:heldout], resamples=200, seed=0)


TRAINED = source("trained", [0.5, 0.6, 0.7, 0.6])


def test_best_is_that_of_select_and_reported_on_test():
    generated = source("generated", [0.1, 0.9, 0.5], select=[0.8, 0.2, 0.3])
    found = row(case_of(TRAINED, generated), "generated")
    assert (found["best_index"], found["best"], found["worst"]) == (0, 0.1, 0.1)
    lowest = row(case_of(TRAINED, generated, higher=False), "generated")
    assert (lowest["best_index"], lowest["best"], lowest["worst"]) == (1, 0.9, 0.9)


def test_means_are_those_of_the_living_and_the_dead_are_counted():
    generated = source("generated", [0.4, -math.inf, 0.6])
    found = row(case_of(TRAINED, generated), "generated")
    assert (found["n"], found["dead"]) == (3, 1)
    assert found["mean"] == pytest.approx(0.5)
    assert found["worst"] is None, "JSON has no infinity"
    assert found["mean_ci"][0] <= 0.5 <= found["mean_ci"][1]


def test_where_all_are_dead_there_is_nothing_to_compare():
    case = case_of(TRAINED, source("generated", [math.inf, math.inf]), higher=False)
    findings = find(case)
    assert findings.dead == 1
    assert comparisons(case, findings) == {}
    assert row(case, "generated")["mean"] is None


def test_an_ensemble_lies_nowhere_and_a_single_candidate_has_no_interval():
    found = row(case_of(TRAINED, source("generated", [0.5, 0.6]), source("ensemble", [0.7], ndim=3)), "ensemble")
    assert (found["distance"], found["spread"], found["marginal"], found["mean_ci"]) == (None, None, None, None)


def test_every_source_has_the_budget_of_the_smallest_of_several():
    case = case_of(TRAINED, source("generated", [0.5, 0.6]), source("soup", [0.7]))
    assert case.budget == 2
    assert row(case, "soup")["best_of"] == 0.7
    assert row(case, "trained")["best_of"] < 0.7, "the best of four, when two are drawn"


@pytest.mark.parametrize("higher", [True, False])
def test_generated_are_set_against_every_other_source(higher):
    better, worse = [0.91, 0.92, 0.93], [0.11, 0.12, 0.13]
    case = case_of(TRAINED, source("generated", better if higher else worse), source("soup", [0.5]), higher=higher)
    found = comparisons(case, find(case))
    assert list(found) == ["trained", "soup"]
    assert all(figures["difference"] > 0 and figures["superiority"] == 1 for figures in found.values())
    assert found["trained"]["p"] <= found["trained"]["p_adjusted"] < 0.05


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


def test_a_trained_one_leaves_itself_out_of_its_similarity():
    case = case_of(TRAINED, source("generated", [0.5, 0.6]))
    assert case.nearest("generated").tolist() == pytest.approx([0.9, 0.9])
    assert case.nearest("trained")[-1] < 0.9
