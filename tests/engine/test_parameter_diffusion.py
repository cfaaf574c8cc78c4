import importlib
import json
import re

import numpy as np
import pytest
import torch

from pdiff import Layout, ParameterDiffusion, PdiffError
from pdiff.engine import training
from pdiff.engine.intake import copied, on_device
from pdiff.engine.objectives import Reconstruction
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.weights.population import Population, write_population
from pdiff.weights.vectors import Rows

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


def population(rows=40, size=96, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 3, generator=rng) @ torch.randn(3, size, generator=rng) + 5


def test_fitted_engine_draws_the_mean_and_spread_of_a_gaussian_population():
    vectors = population(rows=300)
    config = {"autoencoder": {"latent_noise": 0.0}, "denoiser": {"width": 64}, "generator_training": {"steps": 400}}
    new = ParameterDiffusion(config).fit(vectors).sample(500, seed=1)
    assert ((new.mean(0) - vectors.mean(0)).abs() / vectors.std(0)).max() < 0.4
    assert (new.std(0) / vectors.std(0)).mean() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("config", [SMALL, PAPER, TOKENS])
def test_same_seed_gives_the_same_bytes(config):
    one, other = (ParameterDiffusion(config, seed=3).fit(population()).sample(7, seed=5) for _ in range(2))
    assert torch.equal(one, other)


def test_other_seeds_give_other_samples():
    engine = ParameterDiffusion(SMALL).fit(population())
    assert not torch.equal(engine.sample(4, seed=0), engine.sample(4, seed=1))


def test_fit_and_sample_leave_the_random_state_of_the_caller_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    ParameterDiffusion(SMALL).fit(population()).sample(2)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("config", [SMALL, PAPER, TOKENS])
def test_loaded_engine_draws_and_encodes_as_the_saved_one(tmp_path, config):
    engine = ParameterDiffusion(config).fit(population())
    engine.save(tmp_path)
    loaded = ParameterDiffusion.load(tmp_path)
    assert torch.equal(loaded.sample(5), engine.sample(5))
    assert torch.equal(loaded.encode(population()), engine.encode(population()))
    assert loaded.history == engine.history


