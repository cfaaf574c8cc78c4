"""Latents of unit variance and no correlation, so that diffusion's N(0, 1) fits them. The paper does not whiten."""

import torch
from torch import Tensor, nn

NEGLIGIBLE = 1e-9  # share of the largest variance below which a direction is numerical noise


class Whitening(nn.Module):
    """An affine bijection between latents `(B, L)` and white latents `(B, L)`.

    Directions without variance are 0 in the white latent and come back as the mean.

    Args:
        size: L.
        enabled: False leaves latents as they are.
    """

    def __init__(self, size: int, enabled: bool = True):
        super().__init__()
        self.enabled = enabled
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("axes", torch.eye(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, latents: Tensor) -> None:
        """Fit to the population's latents `(N, L)`."""
        if not self.enabled:
            return
        centred = (latents - latents.mean(0)).double()
        variance, axes = torch.linalg.eigh(centred.T @ centred / (len(latents) - 1))
        std = torch.where(variance > variance.max() * NEGLIGIBLE, variance.clamp(min=0).sqrt(), 0.0)
        self.mean = latents.mean(0)
        self.axes = axes.flip(1).to(latents.dtype).contiguous()  # as it is when it was saved and loaded
        self.std = std.flip(0).to(latents.dtype)

    def forward(self, latents: Tensor) -> Tensor:
        """Return white latents, the direction of largest variance first."""
        return torch.where(self.std > 0, (latents - self.mean) @ self.axes / self.std, 0.0)

    def inverse(self, white: Tensor) -> Tensor:
        """Return the latents of white ones."""
        return (white * self.std) @ self.axes.T + self.mean
