"""The frozen network of a collection, and whether a hook has left it as it was."""

from typing import TYPE_CHECKING

import torch

from pdiff.runtime.delivery import to_host
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_tensors
from pdiff.weights.ties import frozen_names

if TYPE_CHECKING:
    from pdiff.run.run import Run


def check_frozen(run: "Run", hook: str = "collect") -> None:
    """Raise a `PdiffError` when a hook changed what is not selected: no candidate would be what was trained."""
    base = read_tensors(run.directory.base)
    state, names = run.built.model.state_dict(), [*frozen_names(run.built.model, run.selected)]
    for name, tensor in zip(names, to_host([state[name] for name in names]), strict=True):
        if not torch.equal(tensor, base[name]):
            raise PdiffError(
                f"plugin {run.name}: {hook} changed {name!r}, which is not selected. "
                "Freeze it (running statistics: keep the layer in eval mode), or select it."
            )
