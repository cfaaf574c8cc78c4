"""Sources for wanted conditions, by what defines them."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pdiff.run.conditional_sources import (
    base,
    finetuned,
    generated_mean,
    generated_permuted,
    interpolation2,
    kernel_ridge,
    nearest,
    oracle,
    oracle_codec,
    regression,
    ridge,
    symmetry,
)
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.export import export_for
from pdiff.run.run import Run
from pdiff.run.sources import (
    SOURCES,
    Drawn,
    Pool,
    check_sources,
    check_wanted,
    for_all,
    open_pool,
    open_source,
    soup,
)
from pdiff.run.symmetry import build_symmetry
from pdiff.run.wanted import Wanted
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import merge
from pdiff.runtime.storage import read_json
from pdiff.stages.pipeline import run_pipeline
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.weights.conditions import Conditions
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Rows

HYPERNET = {"steps": 300, "width": 16, "batch_size": 8, "lr": 0.01}
FEW = ("oracle", "generated", "nearest")
LAYOUT = Layout.of({"head": torch.zeros(2, 3), "body": torch.zeros(5)})
COMPLEMENT = build_symmetry({"type": "complement", "swap": ["head"]}, LAYOUT)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def named(values) -> Conditions:
    """Return conditions with these values `(M, C)`."""
    values = torch.as_tensor(values, dtype=torch.float32)
    return Conditions([f"number{place}" for place in range(values.shape[1])], values)


def pool_of(vectors, conditions, held, lineages=None, groups=None, symmetry=None) -> Pool:
    """Return what a source draws from: some rows are held out, and their conditions are wanted.

    Its codec doubles a vector. The engine draws latents that begin with their condition, the rest white noise.
    """
    held = torch.as_tensor(held)
    fitted = torch.tensor([row for row in range(len(vectors)) if row not in held.tolist()])
    distinct, of = conditions.take(held).distinct()
    groups = np.arange(len(vectors)) if groups is None else np.asarray(groups)
    wanted = Wanted(
        conditions=distinct,
        unseen=np.arange(len(distinct)) > 0,
        groups=np.arange(len(distinct)),
        seen=conditions.take(fitted),
        seen_groups=groups[fitted],
        lineages=(np.zeros(len(vectors), int) if lineages is None else np.asarray(lineages))[fitted],
        oracles=held.numpy(),
        oracle_of=of,
        symmetry=symmetry,
    )

    def draw(conditions: Conditions, seed: int) -> torch.Tensor:
        noise = torch.randn(len(conditions), LAYOUT.size, generator=rng(seed))
        noise[:, : len(conditions.names)] = conditions.values
        return noise

    return Pool(
        vectors, fitted, torch.zeros(2, LAYOUT.size), LAYOUT, lambda vectors: vectors[:], lambda latents: 2 * latents,
        num=4,
        wanted=wanted, generated_for=torch.arange(len(distinct)), draw=draw,
    )  # fmt: skip


def vectors_of(source, pool: Pool, seed: int = 0, **settings) -> torch.Tensor:
    """Return the vectors of a source."""
    found = source(pool, rng(seed), **settings)
    return (found.vectors if isinstance(found, Drawn) else found)[:]


@pytest.fixture
def angles() -> Pool:
    """Return the pool of forty networks for numbers 0 to 39, of which each seventh is held out."""
    return pool_of(torch.randn(40, LAYOUT.size, generator=rng()), named(torch.arange(40.0)[:, None]), range(3, 40, 7))


def linear(count: int, numbers: int = 2, noise: float = 0.0) -> tuple[torch.Tensor, Conditions]:
    """Return networks that are a linear map of their condition, and the conditions."""
    conditions = named(torch.rand(count, numbers, generator=rng(1)))
    slopes, start = torch.randn(numbers, LAYOUT.size, generator=rng(2)), torch.randn(LAYOUT.size, generator=rng(3))
    return start + conditions.values @ slopes + noise * torch.randn(count, LAYOUT.size, generator=rng(4)), conditions


def test_oracles_are_the_networks_of_the_wanted_conditions():
    vectors = torch.randn(12, LAYOUT.size, generator=rng())
    pool = pool_of(vectors, named(torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 8, 8.0])[:, None]), [7, 9, 8, 11, 10])
    found = oracle(pool, rng())
    assert torch.equal(found.vectors[:], vectors[[7, 9, 8, 11, 10]])
    assert found.parents.tolist() == [7, 9, 8, 11, 10]
    assert pool.wanted.conditions.values.flatten().tolist() == [7, 8]
    assert found.wanted.tolist() == [0, 1, 0, 1, 1]
    coded = oracle_codec(pool, rng())
    assert torch.equal(coded.vectors[:], 2 * found.vectors[:])
    assert coded.wanted.tolist() == found.wanted.tolist()


def test_nearest_is_the_network_of_the_nearest_condition():
    vectors = torch.randn(6, LAYOUT.size, generator=rng())
    pool = pool_of(vectors, named(torch.tensor([0, 10, 20, 1, 14, 100.0])[:, None]), [3, 4, 5])
    assert torch.equal(vectors_of(nearest, pool), vectors[[0, 1, 2]])


def test_nearest_of_several_is_their_mean(angles):
    found = vectors_of(nearest, angles, k=2)
    for row, wanted in zip(found, range(3, 40, 7), strict=True):
        torch.testing.assert_close(row, angles.population[[wanted - 1, wanted + 1]].mean(0))
    everyone = vectors_of(nearest, angles, k=1000)
    torch.testing.assert_close(everyone, angles.known[:].mean(0).expand(6, -1))


def test_chance_decides_among_equally_near_ones(angles):
    firsts = {tuple(vectors_of(nearest, angles, seed)[0].tolist()) for seed in range(20)}
    assert firsts == {tuple(angles.population[row].tolist()) for row in (2, 4)}


def test_interpolation_lies_between_the_two_nearest_where_the_wanted_one_does():
    vectors = torch.randn(6, LAYOUT.size, generator=rng())
    pool = pool_of(vectors, named(torch.tensor([0, 10, 20, 2, 16, 25.0])[:, None]), [3, 4, 5])
    found = vectors_of(interpolation2, pool)
    torch.testing.assert_close(found[0], 0.8 * vectors[0] + 0.2 * vectors[1])
    torch.testing.assert_close(found[1], 0.4 * vectors[1] + 0.6 * vectors[2])
    torch.testing.assert_close(found[2], vectors[2])  # beyond the range: no farther than the last one


def test_interpolation_takes_one_network_of_each_of_two_conditions():
    vectors = torch.randn(5, LAYOUT.size, generator=rng())
    pool = pool_of(vectors, named(torch.tensor([0, 0, 10, 10, 5.0])[:, None]), [4])
    middles = [(vectors[a] + vectors[b]) / 2 for a in (0, 1) for b in (2, 3)]
    found = [vectors_of(interpolation2, pool, seed)[0] for seed in range(20)]
    which = [[torch.allclose(row, middle, atol=1e-6) for middle in middles].index(True) for row in found]
    assert len(set(which)) > 1


def test_a_number_that_never_differs_does_not_matter():
    values = torch.cat([torch.arange(12.0)[:, None], torch.full((12, 1), 3.0)], 1)
    vectors = torch.randn(12, LAYOUT.size, generator=rng())
    pools = [pool_of(vectors, named(columns), [4, 9]) for columns in (values, values[:, :1])]
    for source in (nearest, interpolation2, ridge, kernel_ridge, regression):
        settings = {"hidden": [4]} if source is regression else {}
        found, expected = (vectors_of(source, pool, **settings) for pool in pools)
        assert found.isfinite().all()
        if source not in (kernel_ridge, regression):  # whose settings are for so many numbers
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_ridge_recovers_a_linear_map():
    vectors, conditions = linear(40)
    pool = pool_of(vectors, conditions, range(0, 40, 8))
    torch.testing.assert_close(vectors_of(ridge, pool), vectors[::8], rtol=0, atol=0.01)


def test_ridge_of_degree_two_recovers_products():
    values = torch.rand(60, 2, generator=rng(1)) * 2 - 1
    slopes = torch.randn(3, LAYOUT.size, generator=rng(2))
    vectors = torch.stack([values[:, 0], values.prod(1), values[:, 1] ** 2], 1) @ slopes
    pool = pool_of(vectors, named(values), range(0, 60, 8))
    errors = [(vectors_of(ridge, pool, degree=degree) - vectors[::8]).abs().max().item() for degree in (1, 2)]
    assert errors[0] > 0.3
    assert errors[1] < 0.01


def test_ridge_shrinks_to_the_average_where_the_condition_says_nothing():
    vectors = torch.randn(40, LAYOUT.size, generator=rng())
    found = vectors_of(ridge, pool_of(vectors, named(torch.rand(40, 3, generator=rng(1))), range(0, 40, 8)))
    assert (found - vectors[1:].mean(0)).norm() < 0.5 * vectors[::8].norm()


def test_kernel_ridge_recovers_a_smooth_map_that_no_line_is():
    turn = torch.linspace(0, 6, 60)[:, None]
    waves = torch.cat([turn.sin(), turn.cos(), (2 * turn).sin()], 1)
    vectors = waves @ torch.randn(3, LAYOUT.size, generator=rng(2))
    pool = pool_of(vectors, named(turn), range(4, 60, 8))
    smooth, straight = (vectors_of(source, pool) for source in (kernel_ridge, ridge))
    assert (smooth - vectors[4::8]).abs().max() < 0.1
    assert (straight - vectors[4::8]).abs().max() > 1


def test_two_lineages_are_averaged_away_but_by_who_is_told_them():
    own, conditions = linear(40)
    vectors, lineages = torch.cat([own, -own]), [0] * 40 + [1] * 40
    held = [*range(0, 40, 8), *range(40, 80, 8)]
    pool = pool_of(vectors, conditions.take([*range(40)] * 2), held, lineages, [*range(40)] * 2)
    blind, told = kernel_ridge(pool, rng()), kernel_ridge(pool, rng(), within="lineage")
    assert blind[:].abs().max() < 0.05 * own.abs().max()
    assert told.wanted.tolist() == [0, 1, 2, 3, 4] * 2
    torch.testing.assert_close(told.vectors[:], vectors[held], rtol=0, atol=0.1)


def test_a_lineage_of_a_single_condition_is_left_out():
    own, conditions = linear(40)
    found = kernel_ridge(pool_of(own, conditions, range(0, 40, 8), [0] * 39 + [1]), rng(), within="lineage")
    assert found.wanted.tolist() == [0, 1, 2, 3, 4]


def test_independent_networks_have_no_lineage_to_regress_in():
    own, conditions = linear(10)
    with pytest.raises(PdiffError, match="no initialisation has networks for two conditions, .* source to null"):
        kernel_ridge(pool_of(own, conditions, [0, 1], range(10)), rng(), within="lineage")


def test_regression_follows_its_conditions():
    vectors, conditions = linear(80)
    pool = pool_of(vectors, conditions, range(0, 80, 8))
    error = (vectors_of(regression, pool, hidden=[64]) - vectors[::8]).norm()
    assert error < 0.2 * (vectors[::8] - vectors.mean(0)).norm()


@pytest.mark.parametrize("axes", [1, 1000])
def test_regression_lies_on_the_principal_axes(axes):
    vectors, conditions = linear(20, noise=0.1)
    pool = pool_of(vectors, conditions, [0, 1, 2])
    found = vectors_of(regression, pool, hidden=[8], axes=axes) - pool.known[:].mean(0)
    assert torch.linalg.matrix_rank(found, rtol=1e-3) == (1 if axes == 1 else 3)


def test_symmetry_takes_the_image_that_is_nearest():
    bits = named(torch.tensor(list(product([0.0, 1.0], repeat=3))))
    vectors = torch.randn(8, LAYOUT.size, generator=rng())
    pool = pool_of(vectors, bits, [7, 1], symmetry=COMPLEMENT)
    found = vectors_of(symmetry, pool)
    assert torch.equal(found[0], COMPLEMENT.vector(vectors[:1])[0]), "the complement of 111 was seen"
    assert torch.equal(found[1], COMPLEMENT.vector(vectors[6:7])[0]), "that of 001 too"
    assert not torch.equal(found[0], vectors[0])


def test_permuted_conditions_are_all_others_than_the_wanted(angles):
    asked = 2 * angles.wanted.conditions.values[:, 0]
    for seed in range(10):
        found = vectors_of(generated_permuted, angles, seed)[:, 0]
        assert (found != asked).all()
        assert found.sort().values.tolist() == asked.sort().values.tolist()


def test_one_condition_cannot_be_permuted(angles):
    pool = pool_of(angles.population, named(torch.arange(40.0)[:, None]), [3])
    with pytest.raises(PdiffError, match="one condition cannot be exchanged for another"):
        generated_permuted(pool, rng())


def test_mean_of_draws_is_for_each_condition_that_of_its_own(monkeypatch, angles):
    found = generated_mean(angles, rng(), draws=400)
    assert found.shape == (6, LAYOUT.size)
    whole = found[:]
    torch.testing.assert_close(whole[:, 0], 2 * angles.wanted.conditions.values[:, 0])
    assert whole[:, 1:].abs().max() < 0.6, "twice white noise, averaged"
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 2 * LAYOUT.size)
    torch.testing.assert_close(torch.cat(list(found.parts())), whole)


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        (nearest, {"k": 0}, "evaluate.conditional.k: got 0, expected an integer from 1 on."),
        (ridge, {"degree": 0}, "evaluate.conditional.degree: got 0, expected an integer from 1 on."),
        (kernel_ridge, {"within": "lineages"}, "evaluate.conditional: got within 'lineages', expected all or lineage."),
        (regression, {"axes": 0}, "evaluate.conditional.axes: got 0, expected an integer from 1 on."),
        (regression, {"hidden": [8, 0]}, "evaluate.conditional.hidden: got 0, expected an integer from 1 on."),
        (regression, {"hidden": 8}, "evaluate.conditional.hidden: got 8, expected a list of units."),
        (generated_mean, {"draws": 0}, "evaluate.conditional.draws: got 0, expected an integer from 1 on."),
    ],
)
def test_settings_that_cannot_be_are_refused(angles, source, settings, words):
    with pytest.raises(PdiffError) as caught:
        source(angles, rng(), **settings)
    assert str(caught.value).startswith(words)


KNOWING = {
    "nearest": (nearest, {}),
    "nearest of several": (nearest, {"k": 3}),
    "interpolation2": (interpolation2, {}),
    "ridge": (ridge, {}),
    "ridge of degree two": (ridge, {"degree": 2}),
    "kernel_ridge": (kernel_ridge, {}),
    "kernel_ridge within lineages": (kernel_ridge, {"within": "lineage"}),
    "regression": (regression, {"hidden": [8]}),
    "symmetry": (symmetry, {}),
    "soup": (soup, {}),
}


@pytest.mark.parametrize("name", KNOWING)
def test_sources_know_nothing_but_the_seen(name):
    source, settings = KNOWING[name]
    conditions = named(torch.tensor(list(product([0.0, 1.0], repeat=5))))
    vectors, held = torch.randn(32, LAYOUT.size, generator=rng()), [3, 8, 20]

    def drawn(vectors):
        return vectors_of(source, pool_of(vectors, conditions, held, symmetry=COMPLEMENT), **settings)

    other = vectors.clone()
    other[held] += 1000
    assert torch.equal(drawn(vectors), drawn(other))
    seen = vectors.clone()
    seen[[row for row in range(32) if row not in held]] += 1000
    assert not torch.equal(drawn(vectors), drawn(seen))


@pytest.mark.parametrize("name", [name for name in KNOWING if name != "soup"])
def test_a_source_made_a_few_vectors_at_a_time_is_the_same_at_each_pass(name, monkeypatch):
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 2 * LAYOUT.size)
    source, settings = KNOWING[name]
    conditions = named(torch.tensor(list(product([0.0, 1.0], repeat=5))))
    pool = pool_of(torch.randn(32, LAYOUT.size, generator=rng()), conditions, [3, 8, 20], symmetry=COMPLEMENT)
    found = source(pool, rng(), **settings)
    vectors = found.vectors if isinstance(found, Drawn) else found
    assert torch.equal(vectors[:], vectors[[0, 1, 2]])


def test_base_is_one_for_all_and_finetuned_one_for_each(angles):
    def finetune(conditions: Conditions, steps: int) -> tuple[torch.Tensor, float]:
        return steps * conditions.values.expand(-1, LAYOUT.size), 7.0

    pool = replace(angles, base=lambda: torch.ones(LAYOUT.size), finetune=finetune)
    assert torch.equal(base(pool, rng())[:], torch.ones(1, LAYOUT.size))
    found = finetuned(pool, rng(), steps=3)
    assert torch.equal(found.vectors[:, 0], 3 * pool.wanted.conditions.values[:, 0])
    assert (found.wanted.tolist(), found.seconds) == ([0, 1, 2, 3, 4, 5], 7.0)


def test_every_source_for_conditions_is_tested_here():
    own = {name for name, kind in SOURCES.module_dict.items() if kind.__module__ == "pdiff.run.conditional_sources"}
    tested = {"oracle", "oracle_codec", "generated_permuted", "generated_mean", "base", "finetuned", "hypernet"}
    assert own == tested | {source.__name__ for source, _ in KNOWING.values()} - {"soup"}


def test_one_network_is_for_all_conditions_and_one_for_each_for_its_own(angles):
    once = for_all("here", Drawn(torch.ones(1, LAYOUT.size)), 3)
    assert torch.equal(once.vectors[:], torch.ones(3, LAYOUT.size))
    assert once.wanted.tolist() == [0, 1, 2]
    each = for_all("here", Drawn(torch.ones(3, LAYOUT.size), torch.arange(3)), 3)
    assert each.wanted.tolist() == each.parents.tolist() == [0, 1, 2]
    ensembles = for_all("here", Drawn(torch.ones(1, 4, LAYOUT.size)), 3)
    assert ensembles.vectors.shape == (3, 4, LAYOUT.size)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ([0, 1], "got wanted as list, expected a tensor of int64: the number of a wanted condition, 0 to 1, for"),
        (torch.zeros(3), "got wanted as torch.float32, expected a tensor of int64: the number"),
        (torch.tensor([0, 1]), "got wanted of shape (2,), from 0 to 1, expected the number of a wanted condition"),
        (torch.tensor([0, 1, 2]), "got wanted of shape (3,), from 0 to 2, expected the number of a wanted condition"),
        (torch.tensor([0, 1, -1]), "got wanted of shape (3,), from -1 to 1, expected the number of a wanted condition"),
        (torch.tensor(0), "got wanted of shape (), from 0 to 0, expected the number"),
        (torch.zeros(0, dtype=torch.long), "got wanted empty, expected the number"),
        (torch.tensor([0, 0, 0]), "got no vector for 1 of 2 wanted conditions (number 1, for one), expected one"),
    ],
)
def test_what_a_source_says_of_its_vectors_is_looked_at(wanted, words):
    check_wanted("here", torch.tensor([1, 0, 1]), 3, 2)
    with pytest.raises(PdiffError) as caught:
        check_wanted("here", wanted, 3, 2)
    assert str(caught.value).startswith(f"here: {words}")


class Foreign:
    """Sources of a third party."""

    @staticmethod
    def few(pool, rng):
        return torch.zeros(2, LAYOUT.size)

    @staticmethod
    def some(pool, rng):
        return Drawn(torch.zeros(2, LAYOUT.size), wanted=torch.tensor([0, 1]))

    @staticmethod
    def rows(pool, rng):
        return Drawn(Rows(pool.population, pool.fitted[: 2 * len(pool.wanted)]), wanted=torch.arange(12) % 6)


@pytest.fixture
def run(tmp_path, angles, empty_plugin):
    """Return a run whose config has sources of a third party, as if its population had conditions."""
    (tmp_path / "plain.py").write_text(empty_plugin)
    sources = {name: {"type": getattr(Foreign, name)} for name in ("few", "some", "rows")}
    config = {"plugin": str(tmp_path / "plain.py"), "device": "cpu", "evaluate": {"conditional": sources}}
    run = Run(resolve({**config}), RunDirectory(tmp_path / "run"))
    run.conditional = True
    return run


def test_a_source_of_a_third_party_gives_vectors_for_each_condition(run, angles):
    assert open_source(run, "rows", angles).wanted.tolist() == [0, 1, 2, 3, 4, 5] * 2
    line = r"got 2 vectors for 6 wanted conditions, expected one for each\. Return Drawn\(vectors, wanted=\.\.\.\)"
    with pytest.raises(PdiffError, match=rf"^evaluate\.conditional\.few: {line}"):
        open_source(run, "few", angles)
    with pytest.raises(PdiffError, match=r"^evaluate\.conditional\.some: got no vector for 4 of 6 wanted conditions"):
        open_source(run, "some", angles)


def test_a_source_gives_the_same_at_each_call_and_another_name_other_draws(run, angles):
    check_sources(run)
    for name in ("nearest", "interpolation2", "ridge", "generated_permuted", "soup"):
        first, second = (open_source(run, name, angles) for _ in range(2))
        assert torch.equal(first.vectors[:], second.vectors[:])
        assert first.wanted.tolist() == [0, 1, 2, 3, 4, 5]


def test_what_a_run_lacks_is_no_source_of_it(run, angles):
    with pytest.raises(PdiffError, match="^source: got 'symmetry'. Known: .*, nearest, nearest10, oracle, "):
        open_source(run, "symmetry", angles)


@pytest.mark.parametrize("kind", ["nearest", "oracle", "generated_permuted"])
def test_a_source_for_conditions_among_those_without_is_told_before_anything_is_computed(run, kind):
    run.config.evaluate.sources.odd = {"type": kind}
    line = rf"^evaluate\.sources\.odd\.type: got '{kind}', a source of networks for conditions, expected one that needs"
    with pytest.raises(PdiffError, match=line):
        check_sources(run)


def test_hypernet_is_predicted_reported_refined_and_exported(closed, tmp_path):
    left_out = {name: None for name in resolve(closed).evaluate.conditional if name not in FEW}
    refined = {"type": "refined", "of": "hypernet", "steps": 5, "lr": 0.01}
    sources = {**left_out, "hypernet": {"type": "hypernet"}, "more": refined}
    config = resolve(merge(closed, {"fit": {"hypernet": HYPERNET}, "evaluate": {"conditional": sources}}))
    run = Run(config, RunDirectory(tmp_path / "run"))
    run_pipeline(config, run.directory, gates=False)
    pool = open_pool(run)
    found = open_source(run, "hypernet", pool)
    assert torch.equal(found.vectors[:], run.hypernet.predict(pool.wanted.conditions.values))
    assert found.wanted.tolist() == [*range(len(pool.wanted))]
    summary = read_json(run.directory.path / "report" / "summary.json")
    assert summary["sources"]["hypernet"]["mean"] > summary["sources"]["nearest"]["mean"]
    assert summary["sources"]["hypernet"]["note"] == "what the hypernetwork gives; seconds: those after the fit"
    assert summary["best_source"] in ("hypernet", "more")
    for name in ("hypernet", "more"):
        export_for(run.directory.path, name, ["bit0=0.25", "bit1=0.75"], tmp_path / f"{name}.safetensors")
    written = load_file(tmp_path / "hypernet.safetensors")["weight"].flatten()
    torch.testing.assert_close(written, run.hypernet.predict(torch.tensor([[0.25, 0.75]]))[0])


def test_hypernet_without_one_is_told_before_anything_is_computed(closed, tmp_path):
    own = merge(closed, {"evaluate": {"conditional": {"h": {"type": "hypernet"}}}})
    with pytest.raises(
        PdiffError, match=r"^evaluate\.conditional\.h\.type: got 'hypernet', but there is none, for"
    ):
        check_sources(Run(resolve(own), RunDirectory(tmp_path)))


@pytest.mark.parametrize("source", [ridge, regression])
def test_combinations_of_vectors_are_computed_on_the_device_of_the_run_and_come_back(angles, source):
    here = vectors_of(source, angles)
    with simulated_cuda() as gpu:
        there = vectors_of(source, replace(angles, device=torch.device("cuda")))
        assert gpu.copies_to_device
        assert there.device.type == "cpu"
    assert torch.equal(here, there)
