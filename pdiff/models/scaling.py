"""Scaling of vectors before the autoencoder. Coordinates that never change are restored exactly."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from pdiff.registry import SCALINGS
from pdiff.weights.layout import Layout


class Scaling(nn.Module, ABC):
    """An affine map per coordinate, fitted to a population.

    Args:
        size: P, the length of a vector.
    """

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("constant", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("value", torch.zeros(size))

    def fit(self, vectors: Tensor, layout: Layout) -> None:
        """Fit to the population `(N, P)`."""
        self.constant = vectors.amin(0) == vectors.amax(0)
        self.value = vectors[0].clone()
        mean, std = self.moments(vectors, layout)
        self.mean, self.std = mean, torch.where(std > 0, std, 1.0)

    @abstractmethod
    def moments(self, vectors: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation to scale by, each `(P,)`."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Return scaled vectors `(B, P)`; coordinates that never change become 0."""
        return torch.where(self.constant, 0.0, (vectors - self.mean) / self.std)

    def inverse(self, scaled: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of scaled ones."""
        return torch.where(self.constant, self.value, scaled * self.std + self.mean)


@SCALINGS.register_module(name="per_tensor")
class PerTensor(Scaling):
    """One scalar mean and standard deviation per tensor, averaged over the checkpoints, as in the paper.

    The component that all checkpoints share stays in the vector and dominates it. Deviation: coordinates that
    never change are set to 0 here and restored exactly.
    """

    def moments(self, vectors: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return each tensor's scalar moments, repeated over its coordinates."""
        mean, std = torch.empty_like(vectors[0]), torch.empty_like(vectors[0])
        for entry in layout:
            block = vectors[:, entry.slice]
            mean[entry.slice] = block.mean()
            within = block.std(1, correction=0).mean()
            # A tensor of one value has no deviation within; its scale is that over the checkpoints.
            std[entry.slice] = within if within > 0 else block.std(correction=0)
        return mean, std


@SCALINGS.register_module(name="per_coordinate")
class PerCoordinate(Scaling):
    """A mean and a standard deviation for each coordinate."""

    def moments(self, vectors: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return the moments over the checkpoints."""
        return vectors.mean(0), vectors.std(0)
