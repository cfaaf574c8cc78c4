"""Hypernetworks, trained through a loss in closed form: vectors that are linear in their condition are the best."""

import pytest
import torch

from pdiff import ParameterDiffusion, PdiffError
from pdiff.engine import training
from pdiff.engine.behaving_settings import behaving_settings
from pdiff.engine.hypernet import Hypernet
from pdiff.runtime.storage import read_json, write_json

SMALL = {"denoiser": {"width": 32, "depth": 1}, "generator_training": {"steps": 30}}
SETTINGS = behaving_settings("hypernet", {"width": 32, "steps": 300, "batch_size": 16, "lr": 0.01})
AXES = torch.randn(3, 96, generator=torch.Generator().manual_seed(0))
CONDITIONS = 10 * torch.rand(50, 3, generator=torch.Generator().manual_seed(1))
VECTORS = CONDITIONS @ AXES + 5


def losses(vectors, numbers, step):
    """How far vectors are from those for their conditions."""
    return (vectors - VECTORS[numbers]).square().mean(1)


@pytest.fixture(scope="module")
def engine():
    noisy = VECTORS + torch.randn(50, 96, generator=torch.Generator().manual_seed(2))
    return ParameterDiffusion({**SMALL, "autoencoder": {"latent": 8}}).fit(noisy, conditions=CONDITIONS)


@pytest.fixture(scope="module")
def net(engine):
    return Hypernet(SETTINGS, seed=1).fit(engine, CONDITIONS, losses, vectors=VECTORS)


def test_it_gives_networks_for_conditions_that_it_has_not_seen(net):
    new = 2 + 6 * torch.rand(20, 3, generator=torch.Generator().manual_seed(3))
    found = net.predict(new)
    assert found.device.type == "cpu"
    error = (found - (new @ AXES + 5)).square().mean()
    assert error < 0.05 * VECTORS.var(0).mean()
    assert net.history[-1] < 0.01 * net.history[0]


def test_it_begins_with_the_mean_of_the_seen_and_leaves_the_engine_alone(engine):
    before = engine.decode(engine.encode(VECTORS))
    net = Hypernet({**SETTINGS, "steps": 1, "lr": 0.0}).fit(engine, CONDITIONS, losses, vectors=VECTORS)
    mean = engine.decode(engine.encode(VECTORS).mean(0, keepdim=True))
    assert torch.allclose(net.predict(CONDITIONS[:2]), mean.expand(2, -1), atol=1e-4)
    Hypernet({**SETTINGS, "steps": 5}).fit(engine, CONDITIONS.numpy(), losses, vectors=VECTORS.numpy())
    assert torch.equal(engine.decode(engine.encode(VECTORS)), before)


def test_without_vectors_it_begins_in_the_middle_of_the_latents_of_the_engine(engine):
    net = Hypernet({**SETTINGS, "steps": 1, "lr": 0.0}).fit(engine, CONDITIONS, losses)
    middle = engine.decode(engine.whitening.mean[None])
    assert torch.allclose(net.predict(CONDITIONS[:1]), middle, atol=1e-4)


def test_it_may_begin_at_a_vector_of_its_own_with_nothing_of_the_decoder(engine, tmp_path):
    start, settings = VECTORS.mean(0) + 1, SETTINGS | {"begin": "base"}
    begun = Hypernet({**settings, "steps": 1, "lr": 0.0}).fit(engine, CONDITIONS, losses, start=start)
    assert torch.allclose(begun.predict(CONDITIONS[:2]), start.expand(2, -1), atol=1e-4)
    net = Hypernet(settings, seed=1).fit(engine, CONDITIONS, losses, start=start)
    assert net.history[-1] < 0.05 * net.history[0]
    net.save(tmp_path)
    assert torch.equal(Hypernet.load(tmp_path, engine).predict(CONDITIONS), net.predict(CONDITIONS))


def test_what_no_loss_can_tell_of_stays_where_it_begins(engine):
    start, learnt = VECTORS.mean(0) + 1, torch.arange(96) < 80

    def blind(vectors, numbers, step):
        return (vectors - VECTORS[numbers])[:, learnt].square().mean(1)

    net = Hypernet(SETTINGS | {"begin": "base"}).fit(engine, CONDITIONS, blind, start=start, learnt=learnt)
    found = net.predict(CONDITIONS)
    assert net.history[-1] < 0.05 * net.history[0]
    assert torch.allclose(found[:, ~learnt], start[~learnt].expand(50, -1), atol=1e-4)


