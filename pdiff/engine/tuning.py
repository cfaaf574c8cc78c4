"""What fine-tunes a decoder on what the networks do that it gives back, at the latents of known ones and near them."""

import torch
from torch import Tensor

from pdiff.engine.behaving import Behaving, Decoding, Losses, OfRows
from pdiff.runtime.seeding import generator, normal


def tuning(decoding: Decoding, latents: Tensor, losses: Losses, noise: float, seed: int) -> Behaving:
    """Return the objective of the decoder's training.

    Args:
        decoding: what is trained.
        latents: `(N, L)`, on the device of the training.
        losses: of vectors, the numbers of their latents, and a step.
        noise: on the latents, in standard deviations of each coordinate.
        seed: of the noise.

    Returns:
        It takes numbers of latents `(B,)`.
    """
    deviation = noise * latents.std(0, correction=0)

    def draw(count: int, step: int) -> Tensor:
        rng = generator(seed, "tuning", step, device=latents.device)
        return deviation * normal(torch.Size([count, len(deviation)]), rng)

    return Behaving(OfRows(decoding, latents), losses, draw=draw)
