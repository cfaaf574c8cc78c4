"""From the device of a network to the host: in few parcels, so that a GPU is not waited for each time."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

PARCEL = 2**28  # bytes, 256 MiB


def numbers_of_parcels(tensors: Sequence[Tensor], most: int) -> list[int]:
    """Return for each tensor the number of its parcel: of one device, in order, of at most so many bytes, or of one."""
    numbers, device, filled = [], None, 0
    for tensor in tensors:
        opened = tensor.device != device or filled + tensor.nbytes > most
        numbers.append(numbers[-1] + opened if numbers else 0)
        device, filled = tensor.device, tensor.nbytes + (0 if opened else filled)
    return numbers


def parcel_to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of one GPU, brought by one copy, each in a storage of its own."""
    if len(tensors) == 1:
        return [tensors[0].cpu()]
    flat = torch.cat([tensor.flatten().view(torch.uint8) for tensor in tensors]).cpu()
    parts = zip(flat.split([tensor.nbytes for tensor in tensors]), tensors, strict=True)
    return [part.clone().view(tensor.dtype).view(tensor.shape) for part, tensor in parts]


def to_host(tensors: Sequence[Tensor], most: int = PARCEL) -> list[Tensor]:
    """Return tensors `(...)` of any dtypes on the CPU: those of a CPU as they are, those of a GPU by few copies.

    Args:
        tensors: of any devices.
        most: bytes of a copy, but for a tensor that has more.
    """
    away = [tensor.detach() for tensor in tensors if tensor.device.type != "cpu"]
    parcels = groupby(zip(numbers_of_parcels(away, most), away, strict=True), lambda pair: pair[0])
    brought = iter([tensor for _, pairs in parcels for tensor in parcel_to_host([tensor for _, tensor in pairs])])
    return [tensor if tensor.device.type == "cpu" else next(brought) for tensor in tensors]
