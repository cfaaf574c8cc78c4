"""The token autoencoder, for large vectors: its learnt weights grow with the number of tokens, not with P x L.

The vector is cut into tokens, tensor by tensor, which a few latents read and write (pdiff/engine/perceiver.py). Values
of trained networks have no pattern that a small network could express, so what is coded is not the values but
coordinates along a few axes of each token, which come from the population in closed form.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pdiff.engine.autoencoder import Autoencoder
from pdiff.engine.perceiver import Perceiver
from pdiff.engine.registries import AUTOENCODERS
from pdiff.engine.scaling import Scaled
from pdiff.runtime.errors import PdiffError, check_not_negative, check_positive
from pdiff.weights.gram import MOST, axes_of_many, centred_gram
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import VALUES, mean, parts


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
        return torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts), output_size=len(self))

    def cut(self, vectors: Tensor) -> Tensor:
        """Return the tokens `(B, K, T)` of vectors `(B, P)`."""
        filled = (nn.functional.pad(vectors[:, e.slice], (0, -e.size % self.size)) for e in self.layout)
        return torch.cat([block.unflatten(1, (-1, self.size)) for block in filled], 1)

    def join(self, tokens: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of tokens `(B, K, T)`, what filled them up cut off."""
        blocks = zip(self.layout, tokens.split(self.counts, 1), strict=True)
        return torch.cat([block.flatten(1)[:, : entry.size] for entry, block in blocks], 1)

    def pieces(self, rows: int) -> Iterator[tuple[slice, slice]]:
        """Yield runs of tokens and the columns of the vector they hold, a few at a time.

        So few that neither `rows` vectors' values nor the inner products of these rows, token by token, are many.
        """
        most = max(1, VALUES // 4 // (rows * max(rows, self.size)))
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


def leading_scores(scaled: Tensor | Scaled, count: int) -> Tensor:
    """Return coordinates on the first principal axes `(N, count)`, orthonormal; of many vectors by `axes_of_many`."""
    if len(scaled) <= MOST:
        return leading(centred_gram(scaled), count)[1]
    axes, average = axes_of_many(scaled, count)[0], mean(scaled)
    scores = torch.cat([(part - average) @ axes.T for part in parts(scaled)]).double()
    return scores / scores.norm(dim=0).clamp(min=1e-30)


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
    many = tokens.shape[1] > MOST
    variance, found = leading(tokens.mT @ tokens if many else tokens @ tokens.mT, shared.shape[1])
    deviation = variance.sqrt()
    scores = tokens @ found / deviation.clamp(min=1e-30)[:, None] if many else found
    held = deviation > deviation[:, :1] * 1e-5  # beyond, rounding of float32
    axes = torch.where(held[..., None], scores.mT @ tokens / deviation.clamp(min=1e-30)[..., None], 0.0)
    # The orthogonal matrix that brings the coordinates closest to the shared ones (Schoenemann, 1966).
    left, _, right = torch.linalg.svd((scores * (deviation * held)[:, None]).mT @ shared)
    axes = (left @ right).mT @ axes
    return axes, (tokens @ axes.mT).square().mean(1).sqrt()


@AUTOENCODERS.register_module(name="tokens")
class TokenAutoencoder(Autoencoder):
    """Tokens of the vector, in coordinates of their own, coded jointly by a few latents.

    Closed form: the average, and `rank` axes per token. Learnt: how the coordinates are coded (`Perceiver`). That is
    trained on the coordinates alone, R values for each T of the vector, which is as good as on the whole vector: what
    lies beside the axes is lost whatever it learns.

    Args:
        layout: of the vectors.
        latents: how many latents read the tokens.
        latent_width: length of one of them as it is coded; L is the product.
        token: T, values of a token.
        rank: R, axes of a token; the codec can express nothing else.
        width: of the embeddings and of the attention.
        heads: of the attention.
        depth: layers of attention among the latents, in the encoder and in the decoder.
        vector_noise: standard deviation of the noise on the coordinates, in training.
        latent_noise: standard deviation of the noise on the latents, in training.
    """

    remedy = "rank, latents or latent_width of engine.autoencoder, or engine.autoencoder_training.steps"

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
        vector_noise: float = 0.001,
        latent_noise: float = 0.1,
    ):
        super().__init__()
        check_positive("engine.autoencoder", token=token, rank=rank)
        check_not_negative("engine.autoencoder", vector_noise=vector_noise, latent_noise=latent_noise)
        self.vector_noise, self.latent_noise = vector_noise, latent_noise
        if rank > token:
            raise PdiffError(f"engine.autoencoder.rank: got {rank}, expected at most token, {token}.")
        self.tokens = Tokens(layout, token)
        self.register_buffer("mean", torch.zeros(layout.size))
        self.register_buffer("axes", torch.zeros(len(self.tokens), rank, token))
        sizes = (rank, latents, latent_width, width, heads, depth)
        self.coder = Perceiver(self.tokens.tensors(), len(layout.entries), *sizes)
        self.latent = self.coder.latent

    def fit(self, scaled: Tensor | Scaled) -> None:
        """Find the average and the axes of each token, a few tokens at a time."""
        self.mean = mean(scaled)
        rank = min(self.axes.shape[1], len(scaled) - 1)
        shared = leading_scores(scaled, rank)
        for place, columns in self.tokens.pieces(len(scaled)):
            centred = scaled[:, columns] - self.mean[columns]
            filled = nn.functional.pad(centred, (0, -centred.shape[1] % self.tokens.size))
            axes, deviation = token_axes(filled.unflatten(1, (-1, self.tokens.size)).transpose(0, 1), shared)
            self.axes[place, :rank] = axes.to(self.axes.dtype)
            self.coder.deviation[place, :rank] = deviation.to(self.axes.dtype)

    @torch.no_grad()
    def trainable(self, scaled: Tensor | Scaled) -> tuple[Autoencoder, Tensor]:
        """Return the coder, and the coordinates `(N, K R)`."""
        return self.coder, torch.cat([self.coordinates(part) for part in parts(scaled)])

    def trained_values(self, size: int) -> int:
        """Return how many coordinates a vector has, K R."""
        return self.coder.deviation.numel()

    def coordinates(self, scaled: Tensor) -> Tensor:
        """Return where scaled vectors lie on the axes `(B, K R)`."""
        return torch.einsum("bkt,krt->bkr", self.tokens.cut(scaled - self.mean), self.axes).flatten(1)

    def encode(self, scaled: Tensor) -> Tensor:
        """Return latents `(B, L)`."""
        return self.coder.encode(self.coordinates(scaled))

    def decode(self, latents: Tensor) -> Tensor:
        """Return scaled vectors `(B, P)`."""
        along = self.coder.decode(latents).unflatten(1, self.coder.deviation.shape)
        return self.mean + self.tokens.join(torch.einsum("bkr,krt->bkt", along, self.axes))
