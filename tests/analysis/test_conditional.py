"""Sources over conditions: figures of unseen ones alone, chosen by select ones, and paired differences by group."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t

from pdiff.analysis.conditional import (
    KINDS,
    ConditionalCase,
    conditional_comparisons,
    conditional_row,
    conditional_verdict,
    near,
    obeys,
)
from pdiff.analysis.source_results import SourceResults
from pdiff.task.task import Metric
from pdiff.weights.conditions import Conditions

ACCURACY = Metric("accuracy", chance=0.5, best=1.0)
ERROR = Metric("error", higher_is_better=False)


def source(
    name, test, select=None, wanted=None, kind=None, scores=None, measured=(), dead=None, requested=None, fits=None,
    begins=None,
):  # fmt: skip
    """Return results of candidates, one for each condition where `wanted` does not say it."""
    test = np.array(test, dtype=float)
    wanted = np.arange(len(test)) if wanted is None else np.array(wanted)
    select = test if select is None else np.array(select, dtype=float)
    tensors = {} if scores is None else {"test.scores": torch.tensor(scores)}
    values = torch.tensor(wanted.astype(float) if requested is None else requested, dtype=torch.float32)
    return SourceResults(
        name=name,
        vectors=torch.zeros(len(test), 3),
        tensors=tensors,
        metrics={"select": select, "test": test},
        dead=~np.isfinite(test) if dead is None else np.array(dead),
        type=kind or name,
        begins=begins,
        fits=None if fits is None else np.array(fits),
        wanted=wanted,
        measured=list(measured) or [None] * len(test),
        conditions=Conditions(["angle"], values[:, None]),
    )


def case_of(*sources, unseen=None, groups=None, distance=None, metric=ACCURACY, margin=0.5) -> ConditionalCase:
    """Return a case; without other word the first two conditions choose, and each is a group."""
    count = 1 + max(int(found.wanted.max()) for found in sources)
    unseen = np.arange(count) >= 2 if unseen is None else np.array(unseen)
    return ConditionalCase(
        metric,
        {found.name: found for found in sources},
        unseen,
        np.arange(count) if groups is None else np.array(groups),
        np.ones(count) if distance is None else np.array(distance, dtype=float),
        margin,
    )


def test_figures_are_over_unseen_conditions_and_the_choice_over_select_ones():
    found = source("oracle", [0.1, 0.1, 0.8, 0.9, 0.7], select=[0.6, 0.7, 0.1, 0.1, 0.1])
    row = conditional_row(case_of(found), "oracle")
    assert (row["n"], row["units"], row["dead"]) == (3, 3, 0)
    assert row["mean"] == pytest.approx(0.8)
    assert row["std"] == pytest.approx(0.1)
    assert row["select"] == pytest.approx(0.65)
    assert row["worst"] == 0.7
    half = t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert row["ci"] == pytest.approx((0.8 - half, 0.8 + half))
    assert row["to_oracle"] is None


def test_lower_is_better_where_the_metric_says_so():
    oracle = source("oracle", [1, 1, 1.0, 2.0, 3.0])
    other = source("ridge", [1, 1, 1.5, 2.5, 3.5])
    case = case_of(oracle, other, metric=ERROR)
    assert conditional_row(case, "ridge")["worst"] == 3.5
    assert conditional_row(case, "ridge")["to_oracle"]["difference"] == pytest.approx(-0.5)
    assert case.best(["oracle", "ridge"]) == "oracle"


def test_several_candidates_of_a_condition_are_one_figure():
    found = source("oracle", [0, 0, 0.2, 0.4, 0.9], wanted=[0, 1, 2, 2, 3])
    row = conditional_row(case_of(found), "oracle")
    assert (row["n"], row["units"]) == (3, 2)
    assert row["mean"] == pytest.approx((0.3 + 0.9) / 2)
    assert row["worst"] == pytest.approx(0.3)


def test_a_group_counts_once_in_an_interval():
    each = source("oracle", [0, 0, 0.2, 0.6])
    pairs = source("oracle", [0, 0, 0.2, 0.2, 0.6, 0.6])
    one, two = (
        conditional_row(case_of(found, groups=groups), "oracle")
        for found, groups in ((each, [0, 1, 2, 3]), (pairs, [0, 1, 2, 2, 3, 3]))
    )
    assert (two["n"], two["units"]) == (4, 2)
    assert two["ci"] == pytest.approx(one["ci"])


def test_difference_is_paired_by_condition_with_its_groups():
    oracle = source("oracle", [0, 0, 0.9, 0.5, 0.7, 0.3])
    ridge = source("ridge", [0, 0, 0.85, 0.47, 0.63, 0.29])
    found = case_of(oracle, ridge).against("ridge", "oracle", family=3)
    gains = np.array([-0.05, -0.03, -0.07, -0.01])
    error = gains.std(ddof=1) / 2
    assert found.difference == pytest.approx(-0.04)
    assert found.p == pytest.approx(2 * t.sf(0.04 / error, 3))
    assert found.p_adjusted == pytest.approx(3 * found.p)
    assert found.interval == pytest.approx((-0.04 - t.ppf(0.975, 3) * error, -0.04 + t.ppf(0.975, 3) * error))
    grouped = case_of(oracle, ridge, groups=[0, 1, 2, 3, 3, 2]).against("ridge", "oracle")
    sums = np.array([gains[[0, 3]].sum(), gains[[1, 2]].sum()]) + 0.08
    variance = 2 / 1 * (sums**2).sum() / 16
    assert grouped.p == pytest.approx(2 * t.sf(0.04 / math.sqrt(variance), 1))


def test_difference_is_paired_where_several_candidates_meet_one():
    oracle = source("oracle", [0, 0, 0.9, 0.7, 0.5], wanted=[0, 1, 2, 2, 3])
    ridge = source("ridge", [0, 0, 0.7, 0.4])
    assert case_of(oracle, ridge).against("ridge", "oracle").difference == pytest.approx(-0.1)


def test_test_samples_are_drawn_too_where_there_are_scores():
    scores = [[1.0, 0.0, 1.0, 0.0]] * 4, [[1.0, 1.0, 0.0, 0.0]] * 4
    sources = [source(name, [0.5] * 4, scores=own) for name, own in zip(("oracle", "ridge"), scores, strict=True)]
    found = case_of(*sources).against("ridge", "oracle")
    assert found.difference == 0
    assert found.variance == pytest.approx(np.array([0, 1, -1, 0]).var(ddof=1) / 4)
    without = case_of(source("oracle", [0.5] * 4), source("ridge", [0.5] * 4)).against("ridge", "oracle")
    assert (without.variance, without.p) == (0, 1)


def test_columns_are_of_unseen_conditions_each_counted_once():
    scores = [[9.0, 9.0], [9.0, 9.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
    found = source("oracle", [9, 9, 0.5, 0.0, 1.0], wanted=[0, 1, 2, 2, 3], scores=scores)
    assert case_of(found).columns("oracle").tolist() == [(0.5 + 1) / 2, (0.0 + 1) / 2]


def test_a_dead_candidate_counts_as_chance_where_that_is_known():
    scores = [[0.9], [0.9], [math.nan], [0.9]]
    found = source("oracle", [1, 1, -math.inf, 0.9], select=[0.9, -math.inf, 0.9, 0.9], scores=scores)
    case = case_of(found)
    row = conditional_row(case, "oracle")
    assert row["mean"] == pytest.approx(0.7)
    assert row["select"] == pytest.approx(0.7)
    assert row["dead"] == 1
    assert case.columns("oracle") == pytest.approx([0.7])


def test_a_dead_candidate_is_left_out_where_chance_is_not_known():
    oracle = source("oracle", [1, 1, math.inf, 2.0, 4.0], scores=[[1.0], [1.0], [math.nan], [2.0], [4.0]])
    case = case_of(oracle, source("ridge", [1, 1, 2.0, 3.0, 5.0]), metric=ERROR)
    assert conditional_row(case, "oracle")["mean"] == pytest.approx(3)
    assert case.columns("oracle") == pytest.approx([3])
    assert case.against("ridge", "oracle").difference == pytest.approx(-1), "paired where both live"


def test_a_source_that_is_wholly_dead_has_no_figures_and_cannot_be_chosen():
    dead = source("ridge", [math.inf] * 4, scores=[[math.nan]] * 4)
    case = case_of(source("oracle", [1.0] * 4, scores=[[1.0]] * 4), dead, source("generated", [2.0] * 4), metric=ERROR)
    row = conditional_row(case, "ridge")
    assert [row[key] for key in ("mean", "ci", "std", "worst", "select", "to_oracle")] == [None] * 6
    assert (row["dead"], row["near"], row["obeys"]) == (2, [], {})
    assert case.choosable == ["generated"]
    assert conditional_comparisons(case)["ridge"] == {
        "difference": None, "ci": None, "ci_simultaneous": None, "p": None, "p_adjusted": None,
        "relation": "not measured",
    }  # fmt: skip
    assert conditional_verdict(case)[0] == "not decided"


def test_everything_may_be_dead_on_test_alone():
    alive, dead = [1.0] * 4, [1.0, 1.0, math.inf, math.inf]
    sources = [source(name, dead, select=alive, dead=[False] * 4) for name in ("oracle", "ridge", "generated_permuted")]
    case = case_of(*sources, source("generated", [1.0, 1.1, 1.2, 1.3]), metric=ERROR)
    assert conditional_verdict(case)[0] == "not decided"
    del case.sources["generated_permuted"]
    kind, line = conditional_verdict(case)
    assert "no unseen condition has living networks of both the generated and ridge" in line
    assert "with nothing to hold against the oracle" in line
    assert kind in KINDS


def test_a_single_living_condition_has_no_interval():
    oracle, ridge = source("oracle", [1, 1, 2.0, math.inf]), source("ridge", [1, 1, 3.0, 4.0])
    case = case_of(oracle, ridge, metric=ERROR)
    assert conditional_row(case, "oracle")["ci"] is None
    figures = conditional_row(case, "ridge")["to_oracle"]
    assert (figures["difference"], figures["ci"], figures["p"]) == (-1, None, None)


def test_unseen_conditions_of_one_group_have_no_interval():
    oracle, ridge = source("oracle", [1, 1, 0.8, 0.9]), source("ridge", [1, 1, 0.7, 0.6])
    case = case_of(oracle, ridge, groups=[0, 1, 2, 2])
    assert conditional_row(case, "oracle")["ci"] is None
    assert conditional_row(case, "ridge")["to_oracle"]["p"] is None


def test_select_conditions_choose_among_what_a_user_can_have():
    names = ("oracle", "oracle_codec", "generated_permuted", "nearest", "ridge", "generated")
    selects = (0.99, 0.98, 0.97, 0.7, 0.8, 0.75)
    case = case_of(*(source(name, [0, 0, 1, 1], select=[x, x, 0, 0]) for name, x in zip(names, selects, strict=True)))
    assert case.choosable == ["nearest", "ridge", "generated"]
    assert case.best(case.choosable) == "ridge"
    assert case.rival == "ridge"
    assert case.best([]) is None


def test_what_choosing_knows_is_the_data_split_select_on_select_conditions():
    first = source("first", [0.1, 0.1, 0.1, 0.1], select=[0.9, 0.9, 0.1, 0.1])
    second = source("second", [0.9, 0.9, 0.9, 0.9], select=[0.8, 0.8, 0.9, 0.9])
    assert case_of(first, second).best(["first", "second"]) == "first"


def test_what_begins_with_another_source_is_as_little_a_rival_or_a_choice_as_that_one():
    sources = [source("oracle", [0.9] * 4), source("generated", [0.6] * 4), source("ridge", [0.5] * 4)]
    more = {"drawn": "generated", "best": "oracle", "far": "generated_permuted"}
    refined = [source(name, [0.8] * 4, kind="refined", begins=begins) for name, begins in more.items()]
    case = case_of(*sources, *refined)
    assert case.rival == "ridge"
    assert case.choosable == ["generated", "ridge", "drawn"]
    assert case.best(case.choosable) == "drawn"
    near = source("near", [0.7] * 4, kind="refined", begins="nearest")
    assert case_of(*sources, *refined, near).rival == "near"


def test_nobody_is_ahead_of_sources_that_were_left_out():
    rng = np.random.default_rng(0)
    wide = {name: mean + 0.01 * rng.standard_normal(42) for name, mean in {"generated": 0.9, "ridge": 0.5}.items()}
    case = case_of(source("oracle", np.full(42, 0.95)), *(source(name, test) for name, test in wide.items()))
    assert conditional_verdict(case)[0] == "ahead"
    kind, line = conditional_verdict(replace(case, left_out=["nearest"]))
    assert kind == "not decided"
    assert line.startswith("not decided: ahead of ridge, and nobody knows of what was left out: for unseen conditions")


def test_rival_is_no_source_of_the_engine():
    sources = [source("generated", [0.9] * 4), source("mean", [0.8] * 4, kind="generated_mean")]
    assert case_of(*sources).rival is None
    assert case_of(*sources, source("soup", [0.1] * 4)).rival == "soup"


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({}, "behind", "behind ridge: for unseen conditions the generated have accuracy 0.8500, ridge 0.9000 (gain"),
        ({"ridge": 0.85, "nearest": 0.8}, "level", "level with ridge: "),
        ({"ridge": 0.7, "nearest": 0.6}, "ahead", "ahead of every other source: "),
        ({"generated": 0.6, "generated_permuted": 0.6}, "ignores the condition", "ignores the condition: for unseen"),
        ({"generated": 0.5, "generated_permuted": 0.6}, "ignores the condition", "ignores the condition: for unseen"),
    ],
)
def test_verdict_says_how_the_generated_stand(changes, kind, words):
    means = {"oracle": 0.95, "generated": 0.85, "generated_permuted": 0.5, "ridge": 0.9, "nearest": 0.7, **changes}
    wiggle = {name: np.random.default_rng(place).uniform(-0.002, 0.002, 20) for place, name in enumerate(means)}
    case = case_of(*(source(name, mean + wiggle[name] - wiggle[name][2:].mean()) for name, mean in means.items()))
    found, line = conditional_verdict(case)
    assert found == kind
    assert line.startswith(words)
    assert found in KINDS


def test_verdict_is_ahead_of_all_or_not_ahead():
    rng = np.random.default_rng(0)
    noise = [rng.uniform(-0.002, 0.002, 20) for _ in range(4)]
    means = {"oracle": 0.95, "generated": 0.9, "ridge": 0.8, "nearest": 0.9}
    sources = [
        source(name, mean + own, select=[0.5 if name == "nearest" else mean] * 20)
        for (name, mean), own in zip(means.items(), noise, strict=True)
    ]
    case = case_of(*sources)
    assert case.rival == "ridge"
    assert conditional_verdict(case)[0] == "level", "surely ahead of the rival, but not of nearest"


@pytest.mark.parametrize(("margin", "kind"), [(0.5, "level"), (0.1, "not decided")])
def test_difference_that_is_neither_sure_nor_surely_small_decides_nothing(margin, kind):
    rng = np.random.default_rng(0)
    means = {"oracle": (0.9, 0.02), "generated": (0.85, 0.01), "ridge": (0.85, 0.01)}
    sources = [source(name, mean + width * rng.standard_normal(40)) for name, (mean, width) in means.items()]
    found, line = conditional_verdict(case_of(*sources, margin=margin))
    assert found == kind
    words = {"level": "level with ridge: ", "not decided": "not decided how they stand to ridge: "}
    assert line.startswith(words[kind])


def test_a_single_living_condition_decides_nothing():
    sources = [source(name, [0.9, 0.9, 0.9, math.inf], metric) for name, metric in (("oracle", None), ("ridge", None))]
    generated = source("generated", [0.9, 0.9, 0.8, math.inf], dead=[False] * 4)
    assert conditional_verdict(case_of(*sources, generated, metric=ERROR))[0] == "not decided"


def test_draw_of_the_fits_widens_an_interval():
    means, fits, wanted = np.array([0.8, 0.84, 0.86]), np.repeat([0, 1, 2], 7), np.tile(np.arange(7), 3)
    ridge = source("ridge", [0.8] * 7)
    one, three = (
        case_of(ridge, source("generated", means.repeat(7), wanted=wanted, fits=fits)) for fits in (None, fits)
    )
    assert one.against("generated", "ridge").p == 0, "no condition differs from another"
    found, error = three.against("generated", "ridge"), means.std(ddof=1) / math.sqrt(3)
    assert found.difference == pytest.approx(means.mean() - 0.8)
    half = t.ppf(0.975, 2) * error
    assert found.interval == pytest.approx((found.difference - half, found.difference + half))
    assert three.interval("generated") == pytest.approx((means.mean() - half, means.mean() + half))
    assert three.against("ridge", "generated").interval == pytest.approx(tuple(-x for x in found.interval[::-1]))


def test_source_of_many_dead_networks_is_not_the_best_where_chance_is_not_known():
    few, many = ([math.inf] * dead + [0.1] * (20 - dead) for dead in (1, 2))
    unseen = [False] * 20 + [True] * 3
    each = {"few": few, "many": many, "none": [0.2] * 20}
    sources = [source(name, [*found, 0.2, 0.2, 0.2]) for name, found in each.items()]
    case = case_of(*sources, unseen=unseen, metric=ERROR)
    assert case.on_select("many") == pytest.approx(0.1)
    assert case.best(["many", "none"]) == "none"
    assert case.best(["none", "few"]) == "few"
    assert case.best(["many"]) == "many"


def test_dead_networks_come_first_in_a_verdict():
    dead = source("generated", [0.9] * 19 + [-math.inf] * 3)
    case = case_of(source("oracle", [0.9] * 22), dead, source("ridge", [0.1] * 22))
    assert conditional_verdict(case) == ("dead", "dead: 15% of the generated networks are dead")


def test_too_few_conditions_do_not_decide_whether_the_condition_matters():
    case = case_of(
        source("oracle", [0, 0, 0.9, 0.95]),
        source("generated", [0, 0, 0.9, 0.7]),
        source("generated_permuted", [0, 0, 0.5, 0.6]),
        source("ridge", [0, 0, 0.9, 0.9]),
    )
    kind, line = conditional_verdict(case)
    assert kind == "not decided"
    assert line.startswith("not decided whether the condition matters: for unseen conditions the generated have ")


def test_verdict_tells_how_far_the_best_is_from_the_oracle_in_either_direction():
    for metric, ridge, side in ((ACCURACY, 0.8, "worse"), (ERROR, 0.8, "better"), (ERROR, 1, "worse")):
        worst = 0.5 if metric.higher_is_better else 2
        means = {"oracle": 0.9, "generated": worst, "ridge": ridge}
        sources = [source(name, [mean] * 5) for name, mean in means.items()]
        line = conditional_verdict(case_of(*sources, metric=metric))[1]
        assert line.endswith(f"best on select conditions is ridge, 0.1000 {side} than the oracle (0.9000)")


def test_comparisons_are_the_generated_against_each_other_with_a_family_of_all():
    case = case_of(
        source("oracle", [0, 0, 0.9, 0.91, 0.92]),
        source("ridge", [0, 0, 0.9, 0.83, 0.95]),
        source("generated", [0, 0, 0.7, 0.71, 0.72]),
        source("nearest", [0, 0, 0.5, 0.58, 0.5]),
    )
    found = conditional_comparisons(case)
    assert list(found) == ["oracle", "ridge", "nearest"]
    assert found["oracle"]["relation"] == "worse"
    assert found["oracle"]["difference"] == pytest.approx(-0.2)
    assert found["ridge"]["p_adjusted"] == pytest.approx(3 * found["ridge"]["p"])
    assert found["ridge"]["relation"] == "no clear difference (worse if it were the only one)"
    assert found["nearest"]["relation"] in ("better", "no clear difference (better if it were the only one)")


def test_metric_by_distance_one_bin_for_each_of_few():
    found = source("ridge", [0, 0, 0.9, 0.7, 0.5, math.inf])
    case = case_of(found, distance=[9, 9, 1, 1, 2, 3], metric=ERROR)
    assert near(case, "ridge") == [
        {"distance": 1, "mean": pytest.approx(0.8), "n": 2}, {"distance": 2, "mean": 0.5, "n": 1},
    ]  # fmt: skip


def test_metric_by_distance_in_equal_bins_of_many():
    found = source("ridge", np.arange(22.0))
    bins = near(case_of(found, distance=np.arange(22.0)[::-1]), "ridge")
    assert [row["n"] for row in bins] == [4] * 5
    assert [row["distance"] for row in bins] == sorted(row["distance"] for row in bins)
    assert [row["mean"] for row in bins] == sorted((row["mean"] for row in bins), reverse=True)


def test_what_is_equally_far_is_in_one_bin():
    distance = np.array([0, 0, *[1] * 14, 2, 3, 4, 5, 6, 7], dtype=float)
    bins = near(case_of(source("ridge", np.arange(22.0)), distance=distance), "ridge")
    assert [(row["distance"], row["n"]) for row in bins] == [(1, 14), (2.5, 2), (5.5, 4)]


def measured(*values) -> list:
    return [None if value is None else {"angle": value, "speed": 1.0} for value in values]


def test_slope_says_whether_networks_do_what_they_are_asked_for():
    requested = [9.0, 9.0, 0.0, 1.0, 2.0]
    lines = ([0, 1, 2], 1, 1), ([1, 1.5, 2], 0.5, 1), ([5, 5, 5], 0, 0), ([2, 1, 0], -1, -1)
    for values, slope, correlation in lines:
        found = source("ridge", [0.5] * 5, requested=requested, measured=measured(0, 0, *values))
        figures = obeys(case_of(found), "ridge")
        assert list(figures) == ["angle"], "speed is no number of the condition"
        assert figures["angle"] == {"slope": pytest.approx(slope), "correlation": pytest.approx(correlation)}


def test_slope_of_what_overflows_is_what_json_holds():
    found = source("ridge", [0.5] * 5, requested=[0, 0, 0, 1, 2], measured=measured(0, 0, 1.7e308, -1.7e308, 1.7e308))
    json.dumps(obeys(case_of(found), "ridge"), allow_nan=False)


@pytest.mark.parametrize(
    ("values", "requested"),
    [([None] * 5, [0, 1, 2, 3, 4]), ([0, 0, 1.0, None, None], [0, 1, 2, 3, 4]), ([0, 0, 1, 2, 3], [0, 1, 2, 2, 2])],
)
def test_no_slope_of_what_was_not_measured_or_asked_for_once(values, requested):
    found = source("ridge", [0.5] * 5, requested=requested, measured=measured(*values))
    assert obeys(case_of(found), "ridge") == {}
