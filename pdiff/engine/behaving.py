"""What is trained through the losses of networks: not how near their weights come to others, but what they do."""

from collections.abc import Callable

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModel
from torch import Tensor, nn

from pdiff.engine.objectives import own_rows, weight
from pdiff.engine.scaling import Scaling
from pdiff.runtime.processes import hidden_group

Losses = Callable[[Tensor, Tensor, int], Tensor]  # of vectors (B, P), their numbers (B,) and a step, to losses (B,)
Draw = Callable[[int, int], Tensor]  # of the size of a batch B and a step, to what is drawn for it (B, ...)


class Decoding(nn.Module):
    """From latents to vectors, with gradients.

    Args:
        decoder: from latents `(B, L)` to scaled vectors `(B, P)`.
        scaling: that they are scaled by; it stays as it is.
    """

    def __init__(self, decoder: nn.Module, scaling: Scaling):
        super().__init__()
        self.decoder, self.scaling = decoder, scaling

    def forward(self, latents: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of latents `(B, L)`."""
        return self.scaling.inverse(self.decoder(latents))


class Behaving(BaseModel):
    """The loss of the networks that a module makes. Rows of its training are numbers: `torch.arange(N)`, `(N,)`.

    Args:
        make: what is trained, from numbers `(B,)` to vectors `(B, P)`; with `draw` it takes what is drawn too.
        losses: of vectors, their numbers and a step. It takes vectors in full precision, whatever `make` has.
        together: take the sum over a batch, where each row has parameters of its own; else the mean.
        draw: what is drawn for a batch, of all processes; None for nothing.
    """

    def __init__(self, make: nn.Module, losses: Losses, together: bool = False, draw: Draw | None = None):
        super().__init__()
        self.make, self.together = make, together
        # Functions, since an average of the weights is a copy of this module, and copies of functions are themselves.
        self.losses = lambda vectors, numbers, step: losses(vectors, numbers, step)
        self.draw = None if draw is None else lambda count, step: draw(count, step)

    def forward(self, rows: Tensor, step: int, mode: str = "loss") -> dict[str, Tensor]:
        """Return the loss of the networks of numbers `(B,)` on the training batch of a step."""
        own = own_rows(len(rows))
        drawn = () if self.draw is None else (self.draw(len(rows), step)[own],)
        vectors = self.vectors(rows[own], *drawn)
        with hidden_group(), torch.autocast(rows.device.type, enabled=False):
            losses = self.losses(vectors.float(), rows[own], step)
        loss = losses.sum() * get_world_size() if self.together else losses.mean() * weight(own, len(rows))
        return {"loss": loss}

    def vectors(self, numbers: Tensor, *drawn: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of numbers `(B,)`; this is what `compile` compiles."""
        return self.make(numbers, *drawn)
