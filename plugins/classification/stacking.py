"""Many networks of one architecture in one forward pass: their tensors stacked, the network mapped over the stack."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _NormBase

from pdiff import spread


def has_batch_statistics(model: nn.Module) -> bool:
    """Say whether a module of the network keeps running statistics of its batches, which a stack cannot update."""
    return any(isinstance(module, _NormBase) and module.track_running_stats for module in model.modules())


def stacked_forward(model: nn.Module, stacked: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Return the logits `(n, B, classes)` of n networks.

    Args:
        model: the architecture, and whatever tensors all of them share.
        stacked: tensors `(n, ...)` by name, in place of the network's own.
        images: `(B, C, H, W)` for all, or `(n, B, C, H, W)`.

    A single network is called as it is, and may keep statistics of its batches: those in `stacked` change in place.
    """
    count = len(next(iter(stacked.values())))
    if count == 1:
        alone = {name: tensor[0] for name, tensor in stacked.items()}
        return functional_call(model, spread(model, alone), (images[0] if images.ndim == 5 else images,))[None]

    def forward(tensors: dict[str, Tensor], batch: Tensor) -> Tensor:
        return functional_call(model, spread(model, tensors), (batch,))

    own = 0 if images.ndim == 5 else None
    return vmap(forward, in_dims=(0, own), randomness="different")(dict(stacked), images)
