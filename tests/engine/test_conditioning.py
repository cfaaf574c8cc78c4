"""The parts for conditions, and the engine that has them."""

import json

import numpy as np
import pytest
import torch

from pdiff import Denoiser, ParameterDiffusion, PdiffError
from pdiff.engine import training
from pdiff.engine.conditioning import ConditionEmbedding, Conditioning, dropped
from pdiff.engine.objectives import Denoising
from pdiff.runtime.seeding import derive_seed, generator, isolated_seed
from pdiff.runtime.storage import read_tensors_and_metadata
from pdiff.weights.vectors import Rows

SMALL = {"denoiser": {"width": 32, "depth": 1}, "generator_training": {"steps": 30}}
LEARNING = {"autoencoder": {"latent": 8, "latent_noise": 0.0}, "generator_training": {"steps": 300, "lr": 5e-3}}
DENOISERS = {
    "mlp": {"width": 64},
    "conv": {"channels": [16, 32, 16]},
    "transformer": {"tokens": 4, "width": 32, "depth": 2},
}
UNITS = torch.tensor([1.0, 50.0, 0.01])
PAPER = {
    "preset": "paper",
    "autoencoder": {"latent": 16, "encoder": [2, 4, 4, 4, 2], "decoder": [4, 4, 4, 2, 2]},
    "autoencoder_training": {"steps": 6},
    "denoiser": {"channels": [2, 4, 4, 8, 4, 4, 2]},
    "generator_training": {"steps": 6},
    "sampler": {"steps": 20},
}


def conditional(rows=300, size=40, seed=0):
    """Return vectors `(N, P)` = c A + noise + 2, their conditions c `(N, 3)`, scaled by `UNITS`, and c A + 2 of any."""
    rng = torch.Generator().manual_seed(seed)
    slopes, axes = torch.randn(3, size, generator=rng), torch.randn(5, size, generator=rng)
    c = torch.randn(rows, 3, generator=rng)
    vectors = c @ slopes + 0.2 * torch.randn(rows, 5, generator=rng) @ axes + 2
    return vectors, c * UNITS, lambda conditions: conditions / UNITS @ slopes + 2


VECTORS, CONDITIONS, MEAN = conditional()
NEW = torch.tensor([0.8, -60.0, 0.003])  # of no vector


def off(samples, wanted=NEW):
    """Return how far the mean of samples `(M, P)` is from what a condition asks for, 1 for the mean of all."""
    return ((samples.mean(0) - MEAN(wanted)).norm() / (MEAN(wanted) - 2).norm()).item()


@pytest.fixture(scope="module")
def engine():
    """An engine that has learnt what its conditions mean."""
    return ParameterDiffusion({**LEARNING, "denoiser": DENOISERS["mlp"]}).fit(VECTORS, conditions=CONDITIONS)


def test_scaled_conditions_have_mean_0_and_deviation_1_and_a_constant_one_keeps_its_unit():
    conditioning = Conditioning(3)
    conditions = torch.cat([CONDITIONS[:, :2] + 1000, torch.full((300, 1), 0.1)], 1)
    conditioning.fit(conditions)
    scaled = conditioning(conditions)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3, rtol=0)
    assert conditioning(conditions[:1] + 1)[0, 2] == pytest.approx(1)


def test_dropped_conditions_are_nan_row_by_row():
    c = dropped(torch.ones(500, 3), 0.2, generator(0))
    gone = c.isnan()
    assert torch.equal(gone.any(1), gone.all(1))
    assert gone[:, 0].float().mean() == pytest.approx(0.2, abs=0.05)
    assert (c[~gone] == 1).all()


def test_embedding_without_any_conditions_is_that_of_rows_without():
    torch.manual_seed(0)
    embedding, z = ConditionEmbedding(3, 8), torch.zeros(5, 2)
    assert torch.equal(embedding(None, z), embedding(torch.full((5, 3), float("nan")), z))
    assert not torch.equal(embedding(None, z), embedding(torch.zeros(5, 3), z))


@pytest.mark.parametrize("kind", DENOISERS)
def test_mean_of_a_condition_that_was_never_seen_is_recovered(kind):
    config = {**LEARNING, "denoiser": {"type": kind, **DENOISERS[kind]}}
    fitted = ParameterDiffusion(config).fit(VECTORS, conditions=CONDITIONS)
    samples = fitted.sample(300, conditions=NEW.expand(300, 3))
    assert off(samples) < 0.25
    assert fitted.spread(samples) < 0.75


