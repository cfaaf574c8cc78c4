"""What generators share that are trained and draw in one pass: the units of latents, and a step of the training."""

from abc import ABC, abstractmethod

import torch
from mmengine.model import BaseModel
from torch import Tensor

from pdiff.engine.conditioning import dropped
from pdiff.engine.generator import Generator
from pdiff.engine.standardising import Standardising
from pdiff.runtime.processes import own_rows, weight
from pdiff.runtime.seeding import generator, normal


class OnePassGenerator(Generator):
    """Makes a latent of random numbers, its networks seeing latents in units of their standard deviations.

    Args:
        size: L.
        condition: C; 0 for none.
        numbers: how many random numbers a latent is made of.
    """

    def __init__(self, size: int, condition: int, numbers: int):
        super().__init__()
        self.condition, self.numbers = condition, numbers
        self.standardising = Standardising(size)

    def fit(self, rows: Tensor) -> None:
        """Fit the units that the networks see latents in to rows `(N, L + C)`."""
        self.standardising.fit(rows[:, : len(self.standardising.mean)])


class OnePassObjective(BaseModel, ABC):
    """A loss on latents and random numbers, which depend on the step alone.

    Args:
        trained: the generator.
        seed: of the numbers and which conditions are dropped.
        dropout: the share of conditions that is dropped.
    """

    def __init__(self, trained: OnePassGenerator, seed: int, dropout: float = 0.0):
        super().__init__()
        self.trained, self.seed, self.dropout = trained, seed, dropout

    def forward(self, rows: Tensor, step: int, mode: str = "loss") -> dict[str, Tensor]:
        """Return the loss on rows `(B, L + C)`: white latents, and scaled conditions behind them."""
        z, c = self.split(rows)
        rng, own = generator(self.seed, self.trained.part, step, device=rows.device), own_rows(len(rows))
        eps = normal(torch.Size([len(rows), self.trained.numbers]), rng)
        given = (dropped(c, self.dropout, rng)[own],) if self.trained.condition else ()
        return {"loss": self.loss(z[own], eps[own], *given) * weight(own, len(rows))}

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return standardised latents `(B, L)` and conditions `(B, C)` of rows."""
        z, c = rows.tensor_split([rows.shape[1] - self.trained.condition], 1)
        return self.trained.standardising(z), c

    @abstractmethod
    def loss(self, z: Tensor, eps: Tensor, *c: Tensor) -> Tensor:
        """Return the loss on latents `(B, L)` and random numbers `(B, numbers)`, with any conditions `(B, C)`."""
