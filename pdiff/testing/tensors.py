"""What of a network has changed, bit for bit."""

import torch
from torch import Tensor, nn


def bits(tensor: Tensor) -> Tensor:
    """Return the bytes of a tensor, on the CPU: a NaN is equal to itself there."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the network's parameters and buffers."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Return the names of the tensors in `after` that differ from those in `before`."""
    return [name for name, tensor in after.items() if not torch.equal(bits(before[name]), bits(tensor))]
