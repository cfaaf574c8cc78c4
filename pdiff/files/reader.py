"""One file after another into the names, shapes and types of one network."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from pdiff.runtime.errors import PdiffError
from pdiff.weights.checkpoints import load_state_dict


class Reader:
    """Reads files into the names, shapes and types of one network.

    Args:
        model: the network.
        where: what error lines begin with: the section of the config that names the file.
        key: where in a file the state dict stands; default: wherever the only one is.
        prefix: taken away from each name in a file.
        rename: regular expressions and what takes the place of their matches in names, one after another.
    """

    def __init__(
        self,
        model: nn.Module,
        where: str = "checkpoints",
        key: str | None = None,
        prefix: str = "",
        rename: Mapping[str, str] | None = None,
    ):
        self.model, self.where, self.key, self.prefix, self.rename = model, where, key, prefix, rename or {}

    def read(self, path: Path) -> dict[str, Tensor]:
        """Return those tensors of a file that the network has, by the network's names; a part of it may be missing."""
        found = load_state_dict(path, self.prefix)
        return {name: found[name] for name in self.model.state_dict() if name in found}

    def load(self, path: Path) -> None:
        """Put a file into the network; raise a `PdiffError` where a tensor of it is missing."""
        found = self.read(path)
        missing = [name for name in self.model.state_dict() if name not in found]
        if missing:
            raise PdiffError(f"{path}: lacks {missing[0]!r}. Set {self.where}.prefix, or give a file of this network.")
        self.model.load_state_dict(found)
