"""Decoders that are tuned on what networks do, here on a loss in closed form."""

import pytest
import torch

from pdiff import ParameterDiffusion, PdiffError
from pdiff.engine import training
from pdiff.engine.behaving_settings import behaving_settings
from pdiff.runtime.storage import read_json, write_json, write_tensors

SMALL = {"denoiser": {"width": 32, "depth": 1}, "generator_training": {"steps": 30}}
PAPER = {
    "preset": "paper",
    "autoencoder": {"latent": 16, "encoder": [2, 4, 4, 4, 2], "decoder": [4, 4, 4, 2, 2]},
    "autoencoder_training": {"steps": 6},
    "denoiser": {"channels": [2, 4, 4, 8, 4, 4, 2]},
    "generator_training": {"steps": 6},
    "sampler": {"steps": 20},
}

TOKENS = {
    "autoencoder": {"type": "tokens", "latents": 4, "latent_width": 2, "token": 16, "rank": 3, "width": 16},
    "autoencoder_training": {"steps": 6, "batch_size": 8, "ema": 0.9},
    "denoiser": {"type": "transformer", "tokens": 4, "width": 16, "depth": 1},
    "generator_training": {"steps": 6},
}
SETTINGS = behaving_settings("decoder", {"steps": 40, "batch_size": 8, "lr": 0.03})
GENERATOR = torch.Generator().manual_seed(0)
VECTORS = torch.randn(40, 3, generator=GENERATOR) @ torch.randn(3, 96, generator=GENERATOR) + 5


def behaviour(vectors, numbers, step):
    """The loss of networks that are good where the sum of their parameters is 0, whatever these are."""
    assert vectors.requires_grad
    return vectors.sum(1).square() / 1e3


def reached(engine):
    return engine.decode(engine.encode(VECTORS)).sum(1).square().mean().item()


@pytest.fixture(params=[SMALL, PAPER, TOKENS], ids=["fast", "paper", "tokens"])
def engine(request):
    return ParameterDiffusion(request.param, seed=3).fit(VECTORS)


def test_a_tuned_decoder_gives_networks_of_a_lower_loss_and_nothing_else_changes(engine):
    latents, before, sampled = engine.encode(VECTORS), reached(engine), engine.sample_latents(4)
    own = engine.decode(latents)
    assert engine.tune_decoder(VECTORS, behaviour, SETTINGS) is engine
    assert reached(engine) < 0.9 * before
    assert len(engine.history["decoder"]) == 40
    assert torch.equal(engine.encode(VECTORS), latents)
    assert torch.equal(engine.sample_latents(4), sampled)
    assert torch.equal(engine.decode(latents, tuned=False), own)
    assert not torch.equal(engine.decode(latents), own)


def test_decoding_is_a_copy_of_what_decode_does(engine):
    latents = engine.encode(VECTORS)
    for _ in range(2):
        decoding = engine.decoding()
        expected = engine.decode(latents)
        assert torch.allclose(decoding(latents), expected, atol=1e-4)
        with torch.no_grad():
            for parameter in decoding.parameters():
                parameter.add_(1)
        assert torch.equal(engine.decode(latents), expected)
        engine.tune_decoder(VECTORS, behaviour, SETTINGS)


def test_a_tuned_decoder_is_saved_and_an_engine_without_one_is_as_it_was(engine, tmp_path):
    engine.save(tmp_path / "plain")
    assert "tuned" not in read_json(tmp_path / "plain" / "engine.json")
    assert not (tmp_path / "plain" / "decoder.safetensors").exists()
    assert ParameterDiffusion.load(tmp_path / "plain").tuned is None
    engine.tune_decoder(VECTORS, behaviour, SETTINGS).save(tmp_path / "tuned")
    loaded = ParameterDiffusion.load(tmp_path / "tuned")
    assert torch.equal(loaded.sample(5), engine.sample(5))
    latents = engine.encode(VECTORS)
    assert torch.equal(loaded.decode(latents, tuned=False), engine.decode(latents, tuned=False))
    assert loaded.history == engine.history


def test_an_interrupted_tuning_goes_on_to_the_same_bytes(engine, tmp_path, monkeypatch):
    engine.save(tmp_path / "engine")
    whole = engine.tune_decoder(VECTORS, behaviour, SETTINGS)
    monkeypatch.setattr(training, "SECONDS_BETWEEN_STATES", 0)

    def interrupted(step_of_failure):
        def losses(vectors, numbers, step):
            if step == step_of_failure:
                raise KeyboardInterrupt
            return behaviour(vectors, numbers, step)

        return losses

    with pytest.raises(KeyboardInterrupt):
        ParameterDiffusion.load(tmp_path / "engine").tune_decoder(VECTORS, interrupted(17), SETTINGS, tmp_path)
    resumed = ParameterDiffusion.load(tmp_path / "engine").tune_decoder(VECTORS, interrupted(5), SETTINGS, tmp_path)
    assert resumed.history["decoder"] == whole.history["decoder"]
    assert torch.equal(resumed.sample(3), whole.sample(3))


def test_another_fit_forgets_the_tuned_decoder():
    engine = ParameterDiffusion(SMALL).fit(VECTORS).tune_decoder(VECTORS, behaviour, SETTINGS)
    assert engine.fit(VECTORS).tuned is None


def test_a_training_that_diverges_is_told_and_leaves_the_engine_as_it_was():
    engine = ParameterDiffusion(SMALL, seed=3).fit(VECTORS)
    with pytest.raises(PdiffError, match=r"fit.decoder: got a loss of .* at step \d+, expected finite ones.*its lr\.$"):
        engine.tune_decoder(VECTORS, behaviour, {**SETTINGS, "lr": 1e25})
    assert engine.tuned is None
    assert "decoder" not in engine.history


def test_errors_are_told_in_one_line(tmp_path):
    engine = ParameterDiffusion(SMALL)
    with pytest.raises(PdiffError, match="is not fitted yet"):
        engine.tune_decoder(VECTORS, behaviour, SETTINGS)
    with pytest.raises(PdiffError, match="is not fitted yet"):
        engine.decoding()
    engine.fit(VECTORS)
    with pytest.raises(PdiffError, match=r"encode: got shape \(40, 95\), expected \(M, 96\)"):
        engine.tune_decoder(VECTORS[:, 1:], behaviour, SETTINGS)
    engine.save(tmp_path)
    write_json(tmp_path / "engine.json", read_json(tmp_path / "engine.json") | {"tuned": True})
    with pytest.raises(PdiffError, match="decoder.safetensors"):
        ParameterDiffusion.load(tmp_path)
    write_tensors(tmp_path / "decoder.safetensors", {"weight": torch.zeros(3)})
    with pytest.raises(PdiffError, match="does not fit engine.json .*Fit again"):
        ParameterDiffusion.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"step": 1}, "fit.decoder.*step"),
        ({"batch_size": 0}, "fit.decoder.batch_size: got 0"),
        ({"ema": 1.0}, "fit.decoder.ema: got 1.0, expected below 1"),
        ({"schedule": "line"}, "fit.decoder.schedule: got 'line'"),
        ({"compile": "cudagraphs"}, "fit.decoder.compile: got 'cudagraphs' on the cpu"),
    ],
)
def test_settings_that_cannot_be_are_told(settings, words):
    with pytest.raises(PdiffError, match=words):
        ParameterDiffusion(SMALL).tune_decoder(VECTORS, behaviour, settings)
