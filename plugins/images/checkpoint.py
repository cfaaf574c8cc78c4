"""A network with the weights of a file."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from pdiff import Reader


def load_checkpoint(
    model: nn.Module,
    checkpoint: str | None,
    key: str | None = None,
    prefix: str = "",
    rename: Mapping[str, str] | None = None,
    cast: bool = False,
) -> nn.Module:
    """Return `model` with the weights of a file, every name matched; as it is without one.

    Args:
        model: the network.
        checkpoint: the file.
        key, prefix, rename, cast: as `checkpoints` has them (docs/files.md).
    """
    if checkpoint is not None:
        Reader(model, "task.network", key, prefix, rename, cast).load(Path(checkpoint))
    return model
