"""Sources for a target, and of several generated vectors at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pdiff.run.sources import Drawn, Pool
from pdiff.run.target_sources import ensemble_of, generated_ensemble, generated_soup, ridge_gaussian
from pdiff.run.targets import Targets, groups_of
from pdiff.runtime.errors import PdiffError
from pdiff.weights.layout import Layout

LAYOUT = Layout.of({"weight": torch.zeros(4)})
COUNT = 400


@pytest.fixture
def rng():
    """Return a seeded generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def pool(rng) -> Pool:
    """Return what a source draws from: of three numbers of a vector two follow its target; the codec doubles."""
    values = torch.rand(COUNT, 1, generator=rng)
    noise = torch.randn(COUNT, 4, generator=rng) * torch.tensor([0.05, 0.1, 0.2, 0.0])
    vectors = values * torch.tensor([1.0, -2.0, 0.0, 0.0]) + noise + torch.tensor([0.0, 0.0, 0.0, 3.0])
    targets = Targets(("accuracy",), values, torch.tensor([0.95]), np.arange(COUNT) // 10)
    generated = torch.randn(20, 4, generator=rng)
    return Pool(
        vectors, torch.arange(COUNT), generated, LAYOUT, lambda v: v[:], lambda z: 2 * z, num=7, targets=targets
    )


def test_ridge_gaussian_lies_about_the_line_at_the_target_with_what_the_line_leaves(pool, rng):
    vectors = ridge_gaussian(pool, rng, num=20000)[:]
    torch.testing.assert_close(vectors.mean(0), 2 * torch.tensor([0.95, -1.9, 0.0, 3.0]), atol=0.1, rtol=0)
    torch.testing.assert_close(vectors.std(0), 2 * torch.tensor([0.05, 0.1, 0.2, 0.0]), atol=0.03, rtol=0)


def test_ridge_gaussian_of_degree_two_follows_a_bend(pool, rng):
    bent = pool.population.clone()
    bent[:, 2] += 5 * (pool.targets.values[:, 0] - 0.5).square()
    other = replace(pool, population=bent)
    straight, curved = (ridge_gaussian(other, rng, degree=degree, num=5000)[:].mean(0)[2] for degree in (1, 2))
    assert curved == pytest.approx(2 * 5 * 0.45**2, abs=0.15)
    assert straight < curved - 0.5


def test_ridge_gaussian_without_a_target_says_what_to_set(pool, rng):
    with pytest.raises(PdiffError, match=r"ridge_gaussian is for a target\. Set fit\.conditions"):
        ridge_gaussian(replace(pool, targets=None), rng)


def test_a_generated_soup_averages_different_generated_vectors(pool, rng):
    vectors = generated_soup(pool, rng, members=2)[:]
    pairs = {(a, b) for a in range(20) for b in range(a)}
    means = torch.stack([(pool.generated[a] + pool.generated[b]) / 2 for a, b in pairs])
    assert len(vectors) == 7
    assert torch.cdist(vectors, means).min(1).values.max() < 1e-2
    torch.testing.assert_close(generated_soup(pool, rng, members=20)[:][0], pool.generated.mean(0))


def test_a_generated_ensemble_is_a_group_of_different_generated_vectors(pool, rng):
    (group,) = generated_ensemble(pool, rng, members=5)[:]
    distances = torch.cdist(group, pool.generated)
    assert distances.min(1).values.max() < 1e-2
    assert len(set(distances.argmin(1).tolist())) == 5


@pytest.mark.parametrize("source", [generated_soup, generated_ensemble])
def test_no_more_members_than_were_generated(pool, rng, source):
    with pytest.raises(PdiffError, match=r"^evaluate\.sources\.members: got 21, expected at most 20"):
        source(pool, rng, members=21)


def test_folds_are_of_whole_lineages_of_branches_or_of_rows():
    rows = [{"network": n, "branch": b} for n in (0, 1) for b in (0, 1)]
    assert groups_of(rows).tolist() == [0, 0, 1, 1]
    assert groups_of(rows[:2]).tolist() == [0, 1]
    assert groups_of([{"step": 1}, {"step": 2}]).tolist() == [0, 1]


def test_an_ensemble_of_another_source_is_a_group_of_its_different_candidates(pool, rng):
    asked = []

    def other(name):
        asked.append(name)
        return Drawn(pool.population[:6])

    found = ensemble_of(replace(pool, other=other), rng, of="soups", members=4, num=3)[:]
    assert asked == ["soups"]
    assert found.shape == (3, 4, 4)
    for group in found:
        places = torch.cdist(group, pool.population[:6]).argmin(1)
        assert torch.equal(group, pool.population[places])
        assert len(set(places.tolist())) == 4


def test_no_more_members_of_an_ensemble_than_the_other_source_has(pool, rng):
    few = replace(pool, other=lambda name: Drawn(pool.population[:3]))
    with pytest.raises(PdiffError, match=r"^evaluate\.sources\.members: got 4, expected at most 3, the candidates of"):
        ensemble_of(few, rng, of="soups", members=4)
