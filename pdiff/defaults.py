"""The core's own answers to two hooks; a plugin may give others."""

import torch

from pdiff.errors import PdiffError
from pdiff.hookspecs import hookimpl
from pdiff.weights.select import select


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
        state = model.state_dict(keep_vars=True)
        for name, value in params.items():
            if name not in state or state[name].shape != value.shape:
                found = f"has shape {tuple(state[name].shape)}" if name in state else "lacks it"
                raise PdiffError(f"load_params: got {name!r} of shape {tuple(value.shape)}, the network {found}.")
            state[name].copy_(value)


DEFAULTS = {"select_params": SelectParams(), "load_params": LoadParams()}