def test_each_sample_is_for_its_own_condition_whatever_the_batches(engine):
    wanted = conditional(rows=60, seed=1)[1]
    for batch_size in (1000, 7):
        samples = engine.sample(60, seed=1, batch_size=batch_size, conditions=wanted)
        lost = (samples - MEAN(wanted)).square().sum() / (MEAN(wanted) - 2).square().sum()
        assert lost < 0.3


def test_conditions_of_others_say_nothing():
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    config = {**LEARNING, "denoiser": DENOISERS["mlp"]}
    permuted = ParameterDiffusion(config).fit(VECTORS, conditions=CONDITIONS[order])
    assert off(permuted.sample(300, conditions=NEW.expand(300, 3))) > 0.7


def test_without_a_condition_an_engine_draws_from_all_it_was_fitted_to(engine):
    samples = engine.sample(500)
    assert (samples.mean(0) - VECTORS.mean(0)).abs().mean() < 0.3 * VECTORS.std(0).mean()
    assert engine.spread(samples) > 1.2 * engine.spread(engine.sample(500, conditions=NEW.expand(500, 3)))
    assert off(samples) > 0.7


def test_guidance_leads_from_no_condition_past_the_condition(engine):
    wanted = NEW.expand(200, 3)
    nought, one, two = (engine.sample(200, conditions=wanted, guidance=weight) for weight in (0, 1.0, 2))
    torch.testing.assert_close(nought, engine.sample(200))
    assert torch.equal(one, engine.sample(200, conditions=wanted))
    along = (MEAN(NEW) - 2) / (MEAN(NEW) - 2).norm()
    reached = [(samples.mean(0) - 2) @ along for samples in (nought, one, two)]
    assert reached[0] < reached[1] < reached[2]


def test_unit_of_a_condition_does_not_matter():
    one, other = (ParameterDiffusion(SMALL).fit(VECTORS, conditions=unit * CONDITIONS) for unit in (1, 8))
    assert torch.equal(one.sample(3, conditions=CONDITIONS[:3]), other.sample(3, conditions=8 * CONDITIONS[:3]))


def test_conditions_are_taken_as_arrays_of_any_type_and_vectors_as_rows():
    rows = Rows(VECTORS, range(0, 300, 3))
    one = ParameterDiffusion(SMALL).fit(rows, conditions=CONDITIONS[::3])
    other = ParameterDiffusion(SMALL).fit(VECTORS[::3].numpy().copy(), conditions=CONDITIONS[::3].double().numpy())
    wanted = np.asarray(CONDITIONS[:2], np.float64)
    assert torch.equal(one.sample(2, conditions=CONDITIONS[:2]), other.sample(2, conditions=wanted))


