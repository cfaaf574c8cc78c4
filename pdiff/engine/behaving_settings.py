"""The settings of what is trained through the losses of networks, complete and of the right types."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pdiff.runtime.errors import check_keys, check_not_negative, check_positive, check_section, check_type

TRAINING = {
    "steps": 1000,
    "batch_size": 64,
    "lr": 1e-3,
    "weight_decay": 0.0,
    "schedule": "cosine",
    "ema": 0.0,
    "amp": False,
    "compile": "none",
}
DEFAULTS = MappingProxyType(
    {"decoder": {**TRAINING, "noise": 0.1}, "hypernet": {"width": 256, "depth": 2, **TRAINING}}
)  # by key of the section `fit`


def behaving_settings(key: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the complete settings of `fit.decoder` or `fit.hypernet`.

    Raises:
        PdiffError: a key is unknown, or a value of another type or out of range; `check_training` looks at the others.
    """
    where, defaults = f"fit.{key}", DEFAULTS[key]
    check_section(section, where)
    check_keys(section, defaults, where)
    complete = {**defaults, **section}
    for name, value in complete.items():
        check_type(value, type(defaults[name]), f"{where}.{name}")
    check_positive(where, **{name: complete[name] for name in ("steps", "width", "depth") if name in complete})
    check_not_negative(where, **{name: complete[name] for name in ("lr", "noise") if name in complete})
    return complete
