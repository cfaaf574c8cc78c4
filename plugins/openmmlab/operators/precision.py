"""The precision that operators compute in: theirs have half the digits where a network has, and lose too much."""

import torch
from torch import Tensor


def full(x: Tensor) -> Tensor:
    """Return a half-precision tensor in single precision; any other as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
