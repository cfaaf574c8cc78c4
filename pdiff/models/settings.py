"""The settings of a training by gradients, checked before anything is computed."""

from collections.abc import Mapping
from typing import Any

import torch

from pdiff.errors import PdiffError, check_not_negative, check_positive, known

LEARNING_RATE_SCHEDULES = ("cosine", "constant")
COMPILERS = ("none", "eager", "inductor", "cudagraphs")


def check_training(where: str, device: torch.device, settings: Mapping[str, Any]) -> None:
    """Raise a `PdiffError` for settings that cannot be.

    Args:
        where: their section of the config.
        device: of the training.
        settings: those of `training.train`, all of them and each of its type.
    """
    check_positive(where, batch_size=settings["batch_size"])
    check_not_negative(where, **{key: settings[key] for key in ("steps", "lr", "weight_decay", "ema")})
    if settings["ema"] >= 1:
        raise PdiffError(f"{where}.ema: got {settings['ema']}, expected below 1.")
    for key, choices in (("schedule", LEARNING_RATE_SCHEDULES), ("compile", COMPILERS)):
        if settings[key] not in choices:
            raise PdiffError(f"{where}.{key}: got {settings[key]!r}. {known(settings[key], choices)}")
    if settings["compile"] == "cudagraphs" and device.type != "cuda":
        raise PdiffError(f"{where}.compile: got 'cudagraphs' on the {device}. Use none, or a GPU.")
