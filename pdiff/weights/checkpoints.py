"""State dicts in files: `.safetensors`, `.pth` and `.pt`, read without running any code, and written."""

import glob
import io
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_tensors, write_bytes, write_tensors
from pdiff.weights.ties import first_names

SUFFIXES = (".safetensors", ".pth", ".pt")
NESTED = ("state_dict", "model")
# What mmengine's checkpoints hold beside tensors: the history of the log's values, with the methods that sum it up.
LEFT_OUT = (
    "builtins.getattr",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
)


class LeftOut:
    """Takes the place of whatever in a checkpoint is neither a tensor nor plain, so that none of it is built."""

    def __init__(self, *args: Any):
        """Take any arguments."""

    def __setstate__(self, state: Any) -> None:
        """Take any state."""


def find_checkpoints(pattern: str) -> list[Path]:
    """Return the checkpoint files of a folder or a glob, numbers in their names in numerical order.

    Raises:
        PdiffError: nothing matches.
    """
    where = str(Path(glob.escape(pattern)) / "*") if Path(pattern).is_dir() else pattern
    paths = [Path(p) for p in glob.glob(where, recursive=True) if p.endswith(SUFFIXES)]
    if not paths:
        raise PdiffError(f"checkpoints.files: got {pattern!r}, which matches no {', '.join(SUFFIXES)} file.")
    return sorted(paths, key=lambda p: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", str(p))])


def load_state_dict(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of a checkpoint file on the CPU.

    Args:
        path: a safetensors file, or a file of `torch.save`, which is loaded weights-only; a state dict that is
            nested under `state_dict` or `model` is found.
        prefix: taken away from each name that has it, `module.` for instance.

    Raises:
        PdiffError: the file cannot be read, holds more than tensors, or no state dict is found in it.
    """
    path = Path(path)
    content = read_tensors(path) if path.suffix == ".safetensors" else _load_weights_only(path)
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise PdiffError(f"{path}: holds no state dict, neither at the top nor under {' or '.join(NESTED)}.")
    return {name.removeprefix(prefix): value for name, value in content.items() if isinstance(value, Tensor)}


def _load_weights_only(path: Path):
    try:
        with torch.serialization.safe_globals([(LeftOut, name) for name in LEFT_OUT]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise PdiffError(
            f"{path}: is damaged or holds objects other than tensors, and reading it could run code. "
            "Save the state dict alone, best as safetensors."
        ) from None
    except Exception as error:  # torch raises many kinds over a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PdiffError(f"{path}: cannot be read ({reason}). It is missing or corrupt.") from None


def export_state_dict(model: nn.Module, path: Path) -> None:
    """Write a network's state dict in the format of the file's suffix.

    A safetensors file holds a tied tensor once and names its other names in the metadata, as safetensors' own
    `save_model` does, so that `load_model` puts it back into a network with these ties.

    Raises:
        PdiffError: the suffix is none of `.safetensors`, `.pth` and `.pt`.
    """
    check_suffix(path, SUFFIXES)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if path.suffix == ".safetensors":
        aliases = {name: first for name, first in first_names(model).items() if name != first}
        write_tensors(path, {name: state[name] for name in state if name not in aliases}, aliases or None)
    else:
        save_checkpoint(path, state)


def check_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """Raise a `PdiffError` for a file to be written whose suffix stands for no known format."""
    if path.suffix not in suffixes:
        raise PdiffError(f"--output: got {str(path)!r}, expected a name that ends in {', '.join(suffixes)}.")


def save_checkpoint(path: Path, content: Any) -> None:
    """Write what `torch.save` makes of `content`, atomically."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())
