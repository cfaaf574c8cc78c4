"""A denoiser that takes the latent as a sequence of tokens, as the token autoencoder's latents are."""

import torch
from torch import Tensor, nn

from pdiff.engine.conditioning import ConditionEmbedding
from pdiff.engine.denoiser import Denoiser, TimeEmbedding
from pdiff.engine.registries import DENOISERS
from pdiff.runtime.errors import PdiffError, check_positive


@DENOISERS.register_module(name="transformer")
class TransformerDenoiser(Denoiser):
    """A transformer over pieces of the latent, with the timestep added to each, and the condition before every layer.

    Args:
        size: L.
        tokens: number of pieces; L is a multiple of it.
        width: of the transformer.
        depth: layers.
        heads: of the attention.
        condition: C.
    """

    def __init__(
        self, size: int, tokens: int = 32, width: int = 128, depth: int = 4, heads: int = 4, condition: int = 0
    ):
        super().__init__()
        check_positive("engine.denoiser", tokens=tokens, width=width, depth=depth, heads=heads)
        if size % tokens:
            raise PdiffError(f"engine.denoiser.tokens: got {tokens}, expected a divisor of the latent, {size}.")
        if width % heads:
            raise PdiffError(f"engine.denoiser.width: got {width}, expected a multiple of heads, {heads}.")
        self.tokens = tokens
        self.time = TimeEmbedding(width)
        self.first = nn.Linear(size // tokens, width)
        self.place = nn.Parameter(torch.randn(tokens, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, size // tokens))
        self.condition = ConditionEmbedding(condition, width) if condition else None

    def forward(self, z: Tensor, t: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the prediction `(B, L)`."""
        pieces = self.first(z.unflatten(1, (self.tokens, -1))) + self.place + self.time(t)[:, None]
        return self.last(self.attend(pieces, c, z)).flatten(1)

    def attend(self, pieces: Tensor, c: Tensor | None, z: Tensor) -> Tensor:
        """Return what the layers make of pieces `(B, tokens, width)`."""
        if not self.condition:
            return self.layers(pieces)
        condition = self.condition(c, z)[:, None]
        for layer in self.layers.layers:
            pieces = layer(pieces + condition)
        return pieces
