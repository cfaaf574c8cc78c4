"""A few latents read a long sequence of tokens and write it again: joint coding at a cost that is linear in its length.

Perceiver IO: Jaegle et al., 2022, arXiv 2107.14795.
"""

import torch
from torch import Tensor, nn

from pdiff.engine.autoencoder import Autoencoder
from pdiff.runtime.errors import PdiffError, check_positive


class CrossAttention(nn.Module):
    """Queries read what they attend to, and go through a layer of their own; both added to what they were.

    Args:
        width: of queries and of what they read.
        heads: of the attention.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, queries: Tensor, read: Tensor) -> Tensor:
        """Return `(B, Q, width)` of queries `(B, Q, width)` and what they read `(B, S, width)`."""
        keys = self.norms[1](read)
        queries = queries + self.attention(self.norms[0](queries), keys, keys, need_weights=False)[0]
        return queries + self.layers(self.norms[2](queries))


def self_attention(width: int, heads: int, depth: int) -> nn.Module:
    """Return transformer layers over `(B, S, width)`."""
    layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


class Perceiver(Autoencoder):
    """Codes K tokens of R coordinates each, `(B, K R)`.

    Args:
        tensors: which tensor each token belongs to `(K,)`.
        count: how many tensors there are.
        rank: R.
        latents: how many latents read the tokens.
        latent_width: length of one of them as it is coded; L is the product.
        width: of the embeddings and of the attention.
        heads: of the attention.
        depth: layers of attention among the latents, in the encoder and in the decoder.

    Attributes:
        deviation: the unit of each coordinate `(K, R)`; what has none is 0.
    """

    def __init__(
        self,
        tensors: Tensor,
        count: int,
        rank: int,
        latents: int,
        latent_width: int,
        width: int,
        heads: int,
        depth: int,
    ):
        super().__init__()
        sizes = {"latents": latents, "latent_width": latent_width, "width": width, "heads": heads, "depth": depth}
        check_positive("engine.autoencoder", **sizes)
        if width % heads:
            raise PdiffError(f"engine.autoencoder.width: got {width}, expected a multiple of heads, {heads}.")
        self.latents, self.latent_width, self.latent = latents, latent_width, latents * latent_width
        self.register_buffer("deviation", torch.zeros(len(tensors), rank))
        self.register_buffer("tensors", tensors, persistent=False)
        self.place = nn.Parameter(torch.randn(len(tensors), width))
        self.tensor = nn.Embedding(count, width)
        self.coordinates = nn.Linear(rank, width)
        self.queries = nn.Parameter(torch.randn(latents, width))
        self.read = CrossAttention(width, heads)
        self.encoder = self_attention(width, heads, depth)
        self.narrow = nn.Linear(width, latent_width)
        self.widen = nn.Linear(latent_width, width)
        self.memory = nn.Parameter(torch.randn(latents, width))
        self.decoder = self_attention(width, heads, depth)
        self.write = CrossAttention(width, heads)
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, rank))

    def embedding(self) -> Tensor:
        """Return what tells the tokens apart `(K, width)`: their own place, and their tensor."""
        return self.place + self.tensor(self.tensors)

    def encode(self, scaled: Tensor) -> Tensor:
        """Return latents `(B, L)` of coordinates `(B, K R)`."""
        along = scaled.unflatten(1, self.deviation.shape)
        along = torch.where(self.deviation > 0, along / self.deviation, 0.0)
        tokens = self.coordinates(along) + self.embedding()
        latents = self.read(self.queries.expand(len(scaled), -1, -1), tokens)
        return self.narrow(self.encoder(latents)).flatten(1)

    def decode(self, latents: Tensor) -> Tensor:
        """Return coordinates `(B, K R)` of latents `(B, L)`."""
        memory = self.widen(latents.unflatten(1, (self.latents, self.latent_width))) + self.memory
        tokens = self.write(self.embedding().expand(len(latents), -1, -1), self.decoder(memory))
        return (self.last(tokens) * self.deviation).flatten(1)
