"""Candidates of every source, by what defines them."""

import itertools
from dataclasses import replace

import pytest
import torch
from mmengine.config import Config

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.run.sources import (
    SOURCES,
    Drawn,
    Pool,
    absolute_noise,
    check_parents,
    check_vectors,
    checked,
    codec,
    ensemble,
    gaussian,
    gaussian_subspace,
    interpolation,
    latent_gaussian,
    left_out,
    open_source,
    relative_noise,
    soup,
    soup_of,
    source_names,
    swag,
    tell_members,
    trained,
)
from pdiff.runtime.errors import PdiffError
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.weights.layout import Layout
from pdiff.weights.population import Population
from pdiff.weights.vectors import Rows

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
    found = source(pool_of(population), rng, **settings)
    return (found.vectors if isinstance(found, Drawn) else found)[:]


def pool_of(population, generated=GENERATED, fitted=None, evaluated=None) -> Pool:
    """Return what a source draws from, with all or some rows fitted; its codec doubles a vector."""
    rows = torch.arange(len(population)) if fitted is None else torch.tensor(fitted)
    return Pool(
        population, rows, generated, LAYOUT, lambda vectors: vectors[:], lambda latents: 2 * latents, 7, evaluated
    )


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
    assert torch.equal(open_source(run, "trained", pool_of(population)).vectors, population)
    assert torch.equal(open_source(run, "generated", pool_of(population)).vectors, GENERATED)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("codec", 7),
        ("soup", 1),
        ("soup16", 3),
        ("interpolation", 7),
        ("gaussian", 7),
        ("swag", 7),
        ("latent_gaussian", 7),
        ("noise05", 7),
    ],
)
def test_a_baseline_gives_the_same_finite_vectors_at_each_call(run, population, name, count):
    vectors = open_source(run, name, pool_of(population)).vectors
    assert vectors.shape == (count, LAYOUT.size)
    assert vectors[:].isfinite().all()
    assert torch.equal(vectors[:], open_source(run, name, pool_of(population, GENERATED + 1)).vectors[:])


def only(run, *names) -> Run:
    """Return the same run with `evaluate.only`."""
    return Run(Config({**run.config, "evaluate": {**run.config.evaluate, "only": list(names)}}), run.directory)


def test_the_needed_sources_are_evaluated_whatever_else_is_left_out(run):
    assert left_out(run) == []
    assert source_names(only(run)) == ["trained", "generated"]
    assert source_names(only(run, "swag", "codec")) == ["trained", "generated", "codec", "swag"]
    assert left_out(only(run, "swag", "codec")) == [
        name for name in source_names(run) if name not in ("trained", "generated", "swag", "codec")
    ]


def test_a_source_that_is_left_out_cannot_be_opened(run, population):
    with pytest.raises(PdiffError, match=r"^source: got 'soup'\. Known: generated, swag, trained\."):
        open_source(only(run, "swag"), "soup", pool_of(population))


def test_two_sources_of_one_type_draw_their_own_numbers(run, population):
    small, large = (open_source(run, name, pool_of(population)).vectors[:] for name in ("noise05", "noise15"))
    assert not torch.equal(small[:, SCALAR], large[:, SCALAR]), "they start from other vectors"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("soup61", r"^source: got 'soup61'\. Did you mean 'soup16'\? Known: codec, gaussian, "),
        ("wrong", r"^evaluate\.sources\.wrong\.type: got 'soop'\. Did you mean 'soup'\? Known: absolute_noise"),
        ("short", r"^evaluate\.sources\.short: missing a required argument: 'scale'\."),
    ],
)
def test_a_source_that_cannot_be_built_is_refused(run, population, name, line):
    with pytest.raises(PdiffError, match=line):
        open_source(run, name, pool_of(population)).vectors


@pytest.mark.parametrize(
    ("vectors", "got"),
    [
        ([1, 2], "list"),
        (torch.zeros(LAYOUT.size), r"vectors of shape \(401,\)"),
        (torch.zeros(3, 5), r"vectors of shape \(3, 5\)"),
        (torch.zeros(0, LAYOUT.size), r"vectors of shape \(0, 401\)"),
        (torch.zeros(3, LAYOUT.size).double(), r"vectors of torch\.float64"),
        (Rows(torch.zeros(3, LAYOUT.size).double(), [0]), r"vectors of torch\.float64"),
        (torch.zeros(3, LAYOUT.size, device="meta"), "vectors on meta"),
        (torch.zeros(3, LAYOUT.size).to_sparse(), r"vectors of torch\.sparse_coo"),
    ],
)
def test_a_source_that_returns_no_vectors_of_the_layout_is_refused(vectors, got):
    with pytest.raises(PdiffError, match=rf"^evaluate\.sources\.mine: got {got}, expected a float32 tensor \(M, 401\)"):
        check_vectors("evaluate.sources.mine", vectors, LAYOUT.size)


