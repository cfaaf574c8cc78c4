"""Each verdict on a population that is made for it: vectors, and behaviour that follows from them."""

import dataclasses
import itertools

import pytest
import torch

from pdiff.analysis.novelty import Averaging, Copying, averaging, copying
from pdiff.analysis.statistics import Difference, differences, holm
from pdiff.analysis.verdict import AS_GOOD, AVERAGE_LIKE, BETTER, COPIES, KINDS, WORSE, Findings, judge
from pdiff.task.similarity import error_iou

P, SAMPLES, BEHAVIOUR = 60, 400, 12  # behaviour follows from the first 12 of 60 parameters


class World:
    """Networks whose behaviour follows from their vector, and trained ones of them."""

    def __init__(self, seed=0):
        self.rng = torch.Generator().manual_seed(seed)
        self.hardness = self.draw(SAMPLES) - 1
        self.inputs = 0.3 * self.draw(SAMPLES, BEHAVIOUR)
        self.trained, self.heldout = self.fresh(100), self.fresh(12)
        self.soup16 = self.averages(16, 50)

    def draw(self, *shape):
        """Return draws from a normal distribution."""
        return torch.randn(*shape, generator=self.rng)

    def fresh(self, count):
        """Return vectors of the distribution that the trained ones are from: wide in what makes behaviour."""
        return torch.cat([self.draw(count, BEHAVIOUR), 0.01 * self.draw(count, P - BEHAVIOUR)], 1)

    def averages(self, members, count):
        """Return averages of some of the trained vectors."""
        draws = [torch.randperm(len(self.trained), generator=self.rng)[:members] for _ in range(count)]
        return torch.stack([self.trained[draw].mean(0) for draw in draws])

    def copies(self):
        """Return the trained vectors with a little noise."""
        return self.trained + 0.001 * self.draw(*self.trained.shape)

    def wrong(self, vectors, quality):
        """Return signatures `(M, SAMPLES)`."""
        return vectors[:, :BEHAVIOUR] @ self.inputs.T + quality < self.hardness

    def findings(self, generated, quality=0.0, higher_is_better=True, heldout=True, dead=0.0):
        """Return what the verdict follows from, by the functions that a run uses."""
        vectors = {
            "trained": self.trained,
            "generated": generated,
            "soup": self.trained.mean(0, keepdim=True),
            "soup16": self.soup16,
        }
        wrong = {name: self.wrong(v, quality if name == "generated" else 0.0) for name, v in vectors.items()}
        to_soup = {name: error_iou(signature, wrong["soup"])[:, 0].numpy() for name, signature in wrong.items()}
        scores = {name: (~signature if higher_is_better else signature).numpy() for name, signature in wrong.items()}
        subject = scores.pop("generated")
        found = differences(subject, scores, higher_is_better, 1000, 0)
        return Findings(
            metric="accuracy" if higher_is_better else "error",
            dead=dead,
            means={name: float(s.mean()) for name, s in {"generated": subject, **scores}.items()},
            differences=found,
            p_adjusted=dict(zip(found, holm([one.p for one in found.values()]).tolist(), strict=True)),
            copying=copying(generated, self.trained, self.heldout if heldout else None),
            averaging=averaging(to_soup["generated"], to_soup["trained"], to_soup["soup16"]),
            averages="soup16",
        )


@pytest.fixture
def world():
    """Return networks and trained ones of them."""
    return World()


both_directions = pytest.mark.parametrize("higher_is_better", [True, False])


@both_directions
def test_trained_vectors_with_little_noise_are_copies(world, higher_is_better):
    found = judge(world.findings(world.copies(), higher_is_better=higher_is_better))
    assert found.kind == COPIES
    assert "from the nearest trained vector" in found.line


def test_copies_that_are_better_than_everything_are_copies_still(world):
    assert judge(world.findings(world.copies(), quality=0.5)).kind == COPIES


def test_noise_on_parameters_that_never_move_does_not_hide_copies(world):
    generated = world.trained.clone()
    generated[:, BEHAVIOUR:] += world.draw(100, P - BEHAVIOUR)
    assert judge(world.findings(generated)).kind == COPIES


def test_copies_are_found_where_nothing_was_held_out(world):
    assert judge(world.findings(world.trained[:40], heldout=False)).kind == COPIES


@both_directions
def test_averages_are_average_like(world, higher_is_better):
    generated = world.averages(12, 80)
    found = judge(world.findings(generated, higher_is_better=higher_is_better))
    assert found.kind == AVERAGE_LIKE
    assert "of soup16 (gain" in found.line


def test_a_generator_that_always_gives_the_average_is_average_like(world):
    generated = world.trained.mean(0) + 0.01 * world.draw(50, P)
    assert judge(world.findings(generated)).kind == AVERAGE_LIKE


