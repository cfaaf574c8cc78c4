"""Latents axis by axis in units of their standard deviation, where `engine.whiten` has not seen to it."""

import torch
from torch import Tensor, nn


class Standardising(nn.Module):
    """An affine bijection between latents `(B, L)` and those of mean 0 and deviation 1 on every axis.

    An axis on which the latents do not differ is 0 in between, and comes back as it was.

    Args:
        size: L.
    """

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    @property
    def varies(self) -> Tensor:
        """Which axes the latents differ on `(L,)`."""
        return self.std > 0

    def fit(self, latents: Tensor) -> None:
        """Fit to latents `(N, L)`."""
        std, mean = torch.std_mean(latents.double(), 0, correction=0)
        self.mean, self.std = mean.float(), torch.where(latents.amin(0) == latents.amax(0), 0.0, std).float()

    def forward(self, latents: Tensor) -> Tensor:
        """Return them in units of their standard deviations."""
        return torch.where(self.varies, (latents - self.mean) / self.std, 0.0)

    def inverse(self, standard: Tensor) -> Tensor:
        """Return the latents."""
        return standard * self.std + self.mean
