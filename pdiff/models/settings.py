"""The settings of a training by gradients, checked before anything is computed."""

import torch

from pdiff.errors import PdiffError, check_not_negative, check_positive, known

LEARNING_RATE_SCHEDULES = ("cosine", "constant")
COMPILERS = ("none", "eager", "inductor", "cudagraphs")


def check_training(
    where: str,
    device: torch.device,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    schedule: str,
    ema: float,
    amp: bool,
    compile: str = "none",
) -> None:
    """Raise a `PdiffError` for settings that cannot be.

    Args:
        where: their section of the config.
        device: of the training.
        steps, batch_size, lr, weight_decay, schedule, ema, amp, compile: as for `training.train`.
    """
    check_positive(where, batch_size=batch_size)
    check_not_negative(where, steps=steps, lr=lr, weight_decay=weight_decay, ema=ema)
    if ema >= 1:
        raise PdiffError(f"{where}.ema: got {ema}, expected below 1.")
    for key, value, choices in (("schedule", schedule, LEARNING_RATE_SCHEDULES), ("compile", compile, COMPILERS)):
        if value not in choices:
            raise PdiffError(f"{where}.{key}: got {value!r}. {known(value, choices)}")
    if compile == "cudagraphs" and device.type != "cuda":
        raise PdiffError(f"{where}.compile: got 'cudagraphs' on the {device}. Use none, or a GPU.")
