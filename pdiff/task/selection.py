"""What a selection must be that a hook hands over, and how the error of a plugin reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from pdiff.runtime.errors import PdiffError
from pdiff.weights.layout import Layout


def fault(plugin: str, words: str) -> PdiffError:
    """Return the error of a plugin whose hook handed over something else."""
    return PdiffError(f"plugin {plugin}: {words}")


def kind(value: Any) -> str:
    """Return what an error line calls a value."""
    return "None" if value is None else type(value).__name__


def check_params(
    plugin: str, params: Mapping[str, Tensor], layout: Layout, selected: Sequence[str], said: str = "collect yielded"
) -> None:
    """Raise a `PdiffError` unless `params` is the selection, tensor by tensor; `said` begins its line."""
    for entry in layout:
        if entry.name not in params:
            raise fault(plugin, f"{said} a selection without {entry.name!r}. Yield every tensor of `names`.")
        shape = tuple(params[entry.name].shape)
        if shape != entry.shape:
            line = f"{said} {entry.name!r} of shape {shape}, expected {entry.shape}, that of the network."
            raise fault(plugin, line)
    for name in params:
        if name not in selected:
            line = f"{said} {name!r}, which is not selected. Yield the tensors of `names` alone."
            raise fault(plugin, line)


def check_tensors_by_name(plugin: str, said: str, params: Any) -> None:
    """Raise a `PdiffError` unless a selection holds tensors by name; `said` begins its line."""
    values = params.values() if isinstance(params, Mapping) else [params]
    for value in values:
        if not isinstance(value, Tensor) or not isinstance(params, Mapping):
            raise fault(plugin, f"{said} {kind(value)}, expected tensors by name. Yield every tensor of `names`.")


def check_finetuned(
    plugin: str, said: str, params: Mapping[str, Tensor], layout: Layout, selected: Sequence[str]
) -> None:
    """Raise a `PdiffError` unless `finetune` yielded the selection, and finite; `said` begins its line."""
    check_params(plugin, params, layout, selected, said)
    for name, tensor in params.items():
        if not tensor.isfinite().all():
            line = f"{said} {name!r} with values that are not finite. Lower the rate, or set the source to null."
            raise fault(plugin, line)