@pytest.mark.parametrize(
    ("vectors", "line"),
    [
        (torch.zeros(3, LAYOUT.size).requires_grad_(), "got vectors that a gradient reaches, .* Call .detach"),
        (Rows(torch.zeros(3, LAYOUT.size), [0, 3]), "got rows from 0 to 3, expected 0 to 2. Mend"),
    ],
)
def test_vectors_that_a_later_stage_would_stumble_over_are_refused(vectors, line):
    with pytest.raises(PdiffError, match=rf"^evaluate\.sources\.mine: {line}"):
        check_vectors("evaluate.sources.mine", vectors, LAYOUT.size)


@pytest.mark.parametrize("parents", [torch.tensor([0.5]), torch.tensor([0, 9]), torch.tensor([0]), [0, 1]])
def test_parents_that_are_no_rows_of_the_population_are_refused(parents):
    check_parents("evaluate.sources.mine", torch.tensor([0, 4]), 2, 5)
    with pytest.raises(PdiffError, match=r"^evaluate\.sources\.mine: got parents .*, expected an int64 tensor \(2,\)"):
        check_parents("evaluate.sources.mine", parents, 2, 5)


@pytest.mark.parametrize("scale", [-0.1, float("nan")])
def test_noise_of_no_scale_that_could_be_is_refused(population, rng, scale):
    with pytest.raises(PdiffError, match=r"^evaluate\.sources\.scale: got .*, expected a finite number from 0 on"):
        draw(relative_noise, population, rng, scale=scale)


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


def test_a_soup_has_no_more_members_than_there_are(population, rng):
    everyone = draw(soup_of, population, rng, members=9, num=1)
    torch.testing.assert_close(everyone, draw(soup, population, rng))


@pytest.mark.parametrize(
    ("count", "before", "told"),
    [
        (4, None, []),
        (3, None, ["soup16"]),
        (3, 8, ["soup16"]),
        (3, 3, []),
        (1, 2, ["two"]),
        (1, None, ["soup16", "two"]),
    ],
)
def test_sources_of_more_checkpoints_than_there_are_are_told_once(run, caplog, count, before, told):
    sources = {"soup16": {"type": "soup_of", "members": 4}, "two": {"type": "soup_of", "members": 2}}
    run.config.evaluate.sources = sources
    tell_members(run, count, before)
    words = f"takes all of {count} checkpoints, for there are no"
    assert [line.split(": ")[0] for line in caplog.messages] == [f"evaluate.sources.{name}" for name in told]
    assert all(words in line for line in caplog.messages)


@pytest.mark.parametrize("members", [0, -1])
def test_a_soup_of_nothing_is_refused(population, rng, members):
    with pytest.raises(PdiffError, match=rf"^evaluate\.sources: got {members} members of a soup_of, expected"):
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
    for source, settings in (
        (soup, {}),
        (soup_of, {"members": 2}),
        (interpolation, {}),
        (gaussian, {}),
        (gaussian_subspace, {}),
        (swag, {}),
        (latent_gaussian, {}),
        (relative_noise, {"scale": 1.0}),
        (absolute_noise, {"scale": 1.0}),
    ):
        draw(source, population, rng, **settings)
    assert torch.equal(population, before)


def test_trained_and_codec_take_evenly_spaced_vectors(population, rng):
    assert torch.equal(draw(trained, population, rng, num=3), population[[0, 4, 7]])
    assert torch.equal(draw(codec, population, rng, num=3), 2 * population[[0, 4, 7]])
    assert torch.equal(draw(trained, population, rng, num=99), population)


def test_no_candidate_is_refused(population, rng):
    with pytest.raises(PdiffError, match=r"^evaluate\.sources\.num: got 0, expected an integer from 1 on"):
        draw(gaussian, population, rng, num=0)


