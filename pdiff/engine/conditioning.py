"""Conditions `(B, C)`: scaled, a share of them dropped in training, embedded for the denoiser.

A row of NaN is a condition that is not given: a denoiser that learns with and without is what classifier-free guidance
draws from (Ho and Salimans, 2022, arXiv 2207.12598).
"""

import torch
from torch import Tensor, nn

NOT_GIVEN = float("nan")


def dropped(c: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Return conditions `(B, C)`, of which each is not given with probability `share`."""
    return c.masked_fill(torch.rand(len(c), 1, generator=rng, device=c.device) < share, NOT_GIVEN)


class Conditioning(nn.Module):
    """Scales conditions by the mean and the standard deviation of those it was fitted to; a constant one by 1.

    Args:
        size: C.
    """

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, conditions: Tensor) -> None:
        """Fit to the seen conditions `(N, C)`."""
        std, mean = torch.std_mean(conditions.double(), 0, correction=0)
        constant = conditions.amin(0) == conditions.amax(0)
        self.mean, self.std = mean.float(), torch.where(constant, 1.0, std).float()

    def forward(self, conditions: Tensor) -> Tensor:
        """Return scaled conditions `(B, C)`."""
        return (conditions - self.mean) / self.std


class ConditionEmbedding(nn.Module):
    """Linear-SiLU-Linear of the scaled condition and of whether it is given.

    Args:
        size: C.
        outputs: length of the embedding.
    """

    def __init__(self, size: int, outputs: int):
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(nn.Linear(size + 1, outputs), nn.SiLU(), nn.Linear(outputs, outputs))

    def forward(self, c: Tensor | None, z: Tensor) -> Tensor:
        """Return the embedding `(B, outputs)`.

        Args:
            c: conditions `(B, C)`, NaN in the rows of those that are not given; None where none is.
            z: the latents `(B, L)` that they belong to.
        """
        c = z.new_full((len(z), self.size), NOT_GIVEN) if c is None else c
        given = c.isnan().logical_not().all(1, keepdim=True)
        return self.layers(torch.cat([torch.where(given, c, 0.0), given.to(c.dtype)], 1))
