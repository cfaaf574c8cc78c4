"""Many networks of one architecture in one forward pass: their tensors stacked, the network mapped over the stack."""

from collections.abc import Mapping, Sequence

import torch
from pdiff_plugins.images.collection import set_mode
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _NormBase

from pdiff import parameter_names, spread


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


def trainable_stack(
    model: nn.Module, begins: Sequence[Mapping[str, Tensor]], mode: str, lr: float, weight_decay: float, eps: float
) -> tuple[dict[str, Tensor], torch.optim.Optimizer]:
    """Return the tensors `(n, ...)` of n networks that begin with these, and what trains them, element by element.

    They are on the device of the model, wherever those that they begin with are.

    Args:
        model: the architecture, and what they share; it is put into `mode`, without gradients.
        begins: the tensors of each.
        mode: `train`, or `eval`, which drops nothing out and keeps running statistics as they are.
        lr, weight_decay, eps: AdamW's.
    """
    set_mode(model, list(begins[0]), mode, "collect.networks")
    model.requires_grad_(False)
    learnt, own = parameter_names(model), model.state_dict()
    stack = {name: torch.stack([tensors[name].to(own[name].device) for tensors in begins]) for name in begins[0]}
    trainable = [tensor.requires_grad_(True) for name, tensor in stack.items() if name in learnt]
    return stack, torch.optim.AdamW(trainable, lr=lr, weight_decay=weight_decay, eps=eps, fused=True)


def stacked_step(
    model: nn.Module, stack: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, inputs: Tensor, answers: Tensor
) -> dict[str, Tensor]:
    """Take one step of n networks, each as it would alone; return `loss` and `accuracy` of each one's batch `(n,)`.

    Args:
        model: the architecture.
        stack: the networks' tensors.
        optimizer: of these.
        inputs: `(B, C, H, W)` for all, or `(n, B, C, H, W)`.
        answers: `(n, B)`.
    """
    logits = stacked_forward(model, stack, inputs)
    losses = cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none").view(answers.shape).mean(1)
    optimizer.zero_grad()
    losses.sum().backward()
    optimizer.step()
    right = (logits.argmax(2) == answers).float().mean(1)
    return {"loss": losses.detach(), "accuracy": right}
