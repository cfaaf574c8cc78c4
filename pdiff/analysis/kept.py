"""What a codec keeps of vectors that it was not fitted to."""

import torch
from torch import Tensor

from pdiff.weights.layout import Layout


def kept(originals: Tensor, decoded: Tensor, average: Tensor) -> Tensor:
    """Return what the codec keeps of each checkpoint's deviation from the average: R^2, `(H,)`.

    1 where a checkpoint comes back as it is, 0 where it is no nearer than the average. A checkpoint that is the
    average itself, as in a tensor that never changes, keeps all if it comes back exactly, else nothing.
    """
    error, deviation = (
        torch.stack([(row - other).double().square().sum() for row, other in zip(originals, others, strict=True)])
        for others in (decoded, average.expand_as(originals))
    )
    return torch.where(deviation > 0, 1 - error / deviation, torch.where(error > 0, 0.0, 1.0))


def kept_by_tensor(originals: Tensor, decoded: Tensor, average: Tensor, layout: Layout) -> dict[str, float]:
    """Return what the codec keeps of each tensor's deviations from the average, the mean over `(H, P)` checkpoints."""
    return {
        entry.name: kept(originals[:, entry.slice], decoded[:, entry.slice], average[entry.slice]).mean().item()
        for entry in layout
    }
