"""The token autoencoder, for large vectors: its learnt weights grow with the number of tokens, not with P x L.

The vector is cut into tokens, tensor by tensor. A few latents read all tokens by cross-attention and are read by all of
them, so that the cost is linear in the number of tokens (Jaegle et al., 2021, arXiv 2107.14795). Values of trained
networks have no pattern that a small network could express, so what it codes is not the values but coordinates along
a few axes of each token, which come from the population in closed form.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pdiff.errors import PdiffError, check_positive
from pdiff.models.autoencoder import Autoencoder
from pdiff.models.scaling import Scaled
from pdiff.registry import AUTOENCODERS
from pdiff.weights.layout import Layout
from pdiff.weights.products import centred_gram
from pdiff.weights.vectors import VALUES, mean


class Tokens:
    """How vectors of a layout are cut into tokens of T values; a token belongs to one tensor.

    Args:
        layout: of the vectors.
        size: T; the last token of each tensor is filled up with zeros, which never leave the tokens.
    """

    def __init__(self, layout: Layout, size: int):
        self.layout, self.size = layout, size
        self.counts = [-(-entry.size // size) for entry in layout]

    def __len__(self) -> int:
        return sum(self.counts)

    def tensors(self) -> Tensor:
        """Return the number of the tensor that each token belongs to `(K,)`."""
        return torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts))

    def cut(self, vectors: Tensor) -> Tensor:
        """Return the tokens `(B, K, T)` of vectors `(B, P)`."""
        filled = (nn.functional.pad(vectors[:, e.slice], (0, -e.size % self.size)) for e in self.layout)
        return torch.cat([block.unflatten(1, (-1, self.size)) for block in filled], 1)

    def join(self, tokens: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of tokens `(B, K, T)`, what filled them up cut off."""
        blocks = zip(self.layout, tokens.split(self.counts, 1), strict=True)
        return torch.cat([block.flatten(1)[:, : entry.size] for entry, block in blocks], 1)

    def pieces(self, rows: int) -> Iterator[tuple[slice, slice]]:
        """Yield runs of tokens and the columns of the vector they hold, a few of `rows` vectors' values at a time."""
        most = max(1, VALUES // 4 // (rows * self.size))
        first = 0
        for entry, count in zip(self.layout, self.counts, strict=True):
            for start in range(0, count, most):
                stop = min(start + most, count)
                columns = slice(entry.offset + start * self.size, entry.offset + min(stop * self.size, entry.size))
                yield slice(first + start, first + stop), columns
            first += count


def leading(gram: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalues `(..., count)` of Gram matrices `(..., N, N)`, and their vectors in columns."""
    values, vectors = torch.linalg.eigh(gram)
    return values[..., -count:].flip(-1).clamp(min=0), vectors[..., -count:].flip(-1)


def token_axes(tokens: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
    """Return the axes that hold most of each token's variance, turned so that all tokens' coordinates are alike.

    Args:
        tokens: deviations from the average `(K, N, T)`.
        shared: coordinates of the N checkpoints `(N, R)` that those of each token are to resemble, orthonormal.

    Returns:
        Axes `(K, R, T)` and the standard deviation of the coordinates along each `(K, R)`. The axes are orthonormal;
        where a token varies in fewer than R directions, they are a tight frame of those.
    """
    tokens = tokens.double()
    variance, scores = leading(tokens @ tokens.mT, shared.shape[1])
    deviation = variance.sqrt()
    held = deviation > deviation[:, :1] * 1e-5  # beyond, rounding of float32
    axes = torch.where(held[..., None], scores.mT @ tokens / deviation.clamp(min=1e-30)[..., None], 0.0)
    # The orthogonal matrix that brings the coordinates closest to the shared ones (Schoenemann, 1966).
    left, _, right = torch.linalg.svd((scores * (deviation * held)[:, None]).mT @ shared)
    axes = (left @ right).mT @ axes
    return axes, (tokens @ axes.mT).square().mean(1).sqrt()


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


@AUTOENCODERS.register_module(name="tokens")
class TokenAutoencoder(Autoencoder):
    """Tokens of the vector, in coordinates of their own, coded jointly by a few latents.

    Closed form: the average, and `rank` axes per token. Learnt: an embedding per token and per tensor, and attention
    between tokens and latents.

    Args:
        layout: of the vectors.
        latents: how many latents read the tokens.
        latent_width: length of one of them as it is coded; L is the product.
        token: T, values of a token.
        rank: axes of a token; the codec can express nothing else.
        width: of the embeddings and of the attention.
        heads: of the attention.
        depth: layers of attention among the latents, in the encoder and in the decoder.
    """

    def __init__(
        self,
        layout: Layout,
        latents: int = 32,
        latent_width: int = 8,
        token: int = 1024,
        rank: int = 8,
        width: int = 64,
        heads: int = 4,
        depth: int = 1,
    ):
        super().__init__()
        settings = {"latents": latents, "latent_width": latent_width, "token": token, "rank": rank, "width": width}
        check_positive("engine.autoencoder", **settings, heads=heads, depth=depth)
        if width % heads:
            raise PdiffError(f"engine.autoencoder.width: got {width}, expected a multiple of heads, {heads}.")
        if rank > token:
            raise PdiffError(f"engine.autoencoder.rank: got {rank}, expected at most token, {token}.")
        self.latents, self.latent_width, self.latent = latents, latent_width, latents * latent_width
        self.tokens = Tokens(layout, token)
        count = len(self.tokens)
        self.register_buffer("mean", torch.zeros(layout.size))
        self.register_buffer("axes", torch.zeros(count, rank, token))
        self.register_buffer("deviation", torch.zeros(count, rank))
        self.register_buffer("tensors", self.tokens.tensors(), persistent=False)
        self.place = nn.Parameter(torch.randn(count, width))
        self.tensor = nn.Embedding(len(self.tokens.counts), width)
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

    def fit(self, scaled: Tensor | Scaled) -> None:
        """Find the average and the axes of each token, a few tokens at a time."""
        self.mean = mean(scaled)
        rank = min(self.axes.shape[1], len(scaled) - 1)
        _, shared = leading(centred_gram(scaled), rank)
        for place, columns in self.tokens.pieces(len(scaled)):
            centred = scaled[:, columns] - self.mean[columns]
            filled = nn.functional.pad(centred, (0, -centred.shape[1] % self.tokens.size))
            axes, deviation = token_axes(filled.unflatten(1, (-1, self.tokens.size)).transpose(0, 1), shared)
            self.axes[place, :rank] = axes.to(self.axes.dtype)
            self.deviation[place, :rank] = deviation.to(self.deviation.dtype)

    def embedding(self) -> Tensor:
        """Return what tells the tokens apart `(K, width)`: their own place, and their tensor."""
        return self.place + self.tensor(self.tensors)

    def encode(self, scaled: Tensor) -> Tensor:
        """Return latents `(B, L)`."""
        tokens = self.tokens.cut(scaled - self.mean)
        along = torch.einsum("bkt,krt->bkr", tokens, self.axes)
        along = torch.where(self.deviation > 0, along / self.deviation, 0.0)
        tokens = self.coordinates(along) + self.embedding()
        latents = self.read(self.queries.expand(len(scaled), -1, -1), tokens)
        return self.narrow(self.encoder(latents)).flatten(1)

    def decode(self, latents: Tensor) -> Tensor:
        """Return scaled vectors `(B, P)`."""
        memory = self.widen(latents.unflatten(1, (self.latents, self.latent_width))) + self.memory
        tokens = self.write(self.embedding().expand(len(latents), -1, -1), self.decoder(memory))
        along = self.last(tokens) * self.deviation
        return self.mean + self.tokens.join(torch.einsum("bkr,krt->bkt", along, self.axes))