@pytest.mark.parametrize("name", ["soup16", "interpolation", "gaussian", "swag", "latent_gaussian", "noise05"])
def test_a_source_made_a_few_vectors_at_a_time_is_the_same_at_each_pass(run, population, monkeypatch, name):
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 2 * LAYOUT.size)
    vectors = open_source(run, name, pool_of(population)).vectors
    whole = torch.cat(list(vectors.parts()))
    assert whole.shape == vectors.shape
    assert torch.equal(vectors[:], whole)
    assert torch.equal(vectors[[len(whole) - 1, 0]], whole[[-1, 0]])


def test_interpolation_lies_between_two_trained_vectors(population, rng):
    between = torch.cdist(population, population)
    for point in draw(interpolation, population, rng, num=20):
        to = torch.cdist(point[None], population)[0]
        detours = (to[:, None] + to - between) / between
        assert detours.fill_diagonal_(1).min() < 1e-4


def test_interpolation_at_a_weight_is_there_for_every_pair(population, rng):
    middles = (population[:, None] + population).flatten(0, 1) / 2
    points = draw(interpolation, population, rng, weight=0.5, num=20)
    torch.testing.assert_close(points, middles[torch.cdist(points, middles).argmin(1)])
    with pytest.raises(PdiffError, match=r"^evaluate\.sources\.weight: got 2, expected a number from 0 to 1\."):
        draw(interpolation, population, rng, weight=2)


def test_gaussian_in_the_subspace_has_the_covariance_of_the_population_and_leaves_it_nowhere(population, rng):
    vectors = draw(gaussian_subspace, population, rng, axes=7, num=20000)
    places = [0, 1, WIDE.stop]
    expected = torch.cov(population[:, places].T)
    scale = expected.diag().sqrt().outer(expected.diag().sqrt())
    assert ((torch.cov(vectors[:, places].T) - expected) / scale).abs().max() < 0.05
    centred = population - population.mean(0)
    inside = torch.linalg.lstsq(centred.T, (vectors[:5] - population.mean(0)).T).solution
    torch.testing.assert_close(centred.T @ inside, (vectors[:5] - population.mean(0)).T, rtol=1e-3, atol=1e-2)


def test_swag_has_half_the_variance_of_each_coordinate_and_half_the_covariance_of_its_vectors(population, rng):
    places = [0, 1, NARROW.start]
    vectors = draw(swag, population, rng, rank=8, num=40000)[:, places]
    own = population[:, places]
    expected = own.var(0, correction=0).diag() / 2 + torch.cov(own.T) / 2
    scale = expected.diag().sqrt().outer(expected.diag().sqrt())
    assert ((torch.cov(vectors.T) - expected) / scale).abs().max() < 0.05
    assert ((vectors.mean(0) - own.mean(0)) / expected.diag().sqrt()).abs().max() < 5 / 40000**0.5


def test_latent_gaussian_has_the_moments_of_what_the_codec_makes_of_the_fitted(population, rng):
    places = [0, 1, NARROW.start]
    vectors = draw(latent_gaussian, population, rng, num=40000)[:, places]
    decoded = 2 * population[:, places]
    expected = torch.cov(decoded.T)
    scale = expected.diag().sqrt().outer(expected.diag().sqrt())
    assert ((torch.cov(vectors.T) - expected) / scale).abs().max() < 0.05
    assert ((vectors.mean(0) - decoded.mean(0)) / expected.diag().sqrt()).abs().max() < 5 / 40000**0.5


BASELINES = {
    "codec": (codec, {}),
    "soup": (soup, {}),
    "soup_of": (soup_of, {"members": 3}),
    "interpolation": (interpolation, {}),
    "gaussian": (gaussian, {}),
    "gaussian_subspace": (gaussian_subspace, {"axes": 4}),
    "swag": (swag, {}),
    "latent_gaussian": (latent_gaussian, {}),
    "relative_noise": (relative_noise, {"scale": 0.1}),
    "absolute_noise": (absolute_noise, {"scale": 0.1}),
    "ensemble": (ensemble, {"members": 3}),
}


def test_every_source_but_trained_and_generated_is_a_baseline():
    own = {name for name, source in SOURCES.module_dict.items() if source.__module__ == "pdiff.run.sources"}
    assert set(BASELINES) >= own - {"trained", "generated"}


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_know_nothing_but_the_fitted(population, name):
    source, settings = BASELINES[name]

    def drawn(vectors):
        pool = pool_of(vectors, fitted=[0, 1, 2, 5, 6, 7])
        found = source(pool, torch.Generator().manual_seed(1), **settings)
        return (found.vectors if isinstance(found, Drawn) else found)[:]

    other = population.clone()
    other[[3, 4]] += 1000
    assert torch.equal(drawn(population), drawn(other))
    other[[0, 1, 2, 5, 6, 7]] += 1000
    assert not torch.equal(drawn(population), drawn(other))


