import pytest
import torch

from pdiff import GENERATORS, Generator, Layout, ParameterDiffusion, PdiffError
from pdiff.engine.generator import check_watching


class Box(Generator):
    """Every axis by itself, anywhere between its smallest and its largest latent."""

    def __init__(self, size: int, wide: float = 1.0):
        super().__init__()
        self.wide = wide
        self.register_buffer("low", torch.zeros(size))
        self.register_buffer("high", torch.ones(size))

    def fit(self, rows):
        self.low, self.high = rows.amin(0), rows.amax(0)

    def draw(self, shape, rng, c=None, guidance=1.0, sampler=None):
        z = self.wide * torch.lerp(self.low, self.high, torch.rand(shape, generator=rng))
        yield z, z


BOX = {"generator": {"type": Box}, "sampler": None, "autoencoder": {"latent": 4, "latent_noise": 0.0}}
VECTORS = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))


def test_a_class_of_somebody_elses_draws_and_is_saved_and_loaded(tmp_path):
    engine = ParameterDiffusion(BOX).fit(VECTORS)
    new, old = engine.whitening(engine.sample_latents(200)), engine.whitening(engine.encode(VECTORS))
    assert (new.amin(0) > old.amin(0) - 1e-4).all()
    assert (new.amax(0) < old.amax(0) + 1e-4).all()
    assert engine.history == {"autoencoder": []}
    engine.save(tmp_path)
    assert (tmp_path / "generator.safetensors").exists()
    assert torch.equal(ParameterDiffusion.load(tmp_path).sample(200), engine.sample(200))


def test_a_registered_one_is_chosen_by_its_name_and_has_settings():
    GENERATORS.register_module(name="box", module=Box)
    try:
        wide = ParameterDiffusion({**BOX, "generator": {"type": "box", "wide": 3.0}}).fit(VECTORS)
        plain = ParameterDiffusion({**BOX, "generator": {"type": "box"}}).fit(VECTORS)
        torch.testing.assert_close(
            wide.whitening(wide.sample_latents(9)), 3 * plain.whitening(plain.sample_latents(9)), atol=1e-4, rtol=1e-4
        )
    finally:
        GENERATORS.module_dict.pop("box")


def test_one_that_takes_no_conditions_is_refused_where_there_are_some():
    with pytest.raises(PdiffError, match=r"engine.generator.*condition"):
        ParameterDiffusion(BOX).fit(VECTORS, conditions=torch.zeros(40, 2))


def test_its_way_has_one_step():
    engine = ParameterDiffusion(BOX).fit(VECTORS)
    path, steps = engine.sample_path(3, 2)
    assert steps.tolist() == [1, 1]
    assert torch.equal(path[0], path[1])


def test_a_presets_sampler_is_no_use_to_one_that_draws_in_one_pass():
    with pytest.raises(PdiffError, match=r"^engine.sampler: got .*draws in one pass\. Set engine.sampler to null\.$"):
        ParameterDiffusion({"generator": {"type": Box}})


@pytest.mark.parametrize("kind", ["torch.nn:Linear", "math:sqrt"])
def test_what_is_no_generator_is_refused(kind):
    line = rf"^engine.generator.type: got {kind!r}, expected a subclass of pdiff.Generator. Derive it from that.$"
    with pytest.raises(PdiffError, match=line):
        ParameterDiffusion({"generator": {"type": kind}})


class Usurper(Box):
    """Would be saved in place of the codec."""

    part = "autoencoder"


def test_one_that_would_be_saved_in_place_of_another_part_is_refused():
    with pytest.raises(PdiffError, match=r"is called 'autoencoder', as another part of the engine. Give its class ano"):
        ParameterDiffusion({**BOX, "generator": {"type": Usurper}})


def test_a_sampler_that_is_no_section_is_refused():
    engine = ParameterDiffusion(BOX).fit(VECTORS)
    with pytest.raises(PdiffError, match=r"^engine.sampler: got 'DDIM', expected a section"):
        engine.sample(3, sampler="DDIM")


def test_what_cannot_be_watched_refuses_patience():
    with pytest.raises(PdiffError, match=r"patience: got 2, but no loss on vectors that it does not see says how well"):
        ParameterDiffusion({**BOX, "generator_training": {"patience": 2}}).prepare(Layout.of({"v": torch.empty(30)}))
    check_watching("x", False, 0)
    check_watching("x", True, 2)


class Overflowing(Box):
    """Draws what is no number."""

    remedy = "Set engine.generator.wide to less"

    def draw(self, shape, rng, c=None, guidance=1.0, sampler=None):
        yield torch.full(shape, torch.nan), torch.full(shape, torch.nan)


def test_one_without_weights_is_not_to_be_trained_longer_where_it_draws_no_numbers():
    engine = ParameterDiffusion({**BOX, "generator": {"type": Overflowing}}).fit(VECTORS)
    with pytest.raises(PdiffError, match=r"did not converge\. Set engine.generator.wide to less\.$"):
        engine.sample(3)
