import pytest
import torch

from pdiff import Layout, ParameterDiffusion, PdiffError
from pdiff.engine.gaussian import LatentGaussian, root
from pdiff.runtime.seeding import generator

GAUSSIAN = {"autoencoder": {"latent": 6, "latent_noise": 0.0}, "generator": {"type": "gaussian"}}


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn(fitted, count, c=None, seed=0):
    (z, same), *rest = fitted.draw(torch.Size([count, len(fitted.slope)]), generator(seed), c)
    assert same is z
    assert not rest
    return z


def fitted_to(rows, condition=0):
    made = LatentGaussian(rows.shape[1] - condition, condition)
    made.fit(rows)
    return made


def test_draws_have_mean_and_covariance_of_the_rows():
    rows = noise(300, 4, seed=0) @ noise(4, 4, seed=1) + 3
    z = drawn(fitted_to(rows), 20000)
    torch.testing.assert_close(z.mean(0), rows.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(z.T.cov(), rows.T.cov(), atol=0.25, rtol=0.05)


def test_for_a_condition_the_mean_is_the_regressions_and_the_covariance_that_of_its_rest():
    c = noise(500, 2, seed=0)
    z = 2 + c @ noise(2, 3, seed=1) + 0.3 * noise(500, 3, seed=2)
    ones = torch.cat([torch.ones(500, 1), c], 1)
    line = torch.linalg.lstsq(ones, z).solution
    made = fitted_to(torch.cat([z, c], 1), 2)
    for wanted in torch.tensor([[0.0, 0.0], [1.5, -1.0]]):
        found = drawn(made, 20000, wanted.repeat(20000, 1))
        torch.testing.assert_close(found.mean(0), line[0] + wanted @ line[1:], atol=0.02, rtol=0)
        torch.testing.assert_close(found.T.cov(), (z - ones @ line).T.cov(), atol=0.01, rtol=0)
    torch.testing.assert_close(drawn(made, 20000).T.cov(), z.T.cov(), atol=0.15, rtol=0.05)


def test_without_conditions_and_with_useless_ones_it_draws_about_the_same():
    rows, useless = noise(4000, 3, seed=0), noise(4000, 1, seed=1)
    made = fitted_to(torch.cat([rows, useless], 1), 1)
    apart = drawn(made, 50, torch.full((50, 1), 2.0)) - drawn(fitted_to(rows), 50)
    assert apart.abs().max() < 0.25


@pytest.mark.parametrize("rows", [2, 3])
def test_fewer_rows_than_axes_draw_what_lies_in_their_span(rows):
    own = noise(rows, 8, seed=0)
    z = drawn(fitted_to(own), 5000)
    span = own[1:] - own[:1]
    away = z - own[0]
    left = away - away @ torch.linalg.pinv(span) @ span
    assert left.abs().max() < 1e-4
    torch.testing.assert_close(z.T.cov(), own.T.cov(), atol=0.25, rtol=0.1)


def test_constant_axes_and_constant_conditions_stay_as_they_are():
    rows = torch.cat([noise(50, 2, seed=0), torch.full((50, 1), 0.7), torch.zeros(50, 1)], 1)
    made = fitted_to(rows, 1)
    for c in (None, torch.full((9, 1), 5.0)):
        assert (drawn(made, 9, c)[:, 2] == 0.7).all()
        assert drawn(made, 9, c).abs().max() < 5


def test_conditions_that_say_the_same_twice_count_once():
    c = noise(100, 1, seed=0)
    z = c @ noise(1, 3, seed=1) + 0.1 * noise(100, 3, seed=2)
    once, twice = fitted_to(torch.cat([z, c], 1), 1), fitted_to(torch.cat([z, c, c], 1), 2)
    torch.testing.assert_close(
        drawn(once, 20, torch.ones(20, 1)).mean(0), drawn(twice, 20, torch.ones(20, 2)).mean(0), atol=1e-4, rtol=1e-4
    )


def test_a_root_gives_a_covariance_without_all_directions_back():
    low = noise(2, 5, seed=0).double()
    found = root(low.T @ low)
    torch.testing.assert_close(found @ found.T, low.T @ low)


def vectors(rows=60, size=80):
    return noise(rows, 6, seed=3) @ noise(6, size, seed=4) + 5


def test_engine_trains_nothing_and_draws_the_same_bytes_for_the_same_seed(tmp_path):
    engine = ParameterDiffusion(GAUSSIAN, seed=1).fit(vectors())
    assert engine.history == {"autoencoder": []}
    assert engine.config["sampler"] is None
    assert torch.equal(engine.sample(5, seed=2), ParameterDiffusion(GAUSSIAN, seed=1).fit(vectors()).sample(5, seed=2))
    engine.save(tmp_path)
    assert (tmp_path / "gaussian.safetensors").exists()
    assert torch.equal(ParameterDiffusion.load(tmp_path).sample(5, seed=2), engine.sample(5, seed=2))


def test_engine_draws_for_conditions_and_without_and_loads(tmp_path):
    conditions = noise(200, 2, seed=0)
    slopes = noise(2, 40, seed=1)
    made = conditions @ slopes + 0.1 * noise(200, 40, seed=2)
    engine = ParameterDiffusion(GAUSSIAN).fit(made, conditions=conditions)
    wanted = torch.tensor([[1.0, -1.0]]).repeat(200, 1)
    new = engine.sample(200, conditions=wanted)
    assert (new.mean(0) - wanted[0] @ slopes).abs().mean() < 0.1
    assert engine.sample(200).std(0).mean() > 5 * new.std(0).mean()
    engine.save(tmp_path)
    assert torch.equal(ParameterDiffusion.load(tmp_path).sample(200, conditions=wanted), new)


def test_two_modes_become_one():
    rows = torch.cat([noise(200, 1, seed=0) * 0.1 - 1, noise(200, 1, seed=1) * 0.1 + 1])
    assert (drawn(fitted_to(rows), 4000).abs() < 0.5).float().mean() > 0.3


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"generator_training": {"patience": 2}}, r"patience: got 2, but no loss .* 'gaussian' draws, expected 0"),
        ({"generator": {"type": "gaussian", "width": 3}}, r"^engine.generator: got unknown key 'width'"),
        ({"sampler": {"steps": 3}}, r"^engine.sampler: got {'steps': 3}, but the generator 'gaussian' draws"),
        ({"sampler": {"type": "DDIM"}}, r"^engine.sampler: .* draws in one pass\. Set engine.sampler to null"),
    ],
)
def test_settings_that_cannot_be_are_one_line(changes, line):
    with pytest.raises(PdiffError, match=line):
        ParameterDiffusion({**GAUSSIAN, **changes}).prepare(Layout.of({"vector": torch.empty(40)}))


def test_guidance_is_refused():
    engine = ParameterDiffusion(GAUSSIAN).fit(vectors(), conditions=noise(60, 1, seed=0))
    with pytest.raises(PdiffError, match=r"guidance: got 2.0, but the generator 'gaussian' draws for a condition as"):
        engine.sample(3, conditions=torch.ones(3, 1), guidance=2.0)
