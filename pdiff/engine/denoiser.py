"""Denoisers: noisy latent `(B, L)` and timestep `(B,)` to the prediction `(B, L)`."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pdiff.engine.conditioning import ConditionEmbedding
from pdiff.engine.registries import DENOISERS
from pdiff.runtime.errors import check_positive

KERNEL = 7


def sinusoidal_embedding(t: Tensor, size: int) -> Tensor:
    """Return sines and cosines `(B, size)` of timesteps `(B,)` at geometric frequencies (Vaswani et al., 2017)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(size // 2, device=t.device) / (size // 2))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of the timestep, then Linear-SiLU-Linear.

    Args:
        outputs: length of the embedding.
        frequencies: length of the sinusoidal part.
    """

    def __init__(self, outputs: int, frequencies: int = 256):
        super().__init__()
        self.frequencies = frequencies
        self.layers = nn.Sequential(nn.Linear(frequencies, outputs), nn.SiLU(), nn.Linear(outputs, outputs))

    def forward(self, t: Tensor) -> Tensor:
        """Return the embedding `(B, outputs)` of timesteps `(B,)`."""
        return self.layers(sinusoidal_embedding(t, self.frequencies))


class Denoiser(nn.Module, ABC):
    """Predicts what the process asks for: noise, velocity or sample, or the direction of a flow.

    One for conditions takes their length C as the argument `condition`, which is 0 for a population without.
    """

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the prediction `(B, L)`.

        Args:
            z: noisy latents `(B, L)`.
            t: their times `(B,)`, from 0 to T - 1, of a flow to 1000: whole numbers in the training of a diffusion,
                else any.
            c: scaled conditions `(B, C)`, NaN in the rows of those that are not given; None where none is. Without
                conditions it is never passed, and a denoiser for such populations alone need not take it.
        """


@DENOISERS.register_module(name="conv")
class ConvDenoiser(Denoiser):
    """The paper's 1-D CNN over the latent as a sequence of one channel (arXiv 2402.13144, appendix).

    Each convolution gets its input plus the embedding of time and condition, one value per position; the output of
    each convolution of the first half is added to the input of its mirror in the second half. 2.5 M weights by default.

    Args:
        size: L.
        channels: channels after each convolution but the last, which has one.
        frequencies: length of the sinusoidal part of the time embedding.
        condition: C.
    """

    def __init__(
        self,
        size: int,
        channels: Sequence[int] = (64, 128, 256, 512, 256, 128, 64),
        frequencies: int = 256,
        condition: int = 0,
    ):
        super().__init__()
        counts = {f"channels[{place}]": count for place, count in enumerate(channels)}
        check_positive("engine.denoiser", frequencies=frequencies, **counts)
        self.time = TimeEmbedding(size, frequencies)
        pairs = list(zip((1, *channels), (*channels, 1), strict=True))
        convolutions = [nn.Conv1d(i, o, KERNEL, padding=KERNEL // 2) for i, o in pairs]
        hidden = [nn.Sequential(c, nn.BatchNorm1d(c.out_channels), nn.ELU()) for c in convolutions[:-1]]
        self.blocks = nn.ModuleList([*hidden, convolutions[-1]])
        self.condition = ConditionEmbedding(condition, size) if condition else None

    def forward(self, z: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the prediction `(B, L)`."""
        time = self.time(t)[:, None]
        if self.condition:
            time = time + self.condition(c, z)[:, None]
        x, half, skips = z[:, None], len(self.blocks) // 2, []
        for number, block in enumerate(self.blocks):
            if number > half:
                x = x + skips.pop()
            x = block(x + time)
            if number < half - 1:
                skips.append(x)
        return x[:, 0]


class ResidualBlock(nn.Module):
    """A residual MLP layer whose normalisation is scaled and shifted by the time embedding (Peebles and Xie, 2023)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 3 * width)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return `(B, width)`."""
        shift, scale, gate = self.modulation(time).chunk(3, 1)
        return x + gate * self.layers(self.norm(x) * (1 + scale) + shift)


@DENOISERS.register_module(name="mlp")
class MLPDenoiser(Denoiser):
    """A residual MLP on the latent, told the timestep and the condition, if there is one.

    Args:
        size: L.
        width: hidden units.
        depth: residual blocks.
        condition: C.
    """

    def __init__(self, size: int, width: int = 256, depth: int = 3, condition: int = 0):
        super().__init__()
        check_positive("engine.denoiser", width=width, depth=depth)
        self.time = TimeEmbedding(width)
        self.first = nn.Linear(size, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, size))
        self.condition = ConditionEmbedding(condition, width) if condition else None

    def forward(self, z: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the prediction `(B, L)`."""
        time, x = self.time(t), self.first(z)
        if self.condition:
            time = time + self.condition(c, z)
        for block in self.blocks:
            x = block(x, time)
        return self.last(x)
