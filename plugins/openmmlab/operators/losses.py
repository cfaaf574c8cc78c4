"""The sigmoid focal loss (Lin et al., 2017) and its closed-form gradient.

With p_t the probability of the true label, the loss is -alpha (1 - p_t)^gamma log(p_t). As in mmcv, the logarithm is
never taken of less than the smallest normal single-precision number. Unlike there, 1 - p_t and log(p_t) are taken from
the logit, so that large ones lose no digits.
"""

import math

import torch
from pdiff_plugins.openmmlab.operators.precision import full
from torch import Tensor
from torch.nn.functional import logsigmoid

TINY = torch.finfo(torch.float32).tiny


def binary(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, ...]:
    """Return what the loss and its gradient are made of, each (N, C).

    Args:
        input: logits (N, C).
        target: labels (N,); any number but 0 to C - 1 means that no class is there.
        weight: of the labels (C,), or empty; a row without a class has the weight 1.
        alpha: weight of a class that is there; one that is not has 1 - alpha.

    Returns:
        the sign of the logit's influence on p_t, p_t, 1 - p_t, log(p_t), and the weight of each summand.
    """
    input = full(input)
    present = (target[:, None] == torch.arange(input.shape[1], device=input.device)).to(input.dtype)
    sign = 2 * present - 1
    factor = alpha * present + (1 - alpha) * (1 - present)
    if weight.numel():
        known = present.any(1)
        factor = factor * weight[target * known].where(known, 1)[:, None]
    log_p_t = logsigmoid(sign * input).clamp(min=math.log(TINY))
    return sign, (sign * input).sigmoid(), (-sign * input).sigmoid(), log_p_t, factor


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill `output` (N, C) with the loss of every logit."""
    _, _, q_t, log_p_t, factor = binary(input, target, weight, alpha)
    output.copy_(-factor * q_t**gamma * log_p_t)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill `grad_input` (N, C) with the derivative of every loss by its logit."""
    sign, p_t, q_t, log_p_t, factor = binary(input, target, weight, alpha)
    grad_input.copy_(-sign * factor * q_t**gamma * (q_t - gamma * p_t * log_p_t))