def test_saved_engine_needs_no_pickle_to_be_read(tmp_path):
    ParameterDiffusion(SMALL).fit(population()).save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_decode_undoes_encode_for_a_population_of_low_rank():
    engine = ParameterDiffusion(SMALL | {"autoencoder": {"latent_noise": 0.0}}).fit(population())
    torch.testing.assert_close(engine.decode(engine.encode(population())), population(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("config", [SMALL, PAPER, TOKENS])
def test_constant_coordinates_are_drawn_exactly(config):
    vectors = population()
    vectors[:, 10:20] = 0.1
    assert (ParameterDiffusion(config).fit(vectors).sample(3)[:, 10:20] == torch.tensor(0.1)).all()


@pytest.mark.parametrize("config", [SMALL, PAPER, TOKENS])
def test_population_of_one_repeated_vector_draws_that_vector(config):
    vectors = torch.randn(1, 96).repeat(4, 1)
    assert torch.equal(ParameterDiffusion(config).fit(vectors).sample(2), vectors[:2])


def test_tokens_learn_a_population_of_low_rank():
    config = TOKENS | {"autoencoder_training": {"steps": 300, "batch_size": 16, "lr": 3e-3}}
    vectors, layout = population(), Layout.of({"a": torch.empty(60), "b": torch.empty(36)})
    engine = ParameterDiffusion(config).fit(vectors, layout)
    lost = (engine.decode(engine.encode(vectors)) - vectors).square().sum() / (vectors - vectors.mean(0)).square().sum()
    assert lost < 0.3


@pytest.mark.parametrize("config", [SMALL, TOKENS])
def test_fit_to_rows_of_a_file_is_the_fit_to_the_same_vectors_in_memory(tmp_path, config):
    write_population(tmp_path, Layout.of({"vector": torch.empty(96)}), population())
    rows = [row for row in range(40) if row % 7]
    stored = ParameterDiffusion(config).fit(Rows(Population.open(tmp_path).tensor(), rows))
    assert torch.equal(stored.sample(3), ParameterDiffusion(config).fit(population()[rows]).sample(3))


@pytest.mark.parametrize("config", [SMALL, {**SMALL, "scaling": {"type": "per_coordinate"}}])
def test_fit_to_a_population_that_a_gpu_cannot_hold_is_the_fit_on_the_cpu(monkeypatch, config):
    expected, rows = ParameterDiffusion(config).fit(population()).sample(3), Rows(population(), range(40))
    with simulated_cuda():
        monkeypatch.setattr("pdiff.engine.intake.fits", lambda *_: False)
        for vectors in (population(), rows):
            engine = ParameterDiffusion(config, device="cuda").fit(vectors)
            assert engine.autoencoder.mean.device.type == "cuda"
            assert torch.equal(engine.sample(3), expected)


def test_interrupted_fit_of_tokens_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    forward = Reconstruction.forward

    def interrupted(self, rows, step, mode="loss"):
        if step == 4:
            raise KeyboardInterrupt
        return forward(self, rows, step, mode)

    with monkeypatch.context() as patch:
        patch.setattr(training, "SECONDS_BETWEEN_STATES", 0)
        patch.setattr(Reconstruction, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ParameterDiffusion(TOKENS).fit(population(), folder=tmp_path)
    assert (tmp_path / "autoencoder.state.safetensors").exists()
    resumed, whole = (ParameterDiffusion(TOKENS).fit(population(), folder=folder) for folder in (tmp_path, None))
    assert resumed.history == whole.history
    assert torch.equal(resumed.sample(3), whole.sample(3))


def test_vectors_decoded_a_few_at_a_time_are_those_of_one_batch(monkeypatch):
    engine = ParameterDiffusion(SMALL).fit(population())
    whole = engine.decode(engine.encode(population()))
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 3 * 96)
    torch.testing.assert_close(engine.decode(engine.encode(population())), whole)


def test_two_vectors_are_enough():
    assert ParameterDiffusion(SMALL).fit(population(rows=2)).sample(3).shape == (3, 96)


@pytest.mark.parametrize("name", ["DDPM", "DDIM", "DPM-Solver++"])
def test_sampler_is_chosen_by_name(name):
    engine = ParameterDiffusion(SMALL | {"sampler": {"type": name, "steps": 10}}).fit(population())
    assert torch.isfinite(engine.sample(2)).all()


def test_another_sampler_may_be_taken_without_another_fit():
    engine = ParameterDiffusion(SMALL).fit(population())
    other = engine.sample(3, sampler={"type": "DPM-Solver++", "steps": 5})
    assert not torch.equal(other, engine.sample(3))


def test_tensors_with_gradient_and_of_other_types_are_fitted():
    for vectors in (population().requires_grad_(), population().bfloat16(), population().numpy()):
        assert ParameterDiffusion(SMALL).fit(vectors).sample(1).dtype == torch.float32


def test_no_sample_is_refused():
    with pytest.raises(PdiffError, match="sample.n: got 0, expected an integer from 1 on"):
        ParameterDiffusion(SMALL).fit(population()).sample(0)


def test_samples_may_be_drawn_in_batches():
    engine = ParameterDiffusion(SMALL).fit(population())
    assert engine.sample(5, batch_size=2).shape == (5, 96)


def with_nan():
    vectors = population()
    vectors[3, 7] = float("nan")
    return vectors


@pytest.mark.parametrize(
    ("vectors", "layout", "words"),
    [
        (population(rows=1), None, "got 1 vector, expected at least 2"),
        (with_nan(), None, "vector 3 holds NaN"),
        (population(), Layout.of({"a": torch.empty(95)}), r"got shape \(40, 96\), expected \(N, 95\)"),
    ],
)
def test_unusable_population_is_refused(vectors, layout, words):
    with pytest.raises(PdiffError, match=words):
        ParameterDiffusion(SMALL).fit(vectors, layout)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"preset": "fats"}, "engine.preset: got 'fats'. Did you mean 'fast'"),
        ({"denoisr": {}}, "engine: got unknown key 'denoisr'. Did you mean 'denoiser'"),
        ({"generator_training": {"step": 1}}, "engine.generator_training: got unknown key 'step'"),
        ({"sampler": {"type": "Eulr"}}, "engine.sampler.type: got 'Eulr'. Did you mean 'Euler'"),
        ({"sampler": {"type": "Euler"}}, "got 'Euler', which is for another generator than diffusion, expected one of"),
        ({"generator": {"type": "flow"}, "sampler": {"type": "DDIM"}}, "than flow, expected one of Euler, Heun"),
        ({"generator": {"type": "flow", "noise_scale": 0.0}}, "engine.generator.noise_scale: got 0.0, expected a fin"),
        ({"generator": {"type": "flow", "noise": 0.0}}, "engine.generator: got unknown key 'noise'. Did you mean"),
        ({"generator": {"type": "difusion"}}, "engine.generator.type: got 'difusion'. Did you mean 'diffusion'"),
        ({"noise_schedule": {"zero_terminal_snr": True, "prediction": "epsilon"}}, "zero_terminal_snr: got true with"),
        ({"scaling": {"type": "none"}}, "engine.scaling.type: got 'none'"),
        ({"autoencoder": {"type": "conv"}}, "autoencoder_training.steps: got 0, but the autoencoder 'conv' must be"),
        ({"autoencoder": {"type": "tokens"}}, "steps: got 0, but the autoencoder 'tokens' must be trained"),
        ({"autoencoder": {"type": "tokens", "layout": 3}}, "engine.autoencoder: got unknown key 'layout'"),
        ({"denoiser": {"type": "transformer", "tokens": 5}}, "engine.denoiser.tokens: got 5, expected a divisor of"),
        ({"latent_noise": 0.1}, "engine: got unknown key 'latent_noise'"),
        ({"autoencoder_training": {"steps": 5}}, "'principal' is fitted in closed form and not trained. Set"),
        ({"autoencoder": {"type": "conv", "vector_noise": -1.0}}, "engine.autoencoder.vector_noise: got -1.0"),
        ({"autoencoder": {"latent": 0}}, "engine.autoencoder.latent: got 0, expected an integer from 1 on"),
        ({"autoencoder": {"latent_noise": "much"}}, "engine.autoencoder.latent_noise: got 'much', expected a number"),
        ({"condition_dropout": 1.0}, "engine.condition_dropout: got 1.0, expected below 1"),
        ({"condition_dropout": -0.1}, "engine.condition_dropout: got -0.1, expected a finite number from 0 on"),
        ({"condition_dropout": "much"}, "engine.condition_dropout: got 'much', expected a number"),
        ({"whiten": "no"}, "engine.whiten: got 'no', expected true or false"),
        ({"generator_training": {"steps": -1}}, "generator_training.steps: got -1, expected a finite number from 0"),
        ({"generator_training": {"ema": 2.0}}, "generator_training.ema: got 2.0, expected below 1"),
        ({"generator_training": {"lr": -1.0}}, "generator_training.lr: got -1.0, expected a finite number from 0"),
        ({"generator_training": {"lr": float("nan")}}, "training.lr: got nan, expected a finite number from 0"),
        ({"generator_training": {"schedule": "cosin"}}, "training.schedule: got 'cosin'. Did you mean 'cosine'"),
        ({"generator_training": {"compile": "inducter"}}, "compile: got 'inducter'. Did you mean 'inductor'"),
        ({"generator_training": {"compile": "cudagraphs"}}, "'cudagraphs' on the cpu. Use none, or a GPU."),
        ({"noise_schedule": {"beta_end": 3.0}}, "beta_end 3.0, expected 0 < beta_start <= beta_end < 1"),
        ({"noise_schedule": {"timesteps": 0}}, "engine.noise_schedule.timesteps: got 0, expected an integer from 1"),
        ({"sampler": {"type": "DPM-Solver++", "order": 7}}, "engine.sampler.order: got 7, expected 1, 2 or 3"),
        ({"autoencoder": {"latent_noise": -0.5}}, "autoencoder.latent_noise: got -0.5, expected a finite"),
        ({"autoencoder": {"type": "conv", "encoder": []}}, r"encoder: got \[\], expected a list of channels"),
        ({"autoencoder": {"type": "conv", "encoder": [0, 4]}}, r"encoder\[0\]: got 0, expected an integer from 1"),
        ({"autoencoder": {"type": "conv", "encoder": [4]}}, "encoder and decoder of 1 and 5 blocks, expected equally"),
        ({"generator_training": {"batch_size": 0}}, "generator_training.batch_size: got 0, expected an integer from 1"),
        ({"sampler": {"steps": 2.5}}, "engine.sampler.steps: got 2.5, expected an integer"),
        ({"autoencoder": {"latents": 3}}, "engine.autoencoder: got unknown key 'latents'. Did you mean 'latent'"),
    ],
)
def test_unknown_settings_are_refused_by_name(config, words):
    with pytest.raises(PdiffError, match=words):
        ParameterDiffusion(config).fit(population())