def test_the_way_of_conditional_samples_ends_at_these_samples(engine):
    settings = {"conditions": CONDITIONS[:4], "guidance": 1.5}
    path, _ = engine.sample_path(4, 3, **settings)
    torch.testing.assert_close(path[-1], engine.sample_latents(4, **settings), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("kind", DENOISERS)
def test_loaded_engine_draws_for_conditions_as_the_saved_one(tmp_path, kind):
    config = {"autoencoder": {"latent": 8}, "denoiser": {"type": kind, **DENOISERS[kind]}}
    fitted = ParameterDiffusion({**config, "generator_training": {"steps": 5}}).fit(VECTORS, conditions=CONDITIONS)
    fitted.save(tmp_path)
    loaded = ParameterDiffusion.load(tmp_path)
    settings = {"conditions": CONDITIONS[:5], "guidance": 2.0}
    assert loaded.condition == 3
    assert torch.equal(loaded.sample(5, **settings), fitted.sample(5, **settings))


def interrupt(folder, monkeypatch, config):
    """Leave the state of a conditional fit that was interrupted."""
    forward = Denoising.forward

    def interrupted(self, rows, step, mode="loss"):
        if step == 17:
            raise KeyboardInterrupt
        return forward(self, rows, step, mode)

    with monkeypatch.context() as patch:
        patch.setattr(training, "SECONDS_BETWEEN_STATES", 0)
        patch.setattr(Denoising, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ParameterDiffusion(config).fit(VECTORS, folder=folder, conditions=CONDITIONS)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
@pytest.mark.parametrize("changes", [{}, {"ema": 0.0, "amp": True}, {"compile": "eager"}])
def test_interrupted_conditional_fit_goes_on_to_the_same_bytes(tmp_path, monkeypatch, kind, changes):
    config = {**SMALL, "generator": {"type": kind}, "generator_training": {"steps": 30, **changes}}
    interrupt(tmp_path, monkeypatch, config)
    resumed, whole = (
        ParameterDiffusion(config).fit(VECTORS, folder=folder, conditions=CONDITIONS) for folder in (tmp_path, None)
    )
    assert resumed.history == whole.history
    assert torch.equal(resumed.sample(3, conditions=CONDITIONS[:3]), whole.sample(3, conditions=CONDITIONS[:3]))


@pytest.mark.parametrize(
    ("config", "conditions"), [(SMALL, -CONDITIONS), ({**SMALL, "condition_dropout": 0.2}, CONDITIONS), (SMALL, None)]
)
def test_state_of_other_conditions_or_dropout_is_not_taken(tmp_path, monkeypatch, config, conditions):
    interrupt(tmp_path, monkeypatch, SMALL)
    one, other = (
        ParameterDiffusion(config).fit(VECTORS, folder=folder, conditions=conditions) for folder in (tmp_path, None)
    )
    assert one.history == other.history


def test_codec_and_conditional_diffusion_may_be_fitted_one_after_the_other(engine):
    one = ParameterDiffusion(engine.config)
    one.build(engine.layout, condition=3)
    one.fit_codec(VECTORS, None)
    with pytest.raises(PdiffError, match=r"^fit\.conditions: got NoneType, expected \(300, 3\) as a torch tensor"):
        one.fit_diffusion(one.encode(VECTORS), None)
    one.fit_diffusion(one.encode(VECTORS), None, CONDITIONS)
    assert one.sample(2, conditions=CONDITIONS[:2]).shape == (2, 40)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"conditions": CONDITIONS[:3]}, r"sample\.conditions: got shape \(3, 3\), expected \(2, 3\)"),
        ({"conditions": CONDITIONS[:2, :2]}, r"sample\.conditions: got shape \(2, 2\), expected \(2, 3\)"),
        ({"conditions": CONDITIONS[:2] / 0}, r"sample\.conditions: got NaN or infinity in row 0"),
        ({"guidance": 1.5}, r"sample\.guidance: got 1\.5 without conditions, expected 1"),
    ],
)
def test_samples_for_unfit_conditions_are_refused_in_one_line(engine, settings, line):
    for draw in (engine.sample, engine.sample_latents):
        with pytest.raises(PdiffError, match=f"^{line}"):
            draw(2, **settings)
    with pytest.raises(PdiffError, match=f"^{line.replace('sample', 'sample_path')}"):
        engine.sample_path(2, 2, **settings)


@pytest.mark.parametrize("conditions", [CONDITIONS[:4], CONDITIONS[:, 0], CONDITIONS / 0, CONDITIONS.tolist()])
def test_fit_to_unfit_conditions_is_refused_before_anything_is_computed(conditions):
    with pytest.raises(PdiffError, match=r"^fit\.conditions: got [^\n]*, expected [^\n]*\.$"):
        ParameterDiffusion({**SMALL, "scaling": {"type": "never looked up"}}).fit(VECTORS, conditions=conditions)


def test_engine_without_conditions_draws_for_none():
    plain = ParameterDiffusion(SMALL).fit(VECTORS)
    with pytest.raises(PdiffError, match=r"^sample\.conditions: got some, but the engine was fitted without\."):
        plain.sample(2, conditions=CONDITIONS[:2])


def test_what_is_never_dropped_is_needed_to_draw():
    fitted = ParameterDiffusion({**SMALL, "condition_dropout": 0.0}).fit(VECTORS, conditions=CONDITIONS)
    assert fitted.sample(2, conditions=CONDITIONS[:2]).shape == (2, 40)
    for settings in ({}, {"conditions": CONDITIONS[:2], "guidance": 1.5}):
        with pytest.raises(PdiffError, match=r"engine\.condition_dropout is 0, so that nothing was learnt without"):
            fitted.sample(2, **settings)