def test_parents_are_fitted_and_candidates_themselves(population):
    pool = pool_of(population, fitted=[0, 1, 2, 5, 6, 7], evaluated=3)
    assert pool.parents.tolist() == [0, 7], "of the rows 0, 4 and 7"
    assert pool_of(population, fitted=[0, 1, 2]).parents.tolist() == [0, 1, 2]
    assert pool_of(population, fitted=[1, 2], evaluated=2).parents.tolist() == [1, 2], "where none is both"


@pytest.mark.parametrize("name", ["codec", "relative_noise", "absolute_noise"])
def test_children_tell_their_parents(population, name):
    source, settings = BASELINES[name]
    quiet = {**settings, **({"scale": 0.0} if settings else {})}
    found = source(pool_of(population, fitted=[0, 2, 5, 7]), torch.Generator().manual_seed(0), **quiet)
    assert set(found.parents.tolist()) <= {0, 2, 5, 7}
    made = found.vectors[:] / (2 if name == "codec" else 1)
    assert torch.equal(made, population[found.parents])


def test_sources_say_which_rows_they_are_made_of_where_there_are_any(run, population):
    pool = pool_of(population)
    assert open_source(run, "trained", pool).parents.tolist() == list(range(8))
    assert open_source(run, "noise05", pool).parents.shape == (7,)
    for name in ("generated", "soup", "gaussian", "swag", "latent_gaussian"):
        assert open_source(run, name, pool).parents is None


def test_gaussian_on_one_axis_is_a_line(population, rng):
    vectors = draw(gaussian_subspace, population, rng, axes=1, num=20)
    spectrum = torch.linalg.svdvals((vectors - vectors.mean(0)).double())
    assert spectrum[1] < 1e-4 * spectrum[0]


def test_absolute_noise_is_the_same_on_every_coordinate(population, rng):
    vectors = draw(absolute_noise, population, rng, scale=0.5, num=400)
    noise = vectors - population[torch.cdist(vectors, population).argmin(1)]
    assert noise[:, NARROW].std().item() == pytest.approx(0.5, rel=0.03)
    assert noise[:, WIDE].std().item() == pytest.approx(0.5, rel=0.03)


def test_an_ensemble_is_a_group_of_trained_vectors(population, rng):
    (members,) = draw(ensemble, population, rng, members=3)
    assert all((population == member).all(1).any() for member in members)
    assert draw(ensemble, population, rng, members=99).shape == (1, 8, LAYOUT.size), "all there are"


def test_a_task_without_an_ensemble_leaves_it_out(run):
    assert "ensemble" not in source_names(run)


def test_sums_over_all_vectors_are_computed_on_the_device_of_the_run_and_come_back(population):
    here = gaussian_subspace(pool_of(population), torch.Generator().manual_seed(1))[:]
    with simulated_cuda() as gpu:
        pool = replace(pool_of(population), device=torch.device("cuda"))
        vectors = gaussian_subspace(pool, torch.Generator().manual_seed(1))
        assert gpu.copies_to_device
        gpu.reset()
        there = vectors[:]
        assert gpu.copies_to_device
        assert there.device.type == "cpu"
    assert torch.equal(here, there)


@pytest.mark.parametrize(
    ("part", "got"),
    [
        (torch.ones(1, 10), r"\(1, 10\) of torch\.float32 on cpu"),
        (torch.ones(2, 10).double(), r"\(2, 10\) of torch\.float64 on cpu"),
        (torch.ones(2, 10, device="meta"), r"\(2, 10\) of torch\.float32 on meta"),
    ],
)
def test_what_a_source_makes_otherwise_than_it_says_is_told(part, got):
    line = rf"^evaluate\.sources\.own: got {got} for the rows 3 to 4, expected \(2, 10\) of torch\.float32 on cpu\."
    with pytest.raises(PdiffError, match=line):
        checked("evaluate.sources.own", torch.Size([7, 10]), lambda rows, rng: part, slice(3, 5), torch.Generator())
