"""A network with the weights of a file."""

from pathlib import Path

from torch import nn

from pdiff import PdiffError, load_state_dict


def load_checkpoint(model: nn.Module, checkpoint: str | None, prefix: str) -> nn.Module:
    """Return `model` with the weights of a state-dict file, every name matched; as it is without one."""
    if checkpoint is None:
        return model
    try:
        model.load_state_dict(load_state_dict(Path(checkpoint), prefix))
    except RuntimeError as error:
        raise PdiffError(f"{checkpoint}: does not fit the network ({' '.join(str(error).split())}).") from None
    return model
