"""Decoders that may be trained on their own: latents `(B, L)` to scaled vectors `(B, P)`, the encoder as it is."""

import copy

import torch
from torch import Tensor, nn


class LinearDecoder(nn.Module):
    """A linear map and an offset.

    Args:
        weight: `(L, P)`; copied.
        bias: `(P,)`; copied.
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())

    def forward(self, latents: Tensor) -> Tensor:
        """Return scaled vectors `(B, P)`."""
        return torch.addmm(self.bias, latents, self.weight)


class CopiedDecoder(nn.Module):
    """A copy of an autoencoder that decodes, of which only what decoding uses can be trained.

    It stays in eval mode: batch norms keep the statistics of the autoencoder's own training.

    Args:
        autoencoder: a fitted `Autoencoder`; it stays as it is.
    """

    def __init__(self, autoencoder: nn.Module):
        super().__init__()
        self.autoencoder = copy.deepcopy(autoencoder).requires_grad_(True)
        self.eval()
        parameters = list(self.autoencoder.parameters())
        with torch.enable_grad():
            device = next(iter(self.autoencoder.state_dict().values())).device
            found = self.autoencoder.decode(torch.zeros(1, autoencoder.latent, device=device)).sum()
        if not found.requires_grad:
            self.autoencoder.requires_grad_(False)
            return
        for parameter, used in zip(parameters, torch.autograd.grad(found, parameters, allow_unused=True), strict=True):
            parameter.requires_grad_(used is not None)

    def train(self, mode: bool = True) -> "CopiedDecoder":
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, latents: Tensor) -> Tensor:
        """Return scaled vectors `(B, P)`."""
        return self.autoencoder.decode(latents)