def test_unknown_device_is_refused():
    with pytest.raises(PdiffError, match="device: got 'tpu0'"):
        ParameterDiffusion(device="tpu0")


def test_engine_of_another_layout_is_refused_by_file(tmp_path):
    ParameterDiffusion(SMALL).fit(population()).save(tmp_path)
    ParameterDiffusion(SMALL).fit(population(size=50)).save(tmp_path / "other")
    (tmp_path / "other" / "autoencoder.safetensors").rename(tmp_path / "autoencoder.safetensors")
    with pytest.raises(PdiffError, match="autoencoder.safetensors: does not fit engine.json"):
        ParameterDiffusion.load(tmp_path)


def test_vectors_on_their_way_to_the_cpu_are_not_copied(tmp_path):
    np.save(tmp_path / "vectors.npy", np.ones((3, 4), np.float32))
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert on_device(mapped, torch.device("cpu")).data_ptr() == mapped.ctypes.data
    rows = Rows(torch.ones(3, 4), [0, 2])
    assert on_device(rows, torch.device("cpu")) is rows


def test_rows_on_their_way_to_a_device_are_copied_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 8)
    vectors = torch.arange(28.0).view(7, 4)
    assert torch.equal(copied(Rows(vectors, [6, 0, 3, 2, 5]), torch.device("cpu")), vectors[[6, 0, 3, 2, 5]])


