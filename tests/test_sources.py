"""Candidates of every source, by what defines them."""

import itertools

import pytest
import torch

from pdiff.config import resolve
from pdiff.errors import PdiffError
from pdiff.run import Run
from pdiff.rundir import RunDirectory
from pdiff.sources import gaussian, relative_noise, soup, soup_of, source_vectors
from pdiff.weights.layout import Layout
from pdiff.weights.population import Population

LAYOUT = Layout.of({"wide": torch.zeros(3, 100), "narrow": torch.zeros(100), "scalar": torch.tensor(0.0)})
WIDE, NARROW, SCALAR = (entry.slice for entry in LAYOUT)
GENERATED = torch.zeros(2, LAYOUT.size)


@pytest.fixture
def rng():
    """Return a seeded generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def population(rng):
    """Return eight vectors whose first tensor is a hundred times as wide as the second."""
    vectors = torch.randn(8, LAYOUT.size, generator=rng)
    vectors[:, WIDE] *= 100
    return vectors


def draw(source, population, rng, **settings) -> torch.Tensor:
    """Return the vectors of a source."""
    return source(population, GENERATED, LAYOUT, rng, **settings)


@pytest.fixture
def run(tmp_path, population, empty_plugin):
    """Return a run whose population is collected."""
    (tmp_path / "plain.py").write_text(empty_plugin)
    stored = Population.create(tmp_path / "run" / "population", LAYOUT)
    for row in population:
        stored.append(row, {})
    sources = {"soup16": {"members": 4, "num": 3}, "wrong": {"type": "soop"}, "short": {"type": "relative_noise"}}
    config = resolve({"plugin": str(tmp_path / "plain.py"), "device": "cpu", "evaluate": {"sources": sources}})
    return Run(config, RunDirectory(tmp_path / "run"))


def test_trained_and_generated_are_the_vectors_themselves(run, population):
    assert torch.equal(source_vectors(run, "trained", GENERATED), population)
    assert torch.equal(source_vectors(run, "generated", GENERATED), GENERATED)


@pytest.mark.parametrize(
    ("name", "count"), [("soup", 1), ("soup16", 3), ("gaussian", 200), ("noise05", 200), ("noise15", 200)]
)
def test_a_baseline_gives_the_same_finite_vectors_at_each_call(run, name, count):
    vectors = source_vectors(run, name, GENERATED)
    assert vectors.shape == (count, LAYOUT.size)
    assert vectors.isfinite().all()
    assert torch.equal(vectors, source_vectors(run, name, GENERATED + 1))


def test_two_sources_of_one_type_draw_their_own_numbers(run, population):
    small, large = (source_vectors(run, name, GENERATED) for name in ("noise05", "noise15"))
    assert not torch.equal(small[:, SCALAR], large[:, SCALAR]), "they start from other vectors"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("soup61", r"^source: got 'soup61'\. Did you mean 'soup16'\? Known: gaussian, generated, "),
        ("wrong", r"^evaluate\.sources\.wrong\.type: got 'soop'\. Did you mean 'soup'\? Known: gaussian"),
        ("short", r"^evaluate\.sources\.short: missing a required argument: 'scale'\."),
    ],
)
def test_a_source_that_cannot_be_built_is_refused(run, name, line):
    with pytest.raises(PdiffError, match=line):
        source_vectors(run, name, GENERATED)


def test_soup_is_the_average_of_all(population, rng):
    torch.testing.assert_close(draw(soup, population, rng)[0], population.sum(0) / 8)


def test_soup_of_averages_as_many_different_vectors_as_it_says(population, rng):
    choices = torch.stack([population[list(rows)].mean(0) for rows in itertools.combinations(range(8), 3)])
    soups = draw(soup_of, population, rng, members=3, num=20)
    assert soups.shape == (20, LAYOUT.size)
    assert torch.cdist(soups, choices, compute_mode="donot_use_mm_for_euclid_dist").min(1).values.max() < 1e-3
    assert len(soups.unique(dim=0)) > 10


def test_soup_of_one_is_a_trained_vector_and_of_all_the_soup(population, rng):
    ones = draw(soup_of, population, rng, members=1, num=5)
    assert all((population == one).all(1).any() for one in ones)
    everyone = draw(soup_of, population, rng, members=8, num=1)
    torch.testing.assert_close(everyone, draw(soup, population, rng))


def test_more_members_than_vectors_are_refused(population, rng):
    with pytest.raises(PdiffError, match=r"^evaluate\.sources: got members 9, expected .*8"):
        draw(soup_of, population, rng, members=9)


@pytest.mark.parametrize("members", [0, -1])
def test_a_soup_of_nothing_is_refused(population, rng, members):
    with pytest.raises(PdiffError, match=rf"^evaluate\.sources: got members {members}, expected"):
        draw(soup_of, population, rng, members=members)


def test_gaussian_has_the_moments_of_the_population_in_each_coordinate(population, rng):
    vectors = draw(gaussian, population, rng, num=20000)
    mean, std = population.mean(0), population.std(0)
    assert ((vectors.mean(0) - mean) / std).abs().max() < 5 / 20000**0.5
    assert (vectors.std(0) / std - 1).abs().max() < 5 / 40000**0.5


def test_gaussian_coordinates_are_independent(population, rng):
    shared = population[:, :1].expand(8, 2)
    correlation = torch.corrcoef(draw(gaussian, shared, rng, num=20000).T)[0, 1]
    assert correlation.abs() < 5 / 20000**0.5


def test_a_coordinate_that_never_changes_stays_as_it_is(population, rng):
    population[:, NARROW] = 3.0
    assert draw(gaussian, population, rng, num=5)[:, NARROW].eq(3.0).all()


def test_relative_noise_is_a_share_of_the_deviation_of_each_tensor(population, rng):
    vectors = draw(relative_noise, population, rng, scale=0.05, num=400)
    nearest = population[torch.cdist(vectors, population).argmin(1)]
    noise = vectors - nearest
    for place in (WIDE, NARROW):
        share = noise[:, place].std() / nearest[:, place].std(1, correction=0).square().mean().sqrt()
        assert share.item() == pytest.approx(0.05, rel=0.03)
    assert noise[:, SCALAR].eq(0).all(), "a tensor of one value has no deviation"


def test_relative_noise_of_no_scale_gives_every_trained_vector_at_some_time(population, rng):
    vectors = draw(relative_noise, population, rng, scale=0.0, num=200)
    assert torch.equal(vectors.unique(dim=0), population.unique(dim=0))


def test_no_source_changes_the_population(population, rng):
    before = population.clone()
    for source, settings in ((soup, {}), (soup_of, {"members": 2}), (gaussian, {}), (relative_noise, {"scale": 1.0})):
        draw(source, population, rng, **settings)
    assert torch.equal(population, before)
