"""Each verdict from findings that are made for it, and none from what does not belong to it."""

import itertools
import math
from dataclasses import replace

import pytest

from pdiff.analysis.copying import Control, Copying, untested
from pdiff.analysis.novelty import Averaging, Novelty
from pdiff.analysis.statistics import Component, Difference
from pdiff.analysis.verdict import (
    AS_GOOD,
    AVERAGE_LIKE,
    BETTER,
    COPIES,
    DEAD,
    KINDS,
    LEFT_OUT,
    NOT_DECIDED,
    SATURATED,
    WORSE,
    Findings,
    judge,
    others,
    quality,
)
from pdiff.weights.origin import FILES

RIGHT = dict.fromkeys(("codec", "noise", "fresh"), Control(0.5, True))
CLOSE = Copying(-9.0, 1e-9, 1e-9, 0.1, 0.9, 0.5, 1.0, RIGHT, "the generated lie close")
FAR = replace(CLOSE, p=0.5, own=0.9, line="the generated lie far")
SAME = Novelty(0.9, 0.9, None, None, False, "not shown to be new")


def gain(value: float, error: float = 0.01, family: int = 1) -> Difference:
    """Return a difference of means with a standard error, of candidates and of a thousand test samples."""
    parts = (Component("branches of trained", error**2, 19, 20), Component("test samples", 1e-10, 999, 1000))
    return Difference(value, parts, family)


UNKNOWN = Difference(0.1, (Component("branches of trained", math.nan, 0, 1),))
LIKE_AVERAGES = Averaging(gain(0.95), gain(0.5))


def findings(trained: Difference | float = 0.0, others: dict | None = None, **given) -> Findings:
    """Return findings of a metric whose margin is 0.05, of generated ones that are no copies and not averages."""
    main = trained if isinstance(trained, Difference) else gain(trained)
    compared = {"trained": main, **(others or {})}
    values = {
        "metric": "accuracy",
        "dead": 0.0,
        "means": {"generated": 0.8, **{name: 0.8 - found.difference for name, found in compared.items()}},
        "differences": compared,
        "margin": 0.05,
        "room": 0.2,
        "lacking": [],
        "copying": FAR,
        "averaging": None,
        "averages": None,
        "novelty": SAME,
    }
    return Findings(**(values | given))


def averages(value: float) -> dict:
    """Return settings of generated ones that behave like averages, with a gain over these."""
    return {"others": {"soup16": gain(value)}, "averaging": LIKE_AVERAGES, "averages": "soup16"}


CASES = {
    DEAD: findings(dead=0.1),
    COPIES: findings(copying=CLOSE),
    AVERAGE_LIKE: findings(**averages(0.0)),
    WORSE: findings(-0.1),
    BETTER: findings(0.1, {"soup": gain(0.1)}),
    LEFT_OUT: findings(0.1, {"soup": gain(0.1)}, lacking=["a Gaussian (gaussian)"]),
    SATURATED: findings(room=0.001),
    AS_GOOD: findings(),
    NOT_DECIDED: findings(gain(0.0, 0.1)),
}


def test_every_kind_has_a_case():
    assert tuple(CASES) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_verdict_is_of_the_kind_and_one_line(kind):
    found = judge(CASES[kind])
    assert found.kind == kind
    assert found.line.startswith(f"{kind}: ")
    assert "\n" not in found.line


def test_whatever_is_found_one_verdict_follows():
    mains = (*map(gain, (0.1, -0.1, 0.0)), gain(0.0, 0.1), UNKNOWN)
    baselines = ({}, {"soup16": gain(0.1)}, {"soup16": gain(0.0)}, {"soup16": UNKNOWN})
    kinds = set()
    for dead, copied, main, baseline, lacking, room in itertools.product(
        (0.0, 0.5), (CLOSE, FAR, untested("one branch")), mains, baselines, ([], ["soup"]), (None, 0.001, 0.2)
    ):
        averaging = LIKE_AVERAGES if baseline else None
        given = {"dead": dead, "copying": copied, "lacking": lacking, "room": room}
        for each in {averaging, None}:
            name = "soup16" if each else None
            kinds.add(judge(findings(main, baseline, averaging=each, averages=name, **given)).kind)
    assert kinds == set(KINDS)


def test_rules_are_tried_in_their_order():
    everything = findings(
        0.1, {"soup16": gain(0.0)}, dead=0.5, copying=CLOSE, averaging=LIKE_AVERAGES, averages="soup16"
    )
    assert judge(everything).kind == DEAD
    assert judge(replace(everything, dead=0.09)).kind == COPIES
    assert judge(replace(everything, dead=0.09, copying=FAR)).kind == AVERAGE_LIKE


def test_where_all_are_dead_there_is_a_verdict_still():
    nobody = findings(dead=1.0, means={"trained": 0.8}, differences={}, copying=untested("all are dead"))
    assert judge(nobody).line == "dead: 100% of the generated are dead"
    assert others(nobody) == ""


def test_copies_are_copies_whatever_they_reach():
    assert [judge(findings(value, copying=CLOSE)).kind for value in (-0.2, 0.0, 0.2)] == [COPIES] * 3


@pytest.mark.parametrize(
    "acquitted",
    [
        replace(CLOSE, controls={**RIGHT, "codec": Control(0.5, False)}),
        replace(CLOSE, controls={}),
        replace(CLOSE, own=0.6),
        replace(CLOSE, p=0.02),
    ],
    ids=["a control is wrong", "no control", "above halfway", "not sure"],
)
def test_no_copies_without_power_closeness_and_certainty(acquitted):
    assert judge(findings(copying=acquitted)).kind == AS_GOOD


