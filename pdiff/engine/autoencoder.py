"""Parameter autoencoders: scaled vector `(B, P)` to latent `(B, L)` and back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from pdiff.engine.decoder import CopiedDecoder, LinearDecoder
from pdiff.engine.registries import AUTOENCODERS
from pdiff.engine.scaling import Scaled
from pdiff.runtime.errors import PdiffError, check_not_negative, check_positive
from pdiff.weights.gram import MOST, centred_blocks, centred_gram, leading_axes
from pdiff.weights.vectors import mean

KERNEL = 7


class Autoencoder(nn.Module, ABC):
    """Encoder and decoder of one selection.

    Attributes:
        latent: L, the length of a latent.
        remedy: which settings to raise where it loses too much.
        vector_noise: standard deviation of the noise on the scaled vectors that it is trained on.
        latent_noise: standard deviation of the noise on their latents, in training.
    """

    latent: int
    remedy: ClassVar[str] = "its size"
    vector_noise: float = 0.0
    latent_noise: float = 0.0

    def fit(self, scaled: Tensor | Scaled) -> None:
        """Fit in closed form what can be, to the scaled population `(N, P)`; before the training by gradients.

        The population need not fit into memory: it is to be looked at by blocks of columns, or by rows.
        """

    def trainable(self, scaled: Tensor | Scaled) -> "tuple[Autoencoder, Tensor | Scaled]":
        """Return what is trained by gradients, and on what rows `(N, ...)`: all of it, on the scaled vectors."""
        return self, scaled

    def trained_values(self, size: int) -> int:
        """Return how many values `trainable` gives of a vector of so many: for plans, before anything is fitted."""
        return size

    @abstractmethod
    def encode(self, scaled: Tensor) -> Tensor:
        """Return latents `(B, L)` of scaled vectors `(B, P)`."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Return scaled vectors `(B, P)` of latents `(B, L)`."""

    def trainable_decoder(self) -> nn.Module:
        """Return a module of its own from latents to scaled vectors, to be trained; this one stays as it is.

        At first it gives what `decode` does, but for rounding.
        """
        return CopiedDecoder(self)


@AUTOENCODERS.register_module(name="principal")
class PrincipalAutoencoder(Autoencoder):
    """The linear denoising autoencoder, in closed form.

    Encoder: the L principal axes of the scaled population, in units of the standard deviation of an average axis.
    Decoder: minimises E|decode(encode(x) + n e) - x|^2, e ~ N(0, 1), with n the latent noise, which multiplies an axis
    of variance v (in these units) by v / (v + n^2): axes below the noise are pulled to the mean. It stands for training
    with noise on the latent (arXiv 2402.13144, section 2.3) without a single gradient step.

    Args:
        size: P.
        latent: L at most; no more than N - 1 axes carry variance, the others stay 0.
        latent_noise: n, standard deviation of the noise on the latent.
    """

    remedy = "engine.autoencoder.latent"

    def __init__(self, size: int, latent: int = 128, latent_noise: float = 0.1):
        super().__init__()
        check_positive("engine.autoencoder", latent=latent)
        check_not_negative("engine.autoencoder", latent_noise=latent_noise)
        self.latent = latent
        self.latent_noise = latent_noise
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("axes", torch.zeros(latent, size))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("shrinkage", torch.zeros(latent))

    def fit(self, scaled: Tensor | Scaled) -> None:
        """Find the axes by the eigenvectors of the N x N Gram matrix, whose cost does not grow as P^2.

        A few passes over blocks of columns: the Gram matrix is the sum of theirs, and an axis is made block by block.
        Of more than `MOST` vectors, whose Gram matrix is too large, they are found by `leading_axes`.
        """
        self.mean = mean(scaled)
        rank = min(self.latent, len(scaled) - 1)
        if len(scaled) > MOST:
            axes, variance = leading_axes(scaled, rank)
            found = variance > variance.max() * 1e-12
            self.axes[: int(found.sum())] = axes[found].to(self.axes.dtype)
            self.set_units(variance[found])
            return
        eigenvalues, eigenvectors = torch.linalg.eigh(centred_gram(scaled))
        order = eigenvalues.argsort(descending=True)[:rank]
        variance = eigenvalues[order].clamp(min=0) / (len(scaled) - 1)
        found = variance > variance.max() * 1e-12
        leading, variance = eigenvectors[:, order[found]], variance[found]
        norms = torch.stack([(leading.T @ centred).norm(dim=1) for _, centred in centred_blocks(scaled)]).norm(dim=0)
        norms = norms.clamp(min=torch.finfo(norms.dtype).tiny)[:, None]
        for place, centred in centred_blocks(scaled):
            self.axes[: len(variance), place] = (leading.T @ centred / norms).to(self.axes.dtype)
        self.set_units(variance)

    def set_units(self, variance: Tensor) -> None:
        """Set the unit of a latent, and what the noise leaves of each axis, by the variances along the axes."""
        unit = variance.mean().sqrt() if len(variance) else torch.ones(())
        ratio = variance / unit.square()
        self.unit = unit.to(self.unit)
        self.shrinkage[: len(variance)] = (ratio / (ratio + self.latent_noise**2)).to(self.shrinkage.dtype)

    def encode(self, scaled: Tensor) -> Tensor:
        """Return the coordinates along the axes."""
        return (scaled - self.mean) @ self.axes.T / self.unit

    def decode(self, latents: Tensor) -> Tensor:
        """Return the shrunk combination of the axes."""
        return self.mean + (latents * self.shrinkage * self.unit) @ self.axes

    def trainable_decoder(self) -> nn.Module:
        """Return the same linear map with weights of its own."""
        return LinearDecoder((self.shrinkage * self.unit)[:, None] * self.axes, self.mean)


