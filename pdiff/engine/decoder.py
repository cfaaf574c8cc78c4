"""Decoders that may be trained on their own: latents `(B, L)` to scaled vectors `(B, P)`, the encoder as it is."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_tensors


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


def trained(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a module that can be trained, by name; all else of it is as where it comes from."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def load_trained(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module what `trained` returned of one; raise a `RuntimeError` where it does not fit, as torch does."""
    wrong = sorted(trained(module).keys() ^ tensors.keys())
    if wrong:
        raise RuntimeError(f"{wrong[0]} is in one of them alone")
    module.load_state_dict(tensors, strict=False)


def load_part(path: Path, load: Callable[[Mapping[str, Tensor]], Any], what: str) -> None:
    """Load the tensors of a file; raise a `PdiffError` where they do not fit `what`."""
    try:
        load(read_tensors(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise PdiffError(f"{path}: does not fit {what} ({reason}). Fit again.") from error
