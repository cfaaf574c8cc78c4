"""How alike two networks are by what they get wrong."""

import torch
from torch import Tensor


def error_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return |wrong_a AND wrong_b| / |wrong_a OR wrong_b| for every pair; 1 where neither is ever wrong.

    Args:
        a: booleans `(A, S)`, True where candidate A is wrong on sample S.
        b: booleans `(B, S)`.

    Returns:
        `(A, B)`, float32.
    """
    a, b = a.float(), b.float()
    both = a @ b.T
    either = a.sum(1, keepdim=True) + b.sum(1) - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)
