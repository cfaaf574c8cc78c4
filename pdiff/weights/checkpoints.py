"""State dicts written into files: `.safetensors`, `.pth` and `.pt`."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import write_bytes, write_tensors
from pdiff.weights.ties import first_names

SUFFIXES = (".safetensors", ".pth", ".pt")


def export_state_dict(model: nn.Module, path: Path) -> None:
    """Write a network's state dict in the format of the file's suffix.

    A safetensors file holds a tied tensor once and has its other names in the metadata, as safetensors' own
    `save_model` writes it, so that `load_model` puts it into a network with these ties. That cannot be done for views
    of another order in memory, which are written one by one.

    Raises:
        PdiffError: the suffix is none of `.safetensors`, `.pth` and `.pt`.
    """
    check_suffix(path, SUFFIXES)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if path.suffix == ".safetensors":
        tied = {name: first for name, first in first_names(model).items() if name != first}
        aliases = {n: first for n, first in tied.items() if state[n].is_contiguous() and state[first].is_contiguous()}
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