def test_averages_that_are_better_are_not_average_like():
    assert judge(findings(0.1, **averages(0.1))).kind == BETTER
    assert judge(findings(0.1, **averages(0.005))).kind == AVERAGE_LIKE


@pytest.mark.parametrize(
    "unlike",
    [
        Averaging(gain(0.95), gain(0.8)),
        Averaging(gain(0.7), gain(0.5)),
        Averaging(gain(0.95), gain(0.7, 0.1)),
        Averaging(gain(0.8, 0.3), gain(0.5)),
        Averaging(gain(0.95), UNKNOWN),
    ],
    ids=["told apart", "averages cannot be told", "generated not sure", "trained not sure", "no interval"],
)
def test_nothing_is_average_like_that_may_be_told_from_averages(unlike):
    assert judge(findings(**{**averages(0.0), "averaging": unlike})).kind == AS_GOOD


def test_surely_worse_but_within_the_margin_is_as_good():
    slightly = gain(-0.01, 0.001)
    assert slightly.p < 0.05
    assert judge(findings(slightly)).kind == AS_GOOD
    assert judge(findings(slightly, margin=0.011)).kind == WORSE


def test_no_margin_leaves_what_is_surely_not_worse_as_good():
    alike = Difference(0.0, (Component("branches of trained", 0.0, 19, 20),))
    assert judge(findings(alike, margin=0.0)).kind == AS_GOOD
    assert judge(findings(gain(0.0, 0.01), margin=0.0)).kind == NOT_DECIDED


def test_better_means_than_every_baseline():
    assert judge(findings(0.1, {"soup": gain(0.005)})).kind == AS_GOOD
    line = judge(findings(0.1, {"soup": gain(0.06), "noise": gain(0.2)})).line
    assert "the closest: accuracy 0.8000 against 0.7400 of soup" in line
    unknown = findings(0.1, {"soup": Difference(0.1, (Component("c", 0.0, math.inf, 1),))})
    assert judge(unknown).kind == AS_GOOD, "single candidates without scores"


def test_left_out_baselines_are_named():
    assert "but without a Gaussian (gaussian); accuracy" in judge(CASES[LEFT_OUT]).line


def test_more_sources_do_not_change_the_comparison_with_the_trained():
    few = findings(-0.08, {"soup": gain(-0.1)})
    many = findings(-0.08, {f"noise{k}": gain(-0.1 + k / 100, family=40) for k in range(40)})
    assert few.main == many.main
    assert few.relation("trained") == many.relation("trained") == -1
    assert judge(few).kind == judge(many).kind == WORSE
    assert judge(few).line == judge(many).line


def test_being_better_than_all_needs_no_correction_for_their_number():
    assert judge(findings(0.1, {f"noise{k}": gain(0.025, family=40) for k in range(40)})).kind == BETTER


@pytest.mark.parametrize(("room", "kind"), [(None, AS_GOOD), (0.2, AS_GOOD), (0.01, SATURATED)])
def test_saturated_is_where_the_trained_leave_less_than_the_test_can_tell(room, kind):
    assert judge(findings(room=room)).kind == kind


def test_saturation_does_not_hide_the_worse():
    assert judge(findings(-0.1, room=0.001)).kind == WORSE


def test_undecided_names_what_would_decide():
    line = judge(findings(gain(0.0, 0.1))).line
    assert "margin -0.0500; about " in line
    assert "branches of trained (now 20) would decide" in line


def test_undecided_without_an_interval_says_what_lacks():
    line = judge(findings(UNKNOWN)).line
    assert line.startswith("not decided: ")
    assert "without an interval" in line
    assert line.endswith("for a test: collect more, in several branches (collect.branches)")


def test_undecided_of_files_asks_for_files():
    line = judge(findings(UNKNOWN, origin=FILES)).line
    assert line.endswith("for a test: bring files of more trainings of one network")


def test_baselines_are_named_by_how_the_generated_stand_to_them():
    found = findings(0.1, {"soup": gain(-0.1), "noise": gain(0.1), "codec": gain(0.0), "many": gain(0.025, family=40)})
    assert others(found) == (
        "better than noise; no clear difference to codec, many (better if it were the only one); worse than soup"
    )
    assert (found.relation("many"), found.relation("many", together=False)) == (0, 1)


def test_as_good_says_why_an_interval_that_leaves_out_0_is_not_more():
    better = judge(findings(0.1, {"soup": gain(0.0), "noise": gain(0.2)}))
    assert better.kind == AS_GOOD
    assert better.line.endswith(": better than the trained, but not surely than soup")
    worse = judge(findings(gain(-0.02, 0.005)))
    assert worse.kind == AS_GOOD
    assert worse.line.endswith(": worse, but by less than the margin")


def test_copies_and_averages_are_told_how_good_they_are_too():
    for kind in (COPIES, AVERAGE_LIKE):
        assert quality(CASES[kind]).kind == AS_GOOD
    assert quality(CASES[DEAD]) is None


@pytest.mark.parametrize(("errors", "kind"), [(0.0, SATURATED), (5.0, SATURATED), (6.0, AS_GOOD), (None, AS_GOOD)])
def test_a_handful_of_errors_leaves_no_room(errors, kind):
    assert judge(findings(errors=errors)).kind == kind
    assert judge(findings(gain(0.0, 0.1), errors=errors)).kind == (SATURATED if kind == SATURATED else NOT_DECIDED)
    assert judge(findings(-0.1, errors=errors)).kind == WORSE


def test_what_a_comparison_by_itself_says_stands_beside_its_name():
    compared = {name: gain(value, family=9) for name, value in zip("abcd", (0.022, -0.022, 0.0, 0.1), strict=True)}
    assert others(findings(others=compared)) == (
        "better than d; no clear difference to a (better if it were the only one), b (worse if it were the only one), c"
    )
