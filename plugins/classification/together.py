"""The training of many networks at once, each as it would be alone.

They share the images of a step and the order of these, whatever their number, and nothing else: their tensors are
stacked, and AdamW works element by element. What a step draws follows from (seed, step) alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pdiff_plugins.classification.conditions import ConditionalSplit
from pdiff_plugins.classification.stacking import stacked_step, trainable_stack
from pdiff_plugins.images.augment import build_augmentations
from pdiff_plugins.images.collection import rows_of
from torch import Tensor, nn

from pdiff import check_positive, derive_seed, progress


def batch_of(
    data: ConditionalSplit,
    conditions: Tensor,
    seed: int,
    step: int,
    batch_size: int,
    change: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return what the networks of n conditions `(n, C)` see in a step, and the right answers `(n, B)`.

    Torch's own generator is seeded for the step: whatever is drawn from here on belongs to it.
    """
    rows = rows_of(len(data), batch_size, seed, ("networks",), step)
    torch.manual_seed(derive_seed(seed, "networks", "step", step))
    return data.inputs(rows, conditions, change), data.answers(rows, conditions)


def train_together(
    model: nn.Module,
    data: ConditionalSplit,
    conditions: Tensor,
    begins: Sequence[Mapping[str, Tensor]],
    seed: int,
    first: int,
    steps: int,
    batch_size: int = 64,
    lr: float = 1e-2,
    weight_decay: float = 0.0,
    eps: float = 1e-8,
    mode: str = "train",
    augment: Sequence[dict] = (),
) -> dict[str, Any]:
    """Train n networks with AdamW and a cosine to 0; return the `stack` of their tensors, and `figures` of each.

    Args:
        model: the architecture, and what they share; it stays as it is.
        data: the training split.
        conditions: what each network is for `(n, C)`.
        begins: the tensors that each begins with, and that are its own.
        seed: of the run.
        first: number of the first network, for the progress.
        steps: optimiser steps.
        batch_size: images per step.
        lr: first learning rate; cosine to 0.
        weight_decay: AdamW's.
        eps: AdamW's; near the gradients' own size, networks of near conditions stay near each other, as no step is
            taken by the mere sign of a small gradient.
        mode: `train`, or `eval`, which drops nothing out and keeps running statistics as they are.
        augment: augmentations of whole batches, in order: `[{type: flip}, {type: shift, share: 0.1}]`.
    """
    check_positive("collect.networks", steps=steps, batch_size=batch_size)
    change = build_augmentations(augment, "collect.networks.augment")
    stack, optimizer = trainable_stack(model, begins, mode, lr, weight_decay, eps)
    conditions = conditions.to(data.data.device)
    with progress(f"train networks {first} to {first + len(begins) - 1}", steps) as advance:
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            inputs, answers = batch_of(data, conditions, seed, step, batch_size, change)
            figures = stacked_step(model, stack, optimizer, inputs, answers)
            advance()
    figures = {name: values.cpu() for name, values in figures.items()}
    return {"stack": {name: tensor.detach() for name, tensor in stack.items()}, "figures": figures}
