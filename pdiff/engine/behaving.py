"""What is trained through the losses of networks: not how near their weights come to others, but what they do."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.processes import hidden_group, own_rows, trainers, weight
from pdiff.weights.vectors import brought

if TYPE_CHECKING:
    from pdiff.engine.scaling import Scaling

# Of vectors (B, P), their numbers (B,) on the CPU and a step, to losses (B,).
Losses = Callable[[Tensor, Tensor, int], Tensor]
Draw = Callable[[int, int], Tensor]  # of the size of a batch B and a step, to what is drawn for it (B, ...)


def check_finite(where: str, history: Sequence[float]) -> None:
    """Raise a `PdiffError` where a loss of a training is not finite: all that it gives from there on is NaN.

    Args:
        where: the section of its settings.
        history: the loss of every step.
    """
    wrong = next((step for step, loss in enumerate(history) if not math.isfinite(loss)), None)
    if wrong is not None:
        line = f"got a loss of {history[wrong]} at step {wrong}, expected finite ones, so that the training diverged"
        raise PdiffError(f"{where}: {line}. Lower its lr.")


def shared_by_copies(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function that calls another: copies of a module, as an average of its weights is, share functions."""

    def called(*given: Any) -> Tensor:
        return function(*given)

    return called


class Decoding(nn.Module):
    """From latents to vectors, with gradients.

    Args:
        decoder: from latents `(B, L)` to scaled vectors `(B, P)`.
        scaling: that they are scaled by; it stays as it is.
    """

    def __init__(self, decoder: nn.Module, scaling: "Scaling"):
        super().__init__()
        self.decoder, self.scaling = decoder, scaling

    def forward(self, latents: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of latents `(B, L)`."""
        return self.scaling.inverse(self.decoder(latents))


class OfRows(nn.Module):
    """What a module makes of rows, by their numbers.

    Args:
        module: what is trained, from rows `(B, ...)` to vectors `(B, P)`.
        rows: `(N, ...)`.
    """

    def __init__(self, module: nn.Module, rows: Tensor):
        super().__init__()
        self.module = module
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, numbers: Tensor, *noise: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of numbers `(B,)`, what noise `(B, ...)` there is added to their rows."""
        rows = self.rows[numbers]
        return self.module(rows + noise[0] if noise else rows)


class AsGiven(nn.Module):
    """Takes the place of mmengine's preprocessor, which would bring what is on the host to the device."""

    def forward(self, data: Any, training: bool = False) -> Any:
        """Return data as they are."""
        return data


class Behaving(BaseModel):
    """The loss of the networks that a module makes. Rows of its training are numbers: `torch.arange(N)`, `(N,)`.

    The numbers lie on the host: a plugin looks there at what a network is for, and a GPU would be waited for.

    Args:
        make: what is trained, from numbers `(B,)` to vectors `(B, P)`; with `draw` it takes what is drawn too.
        losses: of vectors, their numbers and a step. It takes vectors in full precision, whatever `make` has.
        together: take the sum over a batch, where each row has parameters of its own; else the mean.
        draw: what is drawn for a batch, of all processes; None for nothing.
    """

    def __init__(self, make: nn.Module, losses: Losses, together: bool = False, draw: Draw | None = None):
        super().__init__(AsGiven())
        self.make, self.together = make, together
        self.losses, self.draw = shared_by_copies(losses), draw and shared_by_copies(draw)

    def forward(self, rows: Tensor, step: int, mode: str = "loss") -> dict[str, Tensor]:
        """Return the loss of the networks of numbers `(B,)` on the training batch of a step."""
        own, device = own_rows(len(rows)), next(self.make.parameters()).device
        drawn = () if self.draw is None else (self.draw(len(rows), step)[own],)
        vectors = self.vectors(brought(rows[own], device), *drawn)
        with hidden_group(), torch.autocast(device.type, enabled=False):
            losses = self.losses(vectors.float(), rows[own], step)
        loss = losses.sum() * trainers() if self.together else losses.mean() * weight(own, len(rows))
        return {"loss": loss}

    def vectors(self, numbers: Tensor, *drawn: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of numbers `(B,)`; this is what `compile` compiles."""
        return self.make(numbers, *drawn)
