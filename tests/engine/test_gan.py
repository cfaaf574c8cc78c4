import math

import numpy as np
import pytest
import torch

from pdiff import Layout, ParameterDiffusion, PdiffError
from pdiff.engine import training
from pdiff.engine.gan import Adversarial, LatentGAN
from pdiff.runtime import processes as group
from pdiff.runtime.seeding import generator

SMALL = {
    "autoencoder": {"latent": 6, "latent_noise": 0.0},
    "generator": {"type": "gan", "width": 16, "depth": 1, "noise": 4, "penalty": 3.0},
    "generator_training": {"steps": 30, "lr": 1e-3},
}


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def vectors(rows=60, size=80):
    return noise(rows, 6, seed=3) @ noise(6, size, seed=4) + 5


CONDITIONS = noise(60, 2, seed=5)


def fitted(changes=None, folder=None, **given):
    trained = SMALL["generator_training"] | (changes or {})
    return ParameterDiffusion({**SMALL, "generator_training": trained}).fit(vectors(), folder=folder, **given)


def weights(engine):
    return torch.cat([tensor.flatten() for tensor in engine.generator.state_dict().values()])


def test_draws_have_mean_and_spread_of_a_gaussian_population():
    engine = fitted({"steps": 500})
    new = engine.sample(2000, seed=1)
    assert ((new.mean(0) - vectors().mean(0)).abs() / vectors().std(0)).max() < 0.3
    assert (new.std(0) / vectors().std(0)).mean() == pytest.approx(1, abs=0.25)