def test_codec_and_diffusion_may_be_fitted_one_after_the_other(tmp_path):
    vectors = population()
    engine = ParameterDiffusion(SMALL)
    engine.build(Layout.of({"vector": torch.empty(96)}))
    engine.fit_codec(vectors, None)
    engine.fit_diffusion(engine.encode(vectors), None)
    engine.save(tmp_path)
    assert ParameterDiffusion.load(tmp_path).sample(3).shape == (3, 96)


@pytest.mark.parametrize(
    "use",
    [
        lambda engine, _: engine.sample(2),
        lambda engine, _: engine.sample_latents(2),
        lambda engine, _: engine.sample_path(2, 2),
        lambda engine, _: engine.encode(torch.zeros(2, 9)),
        lambda engine, _: engine.decode(torch.zeros(2, 9)),
        lambda engine, _: engine.spread(torch.zeros(2, 9)),
        lambda engine, folder: engine.save(folder / "engine"),
    ],
    ids=["sample", "sample_latents", "sample_path", "encode", "decode", "spread", "save"],
)
def test_engine_that_is_not_fitted_is_refused_in_one_line(tmp_path, use):
    words = r"^engine: is not fitted yet\. Call fit\(vectors\), or ParameterDiffusion\.load\(folder\)\.$"
    with pytest.raises(PdiffError, match=words):
        use(ParameterDiffusion(SMALL), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_comes_in_as_an_array_comes_out_as_one():
    vectors = population().numpy().astype(np.float64)
    engine = ParameterDiffusion(SMALL).fit(vectors)
    latents = engine.encode(vectors)
    decoded = engine.decode(latents)
    assert [type(latents), type(decoded)] == [np.ndarray] * 2
    assert [latents.dtype, decoded.dtype] == [np.float32] * 2
    assert isinstance(engine.decode(torch.from_numpy(latents)), torch.Tensor)
    assert engine.spread(vectors) == pytest.approx(engine.spread(torch.from_numpy(vectors)))


@pytest.mark.parametrize("turned", [lambda rows: rows[::-1], lambda rows: rows.astype(">f4")], ids=["back", "bytes"])
def test_arrays_that_torch_cannot_look_at_are_taken_all_the_same(turned):
    vectors = population().numpy()
    engine, rows = ParameterDiffusion(SMALL).fit(vectors), turned(vectors)
    assert np.array_equal(engine.encode(rows), engine.encode(np.array(rows, dtype=np.float32)))
    assert engine.spread(rows) == pytest.approx(1)
    ParameterDiffusion(SMALL).fit(rows)


@pytest.mark.parametrize("shape", [(), (3,), (3, 0)])
def test_a_population_without_vectors_or_coordinates_is_refused_by_its_shape(shape):
    with pytest.raises(PdiffError, match=rf"^population: got shape {re.escape(str(shape))}, expected "):
        ParameterDiffusion(SMALL).fit(torch.zeros(shape))


def test_an_engine_that_does_not_fit_its_files_is_told_in_one_line(tmp_path):
    ParameterDiffusion(SMALL).fit(population()).save(tmp_path)
    description = json.loads((tmp_path / "engine.json").read_text())
    description["config"]["denoiser"]["width"] = 24
    (tmp_path / "engine.json").write_text(json.dumps(description))
    with pytest.raises(PdiffError, match=r"^[^\n]*denoiser\.safetensors: does not fit engine\.json [^\n]*\.$"):
        ParameterDiffusion.load(tmp_path)


@pytest.mark.parametrize(
    "rows",
    [torch.zeros(2, 95), torch.zeros(96), torch.zeros(1, 2, 96), np.zeros((2, 95)), torch.zeros(0, 96)],
)
def test_vectors_and_latents_of_another_width_are_refused(rows):
    engine = ParameterDiffusion(SMALL).fit(population())
    with pytest.raises(PdiffError, match=r"^encode: got shape \(.*\), expected \(M, 96\), the layout's length\.$"):
        engine.encode(rows)
    with pytest.raises(PdiffError, match=r"^spread: got shape \(.*\), expected \(M, 96\), the layout's length\.$"):
        engine.spread(rows)
    with pytest.raises(PdiffError, match=r"^decode: got shape \(.*\), expected \(M, \d+\), that of a latent\.$"):
        engine.decode(rows)
    with pytest.raises(PdiffError, match=r"^spread: got shape \(.*\), expected \(M, 96\), the layout's length\.$"):
        engine.spread(rows)


LINE = """
from torch import nn


class Line(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, size)

    def forward(self, z, t):
        return self.layer(z)
"""


@pytest.mark.parametrize("by_name", [False, True], ids=["class", "module:name"])
def test_denoiser_that_is_not_registered_survives_save_and_load(tmp_path, monkeypatch, by_name):
    (tmp_path / "own_line.py").write_text(LINE)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("own_line")
    # Of its own type alone: what the preset says about its denoiser is not for this one.
    engine = ParameterDiffusion({**SMALL, "denoiser": {"type": "own_line:Line" if by_name else module.Line}})
    engine.fit(population()).save(tmp_path / "engine")
    loaded = ParameterDiffusion.load(tmp_path / "engine")
    assert isinstance(loaded.generator.denoiser, module.Line)
    assert loaded.config["denoiser"] == {"type": "own_line:Line"}
    assert torch.equal(loaded.sample(3), engine.sample(3))


@pytest.mark.parametrize(("latent", "told"), [(9, False), (10, True)])
def test_latent_that_is_longer_than_the_population_has_dimensions_is_told(caplog, latent, told):
    ParameterDiffusion({**SMALL, "autoencoder": {"latent": latent}}).fit(population(rows=10))
    line = f"engine: a latent of {latent} for 10 vectors, which lie in at most 9 dimensions"
    assert any(line in message for message in caplog.messages) is told


@pytest.fixture(scope="module")
def fitted() -> ParameterDiffusion:
    """A fitted engine for vectors (M, 96), with a latent of 4."""
    return ParameterDiffusion({**SMALL, "autoencoder": {"latent": 4}}).fit(population())


@pytest.mark.parametrize("method", ["encode", "decode", "spread"])
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda rows: rows.tolist(), r"got list, expected .* as a torch tensor or a numpy array\."),
        (lambda rows: None, r"got NoneType, expected"),
        (lambda rows: rows > 0, r"got a Tensor of torch\.bool, expected"),
        (lambda rows: rows.to(torch.complex64), r"got a Tensor of torch\.complex64, expected"),
        (lambda rows: rows.to("meta"), r"got a Tensor of torch\.float32 \(torch\.strided, on meta\), expected"),
        (lambda rows: rows.to_sparse(), r"got a Tensor of torch\.float32 \(torch\.sparse_coo, on cpu\), expected"),
        (lambda rows: np.full(rows.shape, "a"), r"got a ndarray of <U1, expected"),
        (lambda rows: np.full(rows.shape, None), r"got a ndarray of object, expected"),
        (lambda rows: rows[:, :3], r"got shape \(5, 3\), expected \(M, \d+\), "),
        (lambda rows: rows[0], r"got shape \(\d+,\), expected \(M, \d+\), "),
        (lambda rows: rows[:0], r"got shape \(0, \d+\), expected \(M, \d+\), "),
    ],
    ids=["list", "none", "bool", "complex", "meta", "sparse", "texts", "objects", "short", "flat", "empty"],
)
def test_what_are_no_rows_of_numbers_is_refused_in_one_line(fitted, method, change, line):
    rows = torch.ones(5, 4 if method == "decode" else 96)
    with pytest.raises(PdiffError, match=rf"^{method}: {line}"):
        getattr(fitted, method)(change(rows))