def test_what_behaves_like_averages_but_better_is_not_average_like(world):
    generated = world.trained.mean(0) + 0.01 * world.draw(50, P)
    assert judge(world.findings(generated, quality=0.1)).kind == BETTER


@both_directions
def test_fresh_draws_of_lower_quality_are_distinct_but_worse(world, higher_is_better):
    found = judge(world.findings(world.fresh(80), quality=-0.5, higher_is_better=higher_is_better))
    assert found.kind == WORSE
    assert "of trained (gain -0." in found.line


@both_directions
def test_fresh_draws_of_the_same_distribution_are_distinct_and_as_good(world, higher_is_better):
    found = judge(world.findings(world.fresh(80), higher_is_better=higher_is_better))
    assert found.kind == AS_GOOD
    assert "no clear difference to trained" in found.line


@both_directions
def test_fresh_draws_of_higher_quality_are_better_than_every_baseline(world, higher_is_better):
    found = judge(world.findings(world.fresh(80), quality=0.8, higher_is_better=higher_is_better))
    assert found.kind == BETTER
    assert "gain +0." in found.line


@pytest.mark.parametrize("factor", [0.9, 0.7, 0.5])
def test_draws_that_are_pulled_to_the_average_are_no_copies(world, factor):
    assert judge(world.findings(factor * world.fresh(80))).kind != COPIES


@pytest.mark.parametrize("seed", range(1, 7))
def test_the_verdict_does_not_hang_on_the_seed(seed):
    world = World(seed)
    averages = world.averages(16, 60)
    kinds = [
        judge(world.findings(generated, quality)).kind
        for generated, quality in (
            (world.copies(), 0.0),
            (averages, 0.0),
            (world.fresh(80), -0.5),
            (world.fresh(80), 0.0),
            (world.fresh(80), 0.8),
        )
    ]
    assert kinds == [COPIES, AVERAGE_LIKE, WORSE, AS_GOOD, BETTER]


def test_a_tenth_of_dead_candidates_is_worse_whatever_the_living_reach(world):
    findings = world.findings(world.fresh(80), quality=0.8)
    assert judge(dataclasses.replace(findings, dead=0.09)).kind == BETTER
    found = judge(dataclasses.replace(findings, dead=0.1))
    assert (found.kind, found.line) == (WORSE, "distinct but worse: 10% of the generated are dead")


def test_a_source_without_any_living_candidate_is_judged():
    found = judge(Findings("accuracy", 1.0, {"trained": 0.9}, {}, {}, Copying(9.0, 1.0, False, 9.0, 1.0), None))
    assert found.line == "distinct but worse: 100% of the generated are dead"


def test_the_line_says_how_the_generated_stand_to_every_other_source():
    gains = {"trained": 0.001, "soup": -0.02, "noise": 0.03}
    findings = Findings(
        metric="accuracy",
        dead=0.0,
        means={"generated": 0.9, **{name: 0.9 - gain for name, gain in gains.items()}},
        differences={name: Difference(gain, (gain - 0.01, gain + 0.01), 0.0) for name, gain in gains.items()},
        p_adjusted={"trained": 0.9, "soup": 0.01, "noise": 0.01},
        copying=Copying(0.0, 0.5, False, 1.0, 1.0),
        averaging=None,
    )
    assert judge(findings).line == (
        "distinct and as good: mean accuracy 0.9000 against 0.8990 of trained (gain +0.0010, 95 % interval -0.0090 to "
        "+0.0110); better than noise; no clear difference to trained; worse than soup"
    )


def test_whatever_is_found_exactly_one_verdict_follows():
    close, far = Copying(-9.0, 1e-9, True, 0.1, 1.0), Copying(2.0, 0.9, False, 1.0, 0.9)
    averagings = (None, Averaging(0.9, 0.5), Averaging(0.9, 0.9), Averaging(0.5, 0.5))
    relations = ((0.1, 0.001), (-0.1, 0.001), (0.1, 0.5))
    seen = set()
    for dead, copied, averages, trained, soup16 in itertools.product(
        (0.0, 0.5), (close, far), averagings, relations, relations
    ):
        pairs = {"trained": trained, "soup16": soup16}
        found = judge(
            Findings(
                "error",
                dead,
                dict.fromkeys(["generated", *pairs], 0.5),
                {name: Difference(gain, (gain - 1, gain + 1), p) for name, (gain, p) in pairs.items()},
                {name: p for name, (_, p) in pairs.items()},
                copied,
                averages,
                "soup16",
            )
        )
        assert found.line.startswith(f"{found.kind}: ")
        assert "\n" not in found.line
        seen.add(found.kind)
    assert seen == set(KINDS)
