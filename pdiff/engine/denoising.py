"""Generators that go from noise to latents step by step: diffusion and flow, with any denoiser of the registry."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pdiff.engine.drawing import denoise
from pdiff.engine.generator import Generator
from pdiff.engine.objectives import Denoising
from pdiff.engine.process import Diffusion, Flow, Process
from pdiff.engine.registries import DENOISERS, GENERATORS
from pdiff.engine.samplers import build_sampler
from pdiff.engine.schedule import noise_schedule
from pdiff.runtime.registry import build, call


class DenoisingGenerator(Generator):
    """A denoiser (`engine.denoiser`) that is trained to go back the way of a process.

    Args:
        size: L.
        condition: C; 0 for none.
        process: from latents to noise.
        config: the engine section.
    """

    part, watchable, guided = "denoiser", True, True

    def __init__(self, size: int, condition: int, process: Process, config: Mapping[str, Any]):
        super().__init__()
        # Where there are conditions, the denoiser must take them; where there are none, it need not.
        must, may = ({"condition": condition}, {}) if condition else ({}, {"condition": 0})
        self.denoiser = build(DENOISERS, config["denoiser"], "engine.denoiser", may, **must, size=size)
        self.condition, self.process = condition, process

    @property
    def weights(self) -> nn.Module:
        """The denoiser."""
        return self.denoiser

    def objective(self, seed: int, dropout: float) -> nn.Module:
        """Return the mean squared error of the denoiser."""
        return Denoising(self.denoiser, self.process, seed, self.condition, dropout)

    def draw(
        self,
        shape: torch.Size,
        rng: torch.Generator,
        c: Tensor | None = None,
        guidance: float = 1.0,
        sampler: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the way of a sampler, which `engine.sampler` describes, from noise to white latents."""
        return denoise(self.denoiser, self.process, build_sampler(sampler, self.process), shape, rng, c, guidance)


@GENERATORS.register_module(name="diffusion")
class LatentDiffusion(DenoisingGenerator):
    """Latent diffusion (arXiv 2402.13144; Ho et al., 2020), by the noise schedule of `engine.noise_schedule`."""

    @classmethod
    def process_of(cls, config: Mapping[str, Any]) -> Process:
        """Return the diffusion of the engine's noise schedule."""
        return Diffusion(call(noise_schedule, config["noise_schedule"], "engine.noise_schedule"))


@GENERATORS.register_module(name="flow")
class LatentFlow(DenoisingGenerator):
    """Rectified flow, or flow matching, between noise and latents (Liu et al., 2023; Lipman et al., 2023).

    Args:
        noise_scale: standard deviation of the noise that sampling begins from; white latents have 1.
    """

    def __init__(
        self, size: int, condition: int, process: Process, config: Mapping[str, Any], noise_scale: float = 1.0
    ):
        super().__init__(size, condition, process, config)

    @classmethod
    def process_of(cls, config: Mapping[str, Any]) -> Process:
        """Return the flow of the engine's generator."""
        settings = {key: value for key, value in config["generator"].items() if key != "type"}
        return call(Flow, settings, "engine.generator")