@pytest.mark.parametrize("method", ["encode", "decode"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_a_row_that_is_not_finite_is_refused_by_its_number(fitted, method, value):
    rows = torch.ones(5, 4 if method == "decode" else 96, dtype=torch.float64)
    rows[3, 1] = value
    with pytest.raises(PdiffError, match=rf"^{method}: got NaN or infinity in row 3, expected finite numbers\. Leave"):
        getattr(fitted, method)(rows, batch_size=2)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8])
def test_numbers_of_every_type_are_taken(fitted, kind):
    rows = torch.arange(5 * 96).view(5, 96).remainder(7)
    assert torch.equal(fitted.encode(rows.to(kind)), fitted.encode(rows.float()))
    if kind != torch.bfloat16:
        assert np.array_equal(fitted.encode(rows.to(kind).numpy()), fitted.encode(rows.float()))


@pytest.mark.parametrize(
    ("rows", "layout", "line"),
    [
        (torch.ones(4, 3) > 0, None, r"^population: got a Tensor of torch\.bool, expected"),
        (np.full((4, 3), "a"), None, r"^population: got a ndarray of <U1, expected vectors"),
        (torch.ones(4, 3), {"a": (3,)}, r"^fit\.layout: got dict, expected a pdiff\.Layout\. Leave"),
    ],
)
def test_a_fit_to_what_are_no_vectors_is_refused_in_one_line(rows, layout, line):
    with pytest.raises(PdiffError, match=line):
        ParameterDiffusion(SMALL).fit(rows, layout)


@pytest.mark.parametrize("text", [None, "null", "[]", '{"format": 3}'])
def test_a_folder_without_an_engine_is_refused_by_its_name(tmp_path, text):
    if text is not None:
        (tmp_path / "engine.json").write_text(text)
    words = r"has no engine\.json\. Give a folder|got format None, .*Fit again|lacks 'config'"
    with pytest.raises(PdiffError, match=words):
        ParameterDiffusion.load(tmp_path)


def test_a_fit_with_a_schedule_that_does_not_end_in_noise_says_so(caplog):
    ParameterDiffusion({**SMALL, "noise_schedule": {"timesteps": 10}, "sampler": {"steps": 5}}).fit(population())
    assert any(line.startswith("engine.noise_schedule: got a share of the signal of 0.9") for line in caplog.messages)
