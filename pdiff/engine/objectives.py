"""What the two trainings minimise. Noise depends on the step's number alone, so that a resumed training repeats it.

`forward` draws; `loss` is the arithmetic, free of random numbers, so that it can be compiled. In a data-parallel
training each process is given the whole batch, draws for all of it, and computes the loss of its share of the rows.
"""

from typing import TYPE_CHECKING

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from pdiff.engine.conditioning import dropped
from pdiff.runtime.processes import own_rows, weight
from pdiff.runtime.seeding import generator, normal

if TYPE_CHECKING:
    from pdiff.engine.autoencoder import Autoencoder
    from pdiff.engine.denoiser import Denoiser
    from pdiff.engine.process import Process

LOOKED_AT = 1000  # pairs of row and timestep


class Reconstruction(BaseModel):
    """Mean squared error of the denoising autoencoder: noise on the scaled vector and on the latent.

    Args:
        autoencoder: what is trained.
        vector_noise: standard deviation of the noise on the scaled vector.
        latent_noise: standard deviation of the noise on the latent.
        seed: of the noise.
    """

    def __init__(self, autoencoder: "Autoencoder", vector_noise: float, latent_noise: float, seed: int):
        super().__init__()
        self.autoencoder = autoencoder
        self.vector_noise, self.latent_noise, self.seed = vector_noise, latent_noise, seed

    def forward(self, rows: Tensor, step: int, mode: str = "loss") -> dict[str, Tensor]:
        """Return the loss on scaled vectors `rows` `(B, P)`."""
        rng, own = generator(self.seed, "reconstruction", step, device=rows.device), own_rows(len(rows))
        noisy = rows + self.vector_noise * normal(rows.shape, rng)
        noise = self.latent_noise * normal(torch.Size([len(rows), self.autoencoder.latent]), rng)
        return {"loss": self.loss(rows[own], noisy[own], noise[own]) * weight(own, len(rows))}

    def loss(self, rows: Tensor, noisy: Tensor, noise: Tensor) -> Tensor:
        """Return how far `noisy` `(B, P)` is decoded from `rows`, with `noise` `(B, L)` on the latents."""
        return nn.functional.mse_loss(self.autoencoder.decode(self.autoencoder.encode(noisy) + noise), rows)


class Denoising(BaseModel):
    """Mean squared error of the denoiser at uniformly drawn times (Ho et al., 2020, eq. 14; Lipman et al., 2023).

    Args:
        denoiser: what is trained.
        process: from latents to noise.
        seed: of times, noise and which conditions are dropped.
        condition: C, columns of a row behind its latent.
        dropout: the share of conditions that is dropped.
    """

    def __init__(
        self, denoiser: "Denoiser", process: "Process", seed: int, condition: int = 0, dropout: float = 0.0
    ):
        super().__init__()
        self.denoiser = denoiser
        self.process = process
        self.seed = seed
        self.condition, self.dropout = condition, dropout

    def forward(self, rows: Tensor, step: int, mode: str = "loss") -> dict[str, Tensor]:
        """Return the loss on rows `(B, L + C)`: white latents, and scaled conditions behind them."""
        rows, c = rows.tensor_split([rows.shape[1] - self.condition], 1)
        rng, own = generator(self.seed, "denoising", step, device=rows.device), own_rows(len(rows))
        t = self.process.draw(len(rows), rng)
        eps = normal(rows.shape, rng)
        z_t = self.process.noisy(rows, eps, t)
        given = (dropped(c, self.dropout, rng)[own],) if self.condition else ()  # drawn last: the rest is as without
        target = self.process.wanted(rows, eps, t)[own]
        return {"loss": self.loss(z_t[own], t[own], target, *given) * weight(own, len(rows))}

    @torch.no_grad()
    def watched_loss(self, rows: Tensor) -> Tensor:
        """Return the loss on rows `(W, L + C)` that the training does not see, with the same noise at every call.

        Each is denoised at evenly spaced times, for its condition; at least `LOOKED_AT` pairs in all.
        """
        rng, count = generator(self.seed, "watched", device=rows.device), max(LOOKED_AT, len(rows))
        z, c = rows[torch.arange(count, device=rows.device) % len(rows)].tensor_split(
            [rows.shape[1] - self.condition], 1
        )
        t = self.process.even(count, rng)
        eps = normal(z.shape, rng)
        given = (c.split(LOOKED_AT),) if self.condition else ()
        noisy, target = self.process.noisy(z, eps, t), self.process.wanted(z, eps, t)
        parts = zip(*(tensor.split(LOOKED_AT) for tensor in (noisy, t)), *given, strict=True)
        return (torch.cat([self.denoiser(*part) for part in parts]) - target).square().mean()

    def loss(self, z_t: Tensor, t: Tensor, target: Tensor, *c: Tensor) -> Tensor:
        """Return how far the prediction for `z_t` `(B, L)` at `t` `(B,)`, and any `c` `(B, C)`, is from `target`."""
        return nn.functional.mse_loss(self.denoiser(z_t, t, *c), target)
