"""The core's own answers to two hooks; a plugin may give others."""

import torch
from torch import Tensor, nn

from pdiff.runtime.errors import PdiffError
from pdiff.task.markers import hookimpl
from pdiff.weights.select import select


def find_tensor(model: nn.Module, name: str) -> Tensor | None:
    """Return the parameter or buffer of a name; None without one. Making a state dict for it would cost more."""
    path, _, last = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    tensor = getattr(module, last, None)
    return tensor if isinstance(tensor, Tensor) else None


class SelectParams:
    """Reads the selector expression in `cfg.select`."""

    @hookimpl
    def select_params(self, task, cfg):
        """Return the names that the expression means."""
        return select(task.model, cfg.select, task.head)


class LoadParams:
    """Copies every tensor in place into the parameter or buffer of its name."""

    @hookimpl
    @torch.no_grad()
    def load_params(self, model, params):
        """Copy `params`; raise a `PdiffError` for a tensor that the network lacks or has in another shape."""
        for name, value in params.items():
            tensor = find_tensor(model, name)
            if tensor is None or tensor.shape != value.shape:
                found = "lacks it" if tensor is None else f"has shape {tuple(tensor.shape)}"
                raise PdiffError(f"load_params: got {name!r} of shape {tuple(value.shape)}, the network {found}.")
            tensor.copy_(value)


DEFAULTS = {"select_params": SelectParams(), "load_params": LoadParams()}
