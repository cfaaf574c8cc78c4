"""A conditional generative adversarial network of the latents (Goodfellow et al., 2014; Mirza and Osindero, 2014).

Both networks take their steps at once, by the non-saturating losses, the critic's with a penalty on its gradient at the
latents (R1; Mescheder et al., 2018, arXiv 1801.04406).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.functional import softplus

from pdiff.engine.conditional_mlp import ConditionalMLP
from pdiff.engine.one_pass import OnePassGenerator, OnePassObjective
from pdiff.engine.registries import GENERATORS
from pdiff.runtime.errors import check_not_negative, check_positive
from pdiff.runtime.seeding import normal


@GENERATORS.register_module(name="gan")
class LatentGAN(OnePassGenerator):
    """Generator and critic; by default with 1.6 million weights at L = 32, as the `fast` preset's denoiser.

    Args:
        size: L.
        condition: C; 0 for none.
        width: of the layers of either network.
        depth: residual blocks of either.
        noise: length of the noise that a latent is made of.
        penalty: weight of half the squared gradient of the critic at the latents.
    """

    part = "gan"
    remedy = "Raise engine.generator_training.steps or engine.generator.penalty, or lower engine.generator_training.lr"

    def __init__(
        self, size: int, condition: int = 0, width: int = 256, depth: int = 3, noise: int = 32, penalty: float = 10.0
    ):
        super().__init__(size, condition, noise)
        check_positive("engine.generator", width=width, depth=depth, noise=noise)
        check_not_negative("engine.generator", penalty=penalty)
        self.penalty = penalty
        self.maker = ConditionalMLP(noise, size, width, depth, condition)
        self.critic = ConditionalMLP(size, 1, width, depth, condition)

    def objective(self, seed: int, dropout: float) -> nn.Module:
        """Return the losses of both networks."""
        return Adversarial(self, seed, dropout)

    def make(self, noise: Tensor, *c: Tensor | None) -> Tensor:
        """Return standardised latents `(B, L)` of noise `(B, noise)`, and any conditions `(B, C)`."""
        return self.maker(noise, *c) * self.standardising.varies

    def draw(
        self,
        shape: torch.Size,
        rng: torch.Generator,
        c: Tensor | None = None,
        guidance: float = 1.0,
        sampler: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield draws `(B, L)`, twice, for they are made in one pass."""
        z = self.standardising.inverse(self.make(normal(torch.Size([shape[0], self.numbers]), rng), c))
        yield z, z


class Adversarial(OnePassObjective):
    """The losses of generator and critic, added: neither's part has a gradient for the other's weights.

    Args:
        trained: the GAN.
        seed: of noise and which conditions are dropped.
        dropout: the share of conditions that is dropped.
    """

    def loss(self, z: Tensor, noise: Tensor, *c: Tensor) -> Tensor:
        """Return the sum on latents `(B, L)` and what is made of `noise` `(B, noise)`, with any conditions `(B, C)`."""
        gan, made = self.trained, self.trained.make(noise, *c)

        def judged(z: Tensor) -> tuple[Tensor, Tensor]:
            found = gan.critic(z, *c)
            return found.sum(), found

        # By torch.func the gradient is part of the forward pass, which a compiler can go back through.
        slope, real = grad(judged, has_aux=True)(z)
        fixed = {name: tensor.detach() for name, tensor in gan.critic.named_parameters()}
        of_critic = softplus(-real).mean() + softplus(gan.critic(made.detach(), *c)).mean()
        of_critic = of_critic + gan.penalty / 2 * slope.square().sum(1).mean()
        return of_critic + softplus(-functional_call(gan.critic, fixed, (made, *c))).mean()