def encoder_block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block that halves the length."""
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, KERNEL, stride=2, padding=KERNEL // 2), nn.BatchNorm1d(outputs), nn.LeakyReLU()
    )


def decoder_block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block that doubles the length."""
    convolution = nn.ConvTranspose1d(inputs, outputs, KERNEL, stride=2, padding=KERNEL // 2, output_padding=1)
    return nn.Sequential(convolution, nn.BatchNorm1d(outputs), nn.ELU())


def check_channels(**channels: Sequence[int]) -> None:
    """Raise a `PdiffError` unless encoder and decoder have equally many blocks, at least one, all with channels."""
    for name, counts in channels.items():
        if not isinstance(counts, list | tuple) or not counts:
            raise PdiffError(f"engine.autoencoder.{name}: got {counts!r}, expected a list of channels.")
        check_positive("engine.autoencoder", **{f"{name}[{place}]": count for place, count in enumerate(counts)})
    if len({*map(len, channels.values())}) > 1:
        blocks = " and ".join(str(len(counts)) for counts in channels.values())
        line = f"engine.autoencoder: got {' and '.join(channels)} of {blocks} blocks, expected equally many."
        raise PdiffError(line)


@AUTOENCODERS.register_module(name="conv")
class ConvAutoencoder(Autoencoder):
    """The paper's autoencoder of 1-D convolutions over the vector (arXiv 2402.13144, appendix).

    The defaults are the published ones: 2.2 M weights at P = 2,048.

    Args:
        size: P; padded with zeros to a multiple of 64.
        latent: L.
        encoder: channels of the encoder's blocks, each of which halves the length.
        decoder: channels of the decoder's blocks, the first of which is preceded by `encoder[-1]` channels.
        vector_noise: standard deviation of the noise on the scaled vectors, in training.
        latent_noise: standard deviation of the noise on the latents, in training.
    """

    remedy = "engine.autoencoder.latent or engine.autoencoder_training.steps"

    def __init__(
        self,
        size: int,
        latent: int = 128,
        encoder: Sequence[int] = (64, 128, 256, 256, 32),
        decoder: Sequence[int] = (256, 256, 128, 64, 64),
        vector_noise: float = 0.001,
        latent_noise: float = 0.1,
    ):
        super().__init__()
        check_positive("engine.autoencoder", latent=latent)
        check_channels(encoder=encoder, decoder=decoder)
        check_not_negative("engine.autoencoder", vector_noise=vector_noise, latent_noise=latent_noise)
        self.size, self.latent = size, latent
        self.vector_noise, self.latent_noise = vector_noise, latent_noise
        multiple = max(64, 2 ** len(encoder))
        self.padding = -size % multiple
        length = (size + self.padding) // 2 ** len(encoder)
        self.encoder = nn.Sequential(
            nn.Unflatten(1, (1, size + self.padding)),
            *map(encoder_block, (1, *encoder[:-1]), encoder),
            nn.Flatten(),
            nn.Linear(encoder[-1] * length, latent),
            nn.Linear(latent, latent),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, encoder[-1] * length),
            nn.Unflatten(1, (encoder[-1], length)),
            *map(decoder_block, (encoder[-1], *decoder[:-1]), decoder),
            nn.Conv1d(decoder[-1], 1, KERNEL, padding=KERNEL // 2),
            nn.Flatten(),
        )

    def encode(self, scaled: Tensor) -> Tensor:
        """Return latents `(B, L)`."""
        return self.encoder(nn.functional.pad(scaled, (0, self.padding)))

    def decode(self, latents: Tensor) -> Tensor:
        """Return scaled vectors `(B, P)`, the padding cut off."""
        return self.decoder(latents)[:, : self.size]
