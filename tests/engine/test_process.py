"""For every process: what is shown, what is told, and how latents follow from both."""

import pytest
import torch

from pdiff.engine.process import FLOW_TIMES, Diffusion, Flow
from pdiff.engine.schedule import noise_schedule
from pdiff.runtime.errors import PdiffError

PREDICTIONS = ("epsilon", "v_prediction", "sample")
PROCESSES = {
    **{kind: Diffusion(noise_schedule(prediction=kind)) for kind in PREDICTIONS},
    **{
        f"{kind} to noise": Diffusion(noise_schedule(10, prediction=kind, zero_terminal_snr=True))
        for kind in PREDICTIONS[1:]
    },
    **{f"flow {scale}": Flow(scale) for scale in (0.7, 1.0, 1.3)},
}
EVERY = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rng():
    return torch.Generator().manual_seed(0)


@EVERY
def test_latents_follow_from_what_is_shown_and_what_is_told(process):
    t, z, eps = process.draw(500, rng()), noise(500, 3), noise(500, 3, seed=1)
    again = process.clean(process.noisy(z, eps, t), process.wanted(z, eps, t), t)
    torch.testing.assert_close(again, z, atol=2e-4, rtol=0)


@EVERY
def test_the_determinant_is_that_of_the_two_mixtures(process):
    t = process.even(100, rng())
    (a, s), (p, q) = process.signal(t), process.target(t)
    torch.testing.assert_close(process.determinant(t), a * q - s * p)


@EVERY
@pytest.mark.parametrize("noisiest", [1.0, 0.1])
def test_even_times_cover_the_process_from_its_end(process, noisiest):
    t, last = process.even(1000, rng(), noisiest), process.steps or FLOW_TIMES
    assert process.signal(t)[0].min() == pytest.approx(process.at_end() ** 0.5, abs=2e-3)
    assert t.min() >= last - max(round(noisiest * last), 1)
    counts = torch.histc(t.float(), 10 if noisiest == 1 else 1, t.min().item(), t.max().item() + 1e-3)
    assert counts.min() >= 99


@EVERY
def test_times_are_drawn_alike_from_the_whole_process(process):
    t = process.draw(20_000, rng()).double()
    last = process.steps - 1 if process.steps else FLOW_TIMES
    assert 0 <= t.min() <= t.max() <= last
    assert t.mean() == pytest.approx(last / 2, rel=0.02)


@EVERY
def test_a_single_time_says_for_all_rows_what_it_says_for_each(process):
    t, z, eps = process.draw(1, rng())[0], noise(5, 3), noise(5, 3, seed=1)
    y, z_t = process.wanted(z, eps, t), process.noisy(z, eps, t)
    assert torch.equal(z_t, process.noisy(z, eps, t.expand(5)))
    torch.testing.assert_close(process.clean(z_t, y, t), process.clean(z_t, y, t.expand(5)))


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("timesteps", [10, 100, 1000])
def test_the_signal_between_two_timesteps_lies_between_theirs(timesteps, zero):
    process = Diffusion(noise_schedule(timesteps, prediction="sample", zero_terminal_snr=zero))
    whole = torch.arange(timesteps)
    at, between = process.left(whole), process.left(whole[:-1] + 0.3)
    assert torch.equal(process.left(whole.float()), at)
    assert torch.equal(process.left(whole.double()), at)
    assert (between >= at[1:]).all()
    assert (between <= at[:-1]).all()
    assert process.left(torch.tensor(timesteps - 0.5)).item() == pytest.approx(at[-1].item(), rel=1e-4, abs=1e-7)


def test_between_two_timesteps_the_noise_is_that_of_the_samplers_of_diffusers():
    from diffusers import EulerDiscreteScheduler

    process = Diffusion(noise_schedule())
    sampler = EulerDiscreteScheduler.from_config(process.schedule.config, use_karras_sigmas=True)
    sampler.set_timesteps(30)
    a, s = process.signal(sampler.timesteps)
    assert (sampler.timesteps != sampler.timesteps.round()).sum() > 20
    torch.testing.assert_close(s / a, sampler.sigmas[:-1], rtol=2e-3, atol=0)


def test_a_flow_goes_straight_to_noise_of_its_width():
    flow, z, eps = Flow(0.7), noise(4, 3), noise(4, 3, seed=1)
    start, half, end = (flow.noisy(z, eps, torch.full((4,), t)) for t in (0.0, 500.0, 1000.0))
    assert torch.equal(start, z)
    torch.testing.assert_close(end, 0.7 * eps)
    torch.testing.assert_close(half, (start + end) / 2)
    torch.testing.assert_close(flow.wanted(z, eps, torch.rand(4)), end - start)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_width_of_noise_that_cannot_be_is_refused(scale):
    line = rf"^engine\.generator\.noise_scale: got {scale}, expected a finite number above 0\. 1 is the width of white"
    with pytest.raises(PdiffError, match=line):
        Flow(scale)
