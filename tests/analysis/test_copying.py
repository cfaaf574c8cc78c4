"""The copying test on branches that are made up: who is a copy, who is none, and where it cannot be told."""

import numpy as np
import pytest
import torch

from pdiff.analysis import copying
from pdiff.analysis.copying import COPYING, Space, examine, statistic
from pdiff.analysis.statistics import Difference
from pdiff.weights.vectors import Made, Rows

STEPS, SIZE, SUBSPACE = 12, 60, 30


class World:
    """Branches of one training: steps that wander around a place of their own, in some of the coordinates."""

    def __init__(self, fitted=6, heldout=3, seed=0):
        self.rng = torch.Generator().manual_seed(seed)
        self.fitted, self.heldout = self.fresh(fitted), self.fresh(heldout)
        numbers = np.arange(fitted + heldout).repeat(STEPS)
        self.branches = numbers[: fitted * STEPS], numbers[fitted * STEPS :]

    def draw(self, *shape):
        """Return draws from a normal distribution."""
        return torch.randn(*shape, generator=self.rng)

    def fresh(self, branches):
        """Return the steps of new branches `(branches * STEPS, SIZE)`."""
        places = self.draw(branches, 1, SUBSPACE) + 0.2 * self.draw(branches, STEPS, SUBSPACE).cumsum(1)
        return torch.cat([places.flatten(0, 1), torch.zeros(branches * STEPS, SIZE - SUBSPACE)], 1)

    def independent(self, count):
        """Return vectors `(count, SIZE)` each of which is of a new branch of its own."""
        return self.fresh(count)[torch.arange(count) * STEPS + torch.arange(count) % STEPS]

    def averages(self, count, members=16):
        """Return averages of some of the fitted."""
        picked = (torch.randperm(len(self.fitted), generator=self.rng)[:members] for _ in range(count))
        return torch.stack([self.fitted[rows].mean(0) for rows in picked])

    def examine(self, generated, codec=lambda vectors: vectors):
        """Return what the test says, with a codec."""
        decode = lambda: (codec(self.fitted), codec(self.heldout))  # noqa: E731
        return examine(generated, self.fitted, self.heldout, decode, self.branches, None, seed=0)


@pytest.fixture(params=range(3))
def world(request):
    """Return branches."""
    return World(seed=request.param)


def test_the_test_has_power_where_branches_are_apart(world):
    found = world.examine(world.fresh(4))
    assert found.power
    assert list(found.controls) == ["codec", "noise", "fresh"]
    assert found.controls["codec"].p < COPYING > found.controls["noise"].p
    assert found.controls["fresh"].p >= COPYING


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_fitted_vectors_with_little_noise_are_copies(world, noise):
    found = world.examine(world.fitted[::2] + noise * world.draw(36, SIZE))
    assert found.copies
    assert found.p < COPYING
    assert found.own < found.halfway < found.reference
    assert found.share > 0.9
    assert found.p_raw < COPYING


def test_what_a_codec_makes_of_the_fitted_are_copies_though_it_loses_much(world):
    axes = torch.linalg.svd(world.fitted - world.fitted.mean(0), full_matrices=False)[2][:8]

    def codec(vectors):
        return world.fitted.mean(0) + (vectors - world.fitted.mean(0)) @ axes.T @ axes

    assert world.examine(codec(world.fitted[::2]), codec).copies


def test_fresh_branches_are_no_copies():
    found = [World(seed=seed) for seed in range(30)]
    found = [world.examine(world.independent(40)) for world in found]
    assert not any(each.copies for each in found)
    assert np.mean([each.share for each in found]) <= 0.15


@pytest.mark.parametrize("members", [8, 16, 40])
def test_averages_are_no_copies(world, members):
    assert not world.examine(world.averages(40, members)).copies


@pytest.mark.parametrize("factor", [0.9, 0.5])
def test_fresh_branches_that_are_pulled_to_the_average_are_no_copies(world, factor):
    mean = world.fitted.mean(0)
    assert not world.examine(mean + factor * (world.independent(40) - mean)).copies


def test_noise_on_coordinates_that_never_move_does_not_hide_a_copy(world):
    generated = world.fitted.clone()
    generated[:, SUBSPACE:] += world.draw(len(generated), SIZE - SUBSPACE)
    assert world.examine(generated).copies


def test_copying_a_few_shows_in_their_share(world):
    mixed = torch.cat([world.independent(40), world.fitted[:12]])
    assert world.examine(mixed).share >= 0.2


def test_a_codec_that_gives_the_average_alone_leaves_no_power_and_accuses_nobody(world):
    found = world.examine(world.fitted, lambda vectors: world.fitted.mean(0).expand(vectors.shape))
    assert not found.power
    assert not found.copies
    assert not found.controls["codec"].as_expected
    assert found.line.startswith("the copying test has no power here, its controls (codec")


def test_held_out_branches_that_are_copies_themselves_leave_no_power():
    world = World(fitted=8, heldout=4)
    world.heldout = world.fitted[: len(world.heldout)] + 0.01 * world.draw(*world.heldout.shape)
    found = world.examine(world.fitted)
    assert not found.controls["fresh"].as_expected
    assert not found.copies