@pytest.mark.parametrize(("begin", "start", "said"), [("base", None, "'base' and no"), ("codec", VECTORS[0], "and a")])
def test_a_beginning_of_its_own_needs_a_vector_and_no_other_takes_one(engine, begin, start, said):
    with pytest.raises(PdiffError, match=rf"hypernet.fit: got begin .*{said} start, expected a start with 'base'"):
        Hypernet({**SETTINGS, "begin": begin}).fit(engine, CONDITIONS, losses, start=start)


def test_it_is_saved_and_loaded(net, engine, tmp_path):
    net.save(tmp_path)
    loaded = Hypernet.load(tmp_path, engine)
    assert torch.equal(loaded.predict(CONDITIONS), net.predict(CONDITIONS))
    assert (loaded.settings, loaded.seed, loaded.condition, loaded.history) == (SETTINGS, 1, 3, net.history)


def test_predictions_come_in_pieces(net, monkeypatch):
    whole = net.predict(CONDITIONS)
    monkeypatch.setattr("pdiff.weights.vectors.VALUES", 96 * 7)
    assert torch.allclose(net.predict(CONDITIONS), whole, atol=1e-5)
    assert torch.equal(net.predict(CONDITIONS.numpy()), net.predict(CONDITIONS))


def test_an_interrupted_training_goes_on_to_the_same_bytes(engine, tmp_path, monkeypatch):
    settings = SETTINGS | {"steps": 30}
    whole = Hypernet(settings).fit(engine, CONDITIONS, losses)
    monkeypatch.setattr(training, "SECONDS_BETWEEN_STATES", 0)

    def interrupted(step_of_failure):
        def found(vectors, numbers, step):
            if step == step_of_failure:
                raise KeyboardInterrupt
            return losses(vectors, numbers, step)

        return found

    with pytest.raises(KeyboardInterrupt):
        Hypernet(settings).fit(engine, CONDITIONS, interrupted(17), tmp_path)
    resumed = Hypernet(settings).fit(engine, CONDITIONS, interrupted(5), tmp_path)
    assert resumed.history == whole.history
    assert torch.equal(resumed.predict(CONDITIONS), whole.predict(CONDITIONS))


def test_errors_are_told_in_one_line(net, engine, tmp_path):
    with pytest.raises(PdiffError, match="hypernet: is not fitted yet"):
        Hypernet(SETTINGS).predict(CONDITIONS)
    with pytest.raises(PdiffError, match="hypernet: is not fitted yet"):
        Hypernet(SETTINGS).save(tmp_path)
    with pytest.raises(PdiffError, match=r"predict.conditions: got shape \(50, 2\), expected \(50, 3\)"):
        net.predict(CONDITIONS[:, :2])
    with pytest.raises(PdiffError, match="predict.conditions: got NaN"):
        net.predict(CONDITIONS * float("nan"))
    with pytest.raises(PdiffError, match=r"fit.hypernet.*widths"):
        Hypernet({"widths": 3})
    with pytest.raises(PdiffError, match=r"fit.hypernet.schedule: got 'line'"):
        Hypernet({"schedule": "line"}).fit(engine, CONDITIONS, losses)
    with pytest.raises(PdiffError, match=r"fit.hypernet: got a loss of \S+ at step \d+, expected finite ones"):
        Hypernet({**SETTINGS, "lr": 1e25, "steps": 20}).fit(engine, CONDITIONS, losses)
    with pytest.raises(PdiffError, match="engine: is not fitted yet"):
        Hypernet(SETTINGS).fit(ParameterDiffusion(SMALL), CONDITIONS, losses)
    with pytest.raises(PdiffError, match="has no hypernet.json. Give a folder"):
        Hypernet.load(tmp_path, engine)
    net.save(tmp_path)
    other = ParameterDiffusion({**SMALL, "autoencoder": {"latent": 5}}).fit(VECTORS)
    with pytest.raises(PdiffError, match="does not fit hypernet.json, or the engine .*Fit again") as caught:
        Hypernet.load(tmp_path, other)
    assert "\n" not in str(caught.value)
    (tmp_path / "layers.safetensors").unlink()
    with pytest.raises(PdiffError, match=r"layers.safetensors"):
        Hypernet.load(tmp_path, engine)
    described = read_json(tmp_path / "hypernet.json")
    write_json(tmp_path / "hypernet.json", {key: value for key, value in described.items() if key != "seed"})
    with pytest.raises(PdiffError, match="lacks 'seed'. Fit again"):
        Hypernet.load(tmp_path, engine)
