"""A conditional variational autoencoder of the latents (Kingma and Welling, 2014, arXiv 1312.6114; Sohn et al., 2015).

As a generator of its own, not as a codec: a latent is drawn from a code that is drawn from N(0, 1), whatever the
condition; in Sohn et al. that distribution is learnt too. The likelihood is Gaussian, with one learnt deviation for
each axis, another one where no condition is given, and what is drawn has noise of that deviation: without it draws are
narrower than the latents.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from pdiff.engine.conditional_mlp import ConditionalMLP
from pdiff.engine.one_pass import OnePassGenerator, OnePassObjective
from pdiff.engine.registries import GENERATORS
from pdiff.runtime.errors import check_not_negative, check_positive
from pdiff.runtime.seeding import generator, normal

LOOKED_AT = 1000  # pairs of row and code
FASTER = 30.0  # than a weight a deviation moves, in logarithms: it has to follow the errors that all of them leave
NARROW = -1.0  # logarithm of a deviation at first: a wide one leaves the code nothing to explain


def gaussian(mean: Tensor, deviation: Tensor) -> Normal:
    """Return independent Gaussians; a divergence shall end in a loss of NaN, not in an exception."""
    return Normal(mean, deviation, validate_args=False)


@GENERATORS.register_module(name="vae")
class LatentVAE(OnePassGenerator):
    """Encoder and decoder of a code; by default with 1.6 million weights at L = 32, as the `fast` preset's denoiser.

    Args:
        size: L.
        condition: C; 0 for none.
        width: of the layers of either network.
        depth: residual blocks of either.
        code: length of the code.
        beta: weight of the divergence between the codes of latents and N(0, 1); 1 is the bound on the likelihood.
    """

    part, watchable = "vae", True

    def __init__(
        self, size: int, condition: int = 0, width: int = 256, depth: int = 3, code: int = 16, beta: float = 1.0
    ):
        super().__init__(size, condition, code)
        check_positive("engine.generator", width=width, depth=depth, code=code)
        check_not_negative("engine.generator", beta=beta)
        self.beta = beta
        self.encoder = ConditionalMLP(size, 2 * code, width, depth, condition)
        self.decoder = ConditionalMLP(code, size, width, depth, condition)
        self.magnitude = nn.Parameter(torch.full((2 if condition else 1, size), NARROW / FASTER))

    def deviation(self, c: Tensor | None = None) -> Tensor:
        """Return the standard deviations of the likelihood, `(L,)` or, for conditions `(B, C)`, `(B, L)`."""
        without, *given = (FASTER * self.magnitude).exp()
        return without if c is None else torch.where(c.isnan().any(1, keepdim=True), without, *given)

    def objective(self, seed: int, dropout: float) -> nn.Module:
        """Return the evidence lower bound, negative."""
        return EvidenceBound(self, seed, dropout)

    def draw(
        self,
        shape: torch.Size,
        rng: torch.Generator,
        c: Tensor | None = None,
        guidance: float = 1.0,
        sampler: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield draws `(B, L)`, twice, for they are made in one pass."""
        mean = self.decoder(normal(torch.Size([shape[0], self.numbers]), rng), c)
        z = self.standardising.inverse(mean + self.deviation(c) * normal(shape, rng))
        yield z, z


class EvidenceBound(OnePassObjective):
    """The negative evidence lower bound of latents, in nats, by one code each; constant axes do not count.

    Args:
        trained: the VAE.
        seed: of codes and which conditions are dropped.
        dropout: the share of conditions that is dropped.
    """

    @torch.no_grad()
    def watched_loss(self, rows: Tensor) -> Tensor:
        """Return the loss on rows `(W, L + C)` that the training does not see, with the same codes at every call."""
        rng, count = generator(self.seed, "watched", device=rows.device), max(LOOKED_AT, len(rows))
        z, c = self.split(rows[torch.arange(count, device=rows.device) % len(rows)])
        eps = normal(torch.Size([count, self.trained.numbers]), rng)
        return self.loss(z, eps, *((c,) if self.trained.condition else ()))

    def loss(self, z: Tensor, eps: Tensor, *c: Tensor) -> Tensor:
        """Return the mean over latents `(B, L)`, whose codes are drawn by `eps`, with any conditions `(B, C)`."""
        vae = self.trained
        mean, magnitude = vae.encoder(z, *c).float().chunk(2, 1)
        code = gaussian(mean, magnitude.exp())
        told = gaussian(vae.decoder(mean + code.scale * eps, *c).float(), vae.deviation(*c)).log_prob(z)
        apart = kl_divergence(code, gaussian(torch.zeros_like(mean), torch.ones_like(mean))).sum(1)
        return (vae.beta * apart - (told * vae.standardising.varies).sum(1)).mean()