def test_samples_for_one_condition_may_be_narrow_without_a_warning(engine, caplog):
    engine.sample(20, conditions=NEW.expand(20, 3))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


class Line(Denoiser):
    """One that knows of no conditions."""

    def __init__(self, size: int):
        super().__init__()
        self.layer = torch.nn.Linear(size, size)

    def forward(self, z, t):
        return self.layer(z)


def test_denoiser_that_takes_no_condition_says_so_where_there_is_one():
    config = {**SMALL, "denoiser": {"type": Line}}
    assert ParameterDiffusion(config).fit(VECTORS).sample(2).shape == (2, 40)
    line = r"^engine\.denoiser: got type '[^']*:Line', which takes no condition\. Give it that argument\.$"
    with pytest.raises(PdiffError, match=line):
        ParameterDiffusion(config).fit(VECTORS, conditions=CONDITIONS)


@pytest.mark.parametrize("conditions", [None, CONDITIONS])
def test_length_of_the_condition_is_no_setting(conditions):
    line = r"^engine\.denoiser: got unknown key 'condition'\. Known: depth, width\.$"
    with pytest.raises(PdiffError, match=line):
        ParameterDiffusion({**SMALL, "denoiser": {"condition": 3}}).fit(VECTORS, conditions=conditions)


def test_without_conditions_the_first_weights_are_those_that_were_drawn_before_there_were_any():
    fitted = ParameterDiffusion(SMALL, seed=3)
    fitted.build(ParameterDiffusion(SMALL).fit(VECTORS).layout)
    linear = torch.nn.Linear
    with isolated_seed(derive_seed(3, "weights")):  # time, first, block, last, as they stand in the class
        drawn = [linear(256, 32), linear(32, 32), linear(32, 32), linear(32, 96), linear(32, 64), linear(64, 32)]
        drawn.append(linear(32, 32))
    places = {"time.layers.0": 0, "time.layers.2": 1, "first": 2, "blocks.0.layers.0": 4, "blocks.0.layers.2": 5}
    for name, number in (places | {"last.1": 6}).items():
        assert torch.equal(fitted.generator.denoiser.get_submodule(name).weight, drawn[number].weight), name


@pytest.mark.parametrize("config", [SMALL, PAPER])
def test_without_conditions_files_and_identity_are_those_from_before_there_were_any(tmp_path, config):
    fitted = ParameterDiffusion(config).fit(VECTORS, folder=tmp_path)
    fitted.save(tmp_path)
    parts = ["autoencoder", "denoiser", "scaling", "whitening"]
    assert sorted(fitted.modules()) == parts
    description = json.loads((tmp_path / "engine.json").read_text())
    assert list(description) == ["format", "seed", "config", "width", "layout"]
    own = {key: value for key, value in fitted.config.items() if key not in ("sampler", "condition_dropout")}
    white = fitted.whitening(fitted.encode(VECTORS))
    whole = derive_seed(derive_seed(0, "denoiser"), json.dumps(own), training.checksum(white))
    _, metadata = read_tensors_and_metadata(tmp_path / "denoiser.state.safetensors")
    assert metadata["identity"] == str(whole)


def test_without_conditions_the_dropout_changes_nothing():
    one, other = (ParameterDiffusion({**SMALL, "condition_dropout": share}).fit(VECTORS) for share in (0.1, 0.5))
    assert torch.equal(one.sample(3), other.sample(3))


def test_without_conditions_samples_are_those_of_the_sampler_alone():
    from diffusers import DDIMScheduler

    fitted = ParameterDiffusion(SMALL).fit(VECTORS)
    sampler = DDIMScheduler.from_config(fitted.process.schedule.config, timestep_spacing="trailing")
    sampler.set_timesteps(50)
    z = torch.randn(4, 32, generator=generator(5, "sample"))
    with torch.no_grad():
        for t in sampler.timesteps:
            z = sampler.step(fitted.generator.denoiser(z, torch.full((4,), int(t))), t, z).prev_sample
        assert torch.equal(fitted.sample_latents(4, seed=5), fitted.whitening.inverse(z))
