import pytest
import torch

from pdiff.engine.drawing import denoise, end, predict
from pdiff.engine.process import Diffusion
from pdiff.engine.samplers import build_sampler
from pdiff.engine.schedule import noise_schedule
from pdiff.runtime.seeding import generator
from pdiff.testing.simulated_cuda import simulated_cuda

STD = 0.5


class Known(torch.nn.Module):
    """The exact denoiser of N(c, STD^2); without the condition, of N(0, 1 + STD^2), where c is N(0, 1)."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.passes = schedule, 0

    def forward(self, z, t, c=None):
        self.passes += 1
        mean, variance = (0.0, 1 + STD**2) if c is None else (c, STD**2)
        a = self.schedule.alphas_cumprod[t][:, None]
        eps = (1 - a).sqrt() * (z - a.sqrt() * mean) / (a * variance + 1 - a)
        z0 = (z - (1 - a).sqrt() * eps) / a.sqrt()
        kind = self.schedule.config.prediction_type
        return {"sample": z0, "epsilon": eps, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * z0}[kind]


def drawn(c, guidance=1.0, prediction="v_prediction", cfg=None, count=4000):
    """Return the last latents and estimates `(count, 1)`, and how often the denoiser was asked."""
    schedule, rng = noise_schedule(prediction=prediction), torch.Generator().manual_seed(0)
    denoiser, sampler = Known(schedule), build_sampler(cfg or {"type": "DDIM", "steps": 50}, Diffusion(schedule))
    wanted = None if c is None else torch.full((count, 1), c)
    *_, (z, estimate) = denoise(denoiser, Diffusion(schedule), sampler, torch.Size([count, 1]), rng, wanted, guidance)
    return z, estimate, denoiser.passes


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("cfg", [{"type": "DDIM", "steps": 50}, {"type": "DPM-Solver++", "steps": 20}])
def test_with_the_exact_denoiser_the_mean_and_spread_of_a_condition_are_drawn(prediction, cfg):
    z, estimate, _ = drawn(1.5, prediction=prediction, cfg=cfg)
    assert z.mean() == pytest.approx(1.5, abs=0.03)
    assert z.std() == pytest.approx(STD, abs=0.04)
    assert estimate.mean() == pytest.approx(1.5, abs=0.03)


def test_without_a_condition_all_of_the_distribution_is_drawn():
    z, _, _ = drawn(None)
    assert z.mean() == pytest.approx(0, abs=0.05)
    assert z.std() == pytest.approx((1 + STD**2) ** 0.5, abs=0.05)


def test_guidance_of_nought_leaves_the_condition_out_and_more_than_one_exaggerates_it():
    assert torch.equal(drawn(1.5, guidance=0.0)[0], drawn(None)[0])
    weak, plain, strong = (drawn(1.5, guidance)[0] for guidance in (0.5, 1.0, 2.0))
    assert weak.mean() < plain.mean() - 0.1
    assert strong.mean() > plain.mean() + 0.1
    assert weak.std() > plain.std() > strong.std()


@pytest.mark.parametrize(("c", "guidance", "passes"), [(None, 1.0, 50), (1.5, 1, 50), (1.5, 2.0, 100)])
def test_only_guidance_costs_a_second_pass(c, guidance, passes):
    assert drawn(c, guidance, count=1)[2] == passes


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_guided_prediction_is_the_weighted_one(prediction):
    denoiser = Known(noise_schedule(prediction=prediction))
    z, t, c = torch.randn(3, 1), torch.tensor([0, 500, 999]), torch.tensor([[1.0], [-2.0], [0.5]])
    expected = -0.5 * denoiser(z, t) + 1.5 * denoiser(z, t, c)
    torch.testing.assert_close(predict(denoiser, z, t, c, 1.5), expected)


def test_the_end_of_a_way_is_had_without_an_estimate(monkeypatch):
    process = Diffusion(noise_schedule(prediction="sample"))

    def way():
        sampler, rng = build_sampler({"type": "DDPM", "steps": 5}, process), torch.Generator().manual_seed(0)
        return denoise(Known(process.schedule), process, sampler, torch.Size([9, 1]), rng)

    expected = [z for z, _ in way()][-1]
    assert torch.equal(end(z_and_estimate for z_and_estimate in way()), expected)
    monkeypatch.setattr(Diffusion, "clean", lambda *_: pytest.fail("an estimate was computed"))
    assert torch.equal(end(way()), expected)


@pytest.mark.parametrize("kind", ["DDPM", "DDIM", "DPM-Solver++"])
def test_no_step_waits_for_a_gpu(kind):
    process, sampler = Diffusion(noise_schedule()), {"type": kind, "steps": 5}
    with simulated_cuda() as gpu:
        made, rng = build_sampler(sampler, process), generator(0, device="cuda")
        way = denoise(lambda z, _: 0.5 * z, process, made, torch.Size([9, 1]), rng)
        with gpu.no_sync("step of a sampler"):
            assert end(way).device.type == "cuda"