@pytest.mark.parametrize(
    ("fitted", "heldout", "key"), [(1, 0, ""), (2, 1, ""), (3, 0, ""), (5, 0, "raise fit.heldout, or ")]
)
def test_too_few_branches_are_told_in_one_line_without_a_number(fitted, heldout, key):
    world = World(fitted, heldout)
    found = world.examine(world.fitted)
    words = "1 branch is" if fitted == 1 else f"{fitted} branches are"
    assert found.line == (
        f"copying is not tested: {words} fitted and {heldout} held out, expected at least 3 and one: "
        f"{key}collect more, in several branches (collect.branches)"
    )
    assert {getattr(found, name) for name in ("statistic", "p", "p_raw", "own", "reference", "share")} == {None}
    assert (found.controls, found.power, found.copies) == ({}, False, False)


def test_a_single_vector_is_not_tested(world):
    assert world.examine(world.fitted[:1]).line.startswith("copying is not tested: a single vector was generated")


@pytest.mark.parametrize("lost", [torch.nan, torch.inf, 1e30])
def test_a_vector_without_a_distance_hides_no_copies(world, lost):
    copies = world.fitted.clone()
    copies[0] = lost
    assert world.examine(copies).copies
    copies[1:] = lost
    found = world.examine(copies)
    assert found.line.startswith("copying is not tested: fewer than two of the generated are finite")
    assert found.p is None


def test_a_held_out_block_of_the_one_branch_is_no_new_branch():
    world = World(1, 1)
    world.branches = tuple(np.zeros_like(labels) for labels in world.branches)
    assert world.examine(world.fitted).line.startswith("copying is not tested: 1 branch is fitted and 0 held out")


def test_the_line_names_the_ratios(world):
    found = world.examine(world.fresh(4))
    assert f"the generated lie {found.own:.2f} times as far" in found.line
    assert "\n" not in found.line
    assert found.to_json()["power"] is True
    assert found.to_json()["controls"]["fresh"]["as_expected"] is True


def test_the_same_seed_gives_the_same_controls(world):
    generated = world.fresh(3)
    assert world.examine(generated) == world.examine(generated)


def test_vectors_that_are_made_or_read_a_few_at_a_time_give_the_same(world):
    generated, numbers = world.independent(20), list(range(len(world.fitted)))
    whole = world.examine(generated)
    world.fitted = Rows(world.fitted, numbers)
    parts = Made(generated.shape, lambda rows, rng: generated[rows], torch.Generator())
    assert world.examine(parts).p == pytest.approx(whole.p, rel=1e-3)


@pytest.mark.parametrize("size", [SIZE, 24])
def test_of_very_many_vectors_some_of_each_branch_tell_the_same(world, monkeypatch, size):
    copies, fresh = world.fitted + 0.05 * world.draw(*world.fitted.shape), world.independent(40)
    whole = [world.examine(generated) for generated in (copies, fresh)]
    for name in ("pdiff.analysis.copying.MOST", "pdiff.analysis.neighbours.MOST"):
        monkeypatch.setattr(name, 30)
    monkeypatch.setattr("pdiff.weights.gram.MOST", size)
    monkeypatch.setattr(copying, "MOST_POINTS", 24)
    few = [world.examine(generated) for generated in (copies, fresh)]
    assert [found.copies for found in few] == [found.copies for found in whole] == [True, False]
    assert [found.own for found in few] == pytest.approx([found.own for found in whole], rel=1e-3)
    assert [found.reference for found in few] == pytest.approx([found.reference for found in whole], rel=0.2)
    assert all(found.power for found in few)


def test_vectors_that_never_differ_accuse_nobody():
    world = World()
    world.fitted, world.heldout = (torch.ones_like(vectors) for vectors in (world.fitted, world.heldout))
    assert not world.examine(torch.ones(5, SIZE)).copies


def test_the_ratio_is_that_of_the_nearest_branch_to_the_second():
    space = Space(torch.tensor([[0.0], [1.0], [10.0], [30.0]]), np.array([0, 0, 1, 2]))
    left_out_in_turn = [(6 / 26 * 3 / 26 * 3 / 6) ** (1 / 3), (9 / 29 * 1e-3**2) ** (1 / 3)]
    assert np.exp(space.ratios(torch.tensor([[4.0], [1.0]]))) == pytest.approx(left_out_in_turn)
    assert np.exp(space.ratios(torch.tensor([[4.0]]), np.array([0]))) == pytest.approx([6 / 26])


def test_fits_are_what_the_generated_share(world):
    generated, fits = world.fresh(4), np.arange(4 * STEPS) % 4
    space, points = Space(world.fitted, world.branches[0]), (world.fitted, world.heldout)
    found = [copying.tested(generated, space, points, world.branches, labels)[0] for labels in (None, fits)]
    assert [difference.components[0].count for difference in found] == [48, 4]


def test_a_difference_that_never_varies_has_a_sign_all_the_same():
    assert statistic(Difference(-0.5, ())) < -1e6