def test_two_modes_are_told_apart_better_than_by_a_gaussian():
    rows = torch.cat([noise(200, 1, seed=0) * 0.1 - 1, noise(200, 1, seed=1) * 0.1 + 1])
    rows = torch.cat([rows, noise(400, 1, seed=2)], 1)
    torch.manual_seed(0)
    made = LatentGAN(2, width=32, depth=1, noise=4, penalty=3.0)
    made.fit(rows)
    settings = {"steps": 1000, "batch_size": 64, "lr": 3e-3, "weight_decay": 0.0, "schedule": "cosine", "ema": 0.0}
    training.train(made.objective(0, 0.0), rows, "gan", None, 0, "", amp=False, **settings)
    with torch.no_grad():
        ((z, _),) = made.draw(torch.Size([2000, 2]), generator(0))
    between = (z[:, 0].abs() < 0.5).float().mean()
    assert between < 0.3  # of a Gaussian 0.38
    assert (z[:, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.15)
    assert z.std(0).tolist() == pytest.approx([1.0, 1.0], abs=0.2)


def gradients(part):
    return {name: parameter.grad for name, parameter in part.named_parameters()}


def test_each_network_has_the_gradient_of_its_own_loss_alone():
    torch.manual_seed(0)
    made = LatentGAN(3, width=8, depth=1, noise=2, penalty=0.7)
    z, eps = noise(6, 3, seed=0), noise(6, 2, seed=1)
    Adversarial(made, 0).loss(z, eps).backward()
    found = [gradients(made.maker), gradients(made.critic)]
    softplus = torch.nn.functional.softplus
    of_maker = softplus(-made.critic(made.maker(eps))).mean()
    real = z.clone().requires_grad_()
    judged = made.critic(real)
    (slope,) = torch.autograd.grad(judged.sum(), real, create_graph=True)
    of_critic = softplus(-judged).mean() + softplus(made.critic(made.maker(eps).detach())).mean()
    of_critic = of_critic + 0.35 * slope.square().sum(1).mean()
    for part, loss, grads in zip((made.maker, made.critic), (of_maker, of_critic), found, strict=True):
        expected = torch.autograd.grad(loss, list(part.parameters()), retain_graph=True, allow_unused=True)
        for gradient, wanted in zip(grads.values(), expected, strict=True):
            torch.testing.assert_close(gradient, torch.zeros_like(gradient) if wanted is None else wanted)


def test_the_losses_of_networks_that_tell_nothing_are_known():
    made = LatentGAN(3, width=8, depth=1, noise=2)
    torch.nn.init.zeros_(made.critic.last.weight)
    torch.nn.init.zeros_(made.critic.last.bias)
    loss = Adversarial(made, 0).loss(noise(6, 3, seed=0), noise(6, 2, seed=1))
    assert loss.item() == pytest.approx(3 * math.log(2))


def test_axes_without_variance_are_hidden_from_the_critic_and_drawn_as_they_are():
    rows = torch.cat([noise(30, 2, seed=0), torch.full((30, 1), 0.7)], 1)
    made = LatentGAN(3, width=8, depth=1, noise=2)
    made.fit(rows)
    assert (made.make(noise(9, 2, seed=1))[:, 2] == 0).all()
    with torch.no_grad():
        ((z, _),) = made.draw(torch.Size([9, 3]), generator(0))
    assert (z[:, 2] == 0.7).all()


def test_its_training_is_longer_and_slower_than_a_presets_unless_the_engine_section_says_else():
    vae, gan = (ParameterDiffusion({"generator": {"type": kind}}).config for kind in ("vae", "gan"))
    assert gan["generator_training"] == {**vae["generator_training"], "steps": 1000, "lr": 3e-4}
    assert fitted().config["generator_training"]["steps"] == 30


def test_a_training_by_patience_is_refused():
    with pytest.raises(PdiffError, match=r"generator_training.patience: got 3, but no loss .* how well 'gan' draws"):
        fitted({"patience": 3})


def test_it_draws_for_conditions_and_without():
    conditions, slopes = noise(300, 2, seed=0), noise(2, 40, seed=1)
    made = conditions @ slopes + 0.2 * noise(300, 40, seed=2)
    config = {**SMALL, "generator_training": {"steps": 1000, "lr": 3e-3}}
    engine = ParameterDiffusion(config).fit(made, conditions=conditions)
    wanted = torch.tensor([[1.0, -1.0]]).repeat(300, 1)
    new = engine.sample(300, conditions=wanted)
    assert (new.mean(0) - wanted[0] @ slopes).abs().mean() / (wanted[0] @ slopes).abs().mean() < 0.5
    assert engine.sample(300).std(0).mean() > new.std(0).mean()


@pytest.mark.parametrize("conditions", [None, CONDITIONS])
def test_the_same_seed_gives_the_same_bytes_and_a_saved_one_draws_them(tmp_path, conditions):
    one, other = (fitted(conditions=conditions) for _ in range(2))
    wanted = None if conditions is None else conditions[:5]
    assert torch.equal(one.sample(5, conditions=wanted), other.sample(5, conditions=wanted))
    assert not torch.equal(one.sample(5), one.sample(5, seed=1))
    one.save(tmp_path)
    assert (tmp_path / "gan.safetensors").exists()
    loaded = ParameterDiffusion.load(tmp_path)
    assert torch.equal(loaded.sample(5, conditions=wanted), one.sample(5, conditions=wanted))
    assert len(loaded.history["gan"]) == 30


@pytest.mark.parametrize(
    ("changes", "conditions"),
    [
        ({}, None),
        ({}, CONDITIONS),
        ({"ema": 0.0, "amp": True}, None),
        ({"compile": "eager"}, CONDITIONS),
    ],
)
def test_an_interrupted_training_goes_on_to_the_same_bytes(tmp_path, monkeypatch, changes, conditions):
    whole, forward = fitted(changes, conditions=conditions), Adversarial.forward

    def interrupted(self, rows, step, mode="loss"):
        if step == 17:
            raise KeyboardInterrupt
        return forward(self, rows, step, mode)

    with monkeypatch.context() as patch:
        patch.setattr(training, "SECONDS_BETWEEN_STATES", 0)
        patch.setattr(Adversarial, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fitted(changes, tmp_path, conditions=conditions)
    resumed = fitted(changes, tmp_path, conditions=conditions)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.history == whole.history


@pytest.mark.parametrize("conditions", [None, CONDITIONS])
def test_two_processes_fit_what_one_fits(processes, tmp_path, conditions):
    changes = {"batch_size": 7, "ema": 0.9}
    one = fitted(changes, conditions=conditions)

    def work(number):
        group.join("pytorch")
        fitted(changes, conditions=conditions).save(tmp_path / str(number))

    started = processes(work)
    assert started.codes() == [0, 0], started.text("err")
    engines = [ParameterDiffusion.load(tmp_path / str(number)) for number in (0, 1)]
    for engine in engines:
        np.testing.assert_allclose(engine.history["gan"], one.history["gan"], rtol=1e-3)
        torch.testing.assert_close(weights(engine), weights(one), rtol=1e-3, atol=1e-3)
    assert torch.equal(engines[0].sample(5), engines[1].sample(5))


def test_by_default_it_has_about_as_many_weights_as_the_denoiser_of_the_fast_preset():
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in LatentGAN(32).parameters())
    assert count == 1_605_921
    engine = ParameterDiffusion()
    engine.prepare(Layout.of({"vector": torch.empty(100)}), torch.device("meta"))
    other = sum(parameter.numel() for parameter in engine.generator.parameters())
    assert count / other == pytest.approx(1, abs=0.1)


def test_a_training_that_diverges_says_so_in_one_line():
    with pytest.raises(PdiffError, match=r"^sample: got vectors with NaN or infinity, so .* did not converge"):
        fitted({"lr": 1e6, "ema": 0.0}).sample(3)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"width": 0}, r"^engine.generator.width: got 0, expected"),
        ({"depth": 0}, r"^engine.generator.depth: got 0, expected"),
        ({"noise": -1}, r"^engine.generator.noise: got -1, expected"),
        ({"penalty": -0.5}, r"^engine.generator.penalty: got -0.5, expected"),
        ({"code": 3}, r"^engine.generator: got unknown key 'code'"),
    ],
)
def test_settings_that_cannot_be_are_one_line(changes, line):
    config = {**SMALL, "generator": {"type": "gan", **changes}}
    with pytest.raises(PdiffError, match=line):
        ParameterDiffusion(config).prepare(Layout.of({"vector": torch.empty(40)}))
