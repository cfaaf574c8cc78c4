"""Focal losses (Lin et al., 2017) and their closed-form gradients.

With p_t the probability of the true label, the loss is -alpha (1 - p_t)^gamma log(p_t). As in mmcv, the logarithm is
never taken of less than the smallest normal single-precision number. Unlike there, the sigmoid loss takes 1 - p_t and
log(p_t) from the logit, so that large ones lose no digits.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

TINY = torch.finfo(torch.float32).tiny


def full(x: Tensor) -> Tensor:
    """Return a half-precision tensor in single precision; any other as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def binary(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, ...]:
    """Return what the sigmoid loss and its gradient are made of, each (N, C).

    Args:
        input: logits (N, C).
        target: labels (N,); any number but 0 to C - 1 means that no class is there.
        weight: of the labels (C,), or empty.
        alpha: weight of a class that is there; one that is not has 1 - alpha.

    Returns:
        the sign of the logit's influence on p_t, p_t, 1 - p_t, log(p_t), and the weight of each summand.
    """
    input = full(input)
    present = (target[:, None] == torch.arange(input.shape[1], device=input.device)).to(input.dtype)
    sign = 2 * present - 1
    factor = alpha * present + (1 - alpha) * (1 - present)
    if weight.numel():
        factor = factor * weight[target][:, None]
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


def labelled(softmax: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the softmax loss and its gradient are made of.

    Args:
        softmax: probabilities (N, C).
        target: labels (N,); a negative one has no loss.
        weight: of the labels (C,), or empty.
        alpha: weight of all.

    Returns:
        p_t (N,), the weight of each summand (N,), and the labels as one-hot rows (N, C).
    """
    label, softmax = target.clamp(min=0), full(softmax)
    factor = alpha * (target >= 0).to(softmax.dtype)
    if weight.numel():
        factor = factor * weight[label]
    hot = torch.zeros_like(softmax).scatter_(1, label[:, None], 1)
    return softmax.gather(1, label[:, None])[:, 0], factor, hot


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Fill `output` (N,) with the losses of rows of probabilities `input` (N, C)."""
    p_t, factor, _ = labelled(input, target, weight, alpha)
    output.copy_(-factor * (1 - p_t) ** gamma * p_t.clamp(min=TINY).log())


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Fill `grad_input` (N, C) with the derivative of every loss by its logits, and `buff` (N,) with p_t dloss/dp_t."""
    p_t, factor, hot = labelled(input, target, weight, alpha)
    q_t = (1 - p_t).clamp(min=TINY)
    buff.copy_(factor * (gamma * q_t ** (gamma - 1) * p_t * p_t.clamp(min=TINY).log() - q_t**gamma))
    grad_input.copy_(buff[:, None] * (hot - input))
