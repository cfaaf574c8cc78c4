"""What tensors have in common by where their values lie: the same memory in any form, or a part of it."""

from collections.abc import Hashable

import torch
from torch import Tensor


def order_in_memory(tensor: Tensor) -> list[int]:
    """Return the dimensions of a tensor from the one with the largest steps in memory to that with the smallest."""
    return sorted(range(tensor.ndim), key=lambda dim: (-tensor.stride(dim), -tensor.shape[dim]))


def is_dense(tensor: Tensor) -> bool:
    """Say whether a tensor's values fill their memory, each place once, in whatever order of the dimensions."""
    step = 1
    for dim in reversed(order_in_memory(tensor)):
        if tensor.shape[dim] != 1 and tensor.stride(dim) != step:
            return False
        step *= tensor.shape[dim]
    return True


def memory_of(tensor: Tensor) -> Hashable:
    """Return what two tensors have in common if they are the same values in the same memory, and only then."""
    try:
        place = tensor.data_ptr()
    except (AttributeError, RuntimeError, ValueError):  # no tensor, a sparse one, or one not yet initialised
        place = 0
    if place == 0:  # there is no memory, either, of an empty tensor and of one on the meta device
        return id(tensor)
    form = tensor.numel() if tensor.is_contiguous() or is_dense(tensor) else (tensor.shape, tensor.stride())
    return tensor.device, tensor.dtype, place, form


def viewed(values: Tensor, of: Tensor, like: Tensor) -> Tensor:
    """Return values of the shape of one tensor in the form of another one that is the same memory.

    Args:
        values: of the shape of `of`; of any other shape they come back as they are.
        of: the tensor whose values they are.
        like: its other form: transposed or reshaped, say.
    """
    if values.shape != of.shape or (of.shape == like.shape and of.stride() == like.stride()):
        return values
    order = order_in_memory(like)
    flat = values.permute(order_in_memory(of)).reshape([like.shape[dim] for dim in order])
    return flat.permute([order.index(dim) for dim in range(like.ndim)])


def end(tensor: Tensor) -> int:
    """Return the place in its storage behind a tensor's last value."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.storage_offset() + 1 + sum((size - 1) * step for size, step in steps)


def places(tensor: Tensor) -> Tensor:
    """Return where in its storage each value of a tensor begins, in bytes."""
    numbers = torch.arange(end(tensor))[tensor.storage_offset() :].as_strided(tensor.shape, tensor.stride())
    return numbers.flatten() * tensor.element_size()


def share(one: Tensor, other: Tensor) -> bool:
    """Say whether two tensors in one storage have a place in common; of a tensor with itself, two values one place."""
    if one is other:
        return not is_dense(one) and len(places(one).unique()) < one.numel()
    first, last = sorted((one, other), key=Tensor.data_ptr)
    if last.storage_offset() * last.element_size() >= end(first) * first.element_size():
        return False
    return bool(torch.isin(places(one), places(other)).any())
