"""Engines on a simulated GPU end with the bytes of the CPU, and wait for it in no step."""

import copy

import pytest
import torch

from pdiff import ParameterDiffusion
from pdiff.testing.simulated_cuda import simulated_cuda

PAPER = {
    "preset": "paper",
    "autoencoder": {"latent": 16, "encoder": [2, 4, 4, 4, 2], "decoder": [4, 4, 4, 2, 2]},
    "autoencoder_training": {"steps": 6},
    "denoiser": {"channels": [2, 4, 4, 8, 4, 4, 2]},
    "sampler": {"steps": 4},
}
TOKENS = {
    "preset": "tokens",
    "autoencoder": {"latents": 4, "latent_width": 2, "token": 16, "rank": 3, "width": 16},
    "autoencoder_training": {"steps": 6, "batch_size": 8, "ema": 0.9},
    "denoiser": {"tokens": 4, "width": 16, "depth": 1},
}
ENGINES = {
    "fast": {"denoiser": {"width": 16, "depth": 1}},
    "paper": PAPER,
    "tokens": TOKENS,
    "flow": {"denoiser": {"width": 16, "depth": 1}, "generator": {"type": "flow"}},
    "vae": {"generator": {"type": "vae"}},
    "gan": {"generator": {"type": "gan"}},
    "gaussian": {"generator": {"type": "gaussian"}},
}


def vectors() -> torch.Tensor:
    """Return some vectors `(40, 96)`."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(40, 3, generator=rng) @ torch.randn(3, 96, generator=rng) + 5


def fitted(name: str, device: str, steps: int = 6) -> ParameterDiffusion:
    """Return an engine that was fitted on a device; its networks in so many steps."""
    config = copy.deepcopy(ENGINES[name]) | {"generator_training": {"steps": steps}}
    if "autoencoder_training" in config:
        config["autoencoder_training"]["steps"] = steps
    return ParameterDiffusion(config, seed=3, device=device).fit(vectors())


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_ends_with_the_bytes_of_the_cpu(name, tmp_path):
    fitted(name, "cpu").save(tmp_path / "cpu")
    here = ParameterDiffusion.load(tmp_path / "cpu").sample(5, seed=1)
    with simulated_cuda():
        fitted(name, "cuda").save(tmp_path / "cuda")
        engine = ParameterDiffusion.load(tmp_path / "cuda", "cuda")
        assert {tensor.device.type for tensor in engine.generator.state_dict().values()} <= {"cuda"}
        there = engine.sample(5, seed=1)
        assert there.device.type == "cpu"
    assert torch.equal(here, there)
    files = [path.name for path in (tmp_path / "cpu").iterdir() if path.suffix == ".safetensors"]
    assert files
    for file in files:
        assert (tmp_path / "cpu" / file).read_bytes() == (tmp_path / "cuda" / file).read_bytes()


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "gaussian"])
def test_no_step_of_a_training_but_the_first_waits(name):
    waits = []
    for steps in (6, 12):
        with simulated_cuda() as gpu:
            fitted(name, "cuda", steps)
        waits.append((gpu.syncs, gpu.copies_to_host))
    assert waits[0] == waits[1], gpu.places


@pytest.mark.parametrize("name", ["fast", "paper", "tokens", "flow"])
def test_no_step_of_a_drawing_waits(name):
    with simulated_cuda() as gpu:
        engine = fitted(name, "cuda")
        waits = []
        for steps in (3, 6):
            gpu.reset()
            engine.sample_latents(4, sampler={"type": engine.config["sampler"]["type"], "steps": steps})
            waits.append((gpu.syncs, gpu.copies_to_device, gpu.copies_to_host))
    assert waits[0] == waits[1]
