"""Checkpoints as OpenMMLab's libraries write and read them."""

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pdiff import PdiffError
from pdiff.weights.checkpoints import check_suffix, export_state_dict, load_state_dict, save

# What mmengine's checkpoints hold beside tensors: the history of the log's values.
SAFE = (
    ("mmengine.logging.history_buffer", "HistoryBuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.dtypes", "Float64DType"),
    ("numpy.dtypes", "Int64DType"),
)
RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
SCALAR = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def load_weights(model: nn.Module, checkpoint: str) -> None:
    """Put the weights of a file or an address into a network, every tensor of it.

    Raises:
        PdiffError: the file cannot be had or read, or a tensor is missing, of no use, or of another shape.
    """
    path = fetch(checkpoint)
    with torch.serialization.safe_globals(safe_globals()):
        state = load_state_dict(path)
    own = model.state_dict()
    unknown = [name for name in state if name not in own]
    missing = [name for name in own if name not in state]
    unfit = [name for name in own if name in state and own[name].shape != state[name].shape]
    if unfit:
        shapes = f"{tuple(state[unfit[0]].shape)}, expected {tuple(own[unfit[0]].shape)}"
        raise misfit(checkpoint, f"{unfit[0]} has the shape {shapes}")
    if missing or unknown:
        lacks = f"it lacks {missing[0]!r}" if missing else f"the network has no {unknown[0]!r}"
        raise misfit(checkpoint, f"{lacks}; {len(missing)} missing, {len(unknown)} unknown")
    model.load_state_dict(state)


def misfit(checkpoint: str, reason: str) -> PdiffError:
    """Return the error of a checkpoint that does not fit."""
    return PdiffError(
        f"task.model.checkpoint: {checkpoint} does not fit the network of task.model.config ({reason}). "
        "Give the config that it was trained with."
    )


def safe_globals() -> list[Any]:
    """Return what a checkpoint may hold beside tensors; none of it runs code when it is read."""
    import numpy as np

    found = [getattr(importlib.import_module(module), name) for module, name in SAFE]
    core = importlib.import_module("numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core")
    return [
        *found,
        *((core.multiarray._reconstruct, name) for name in RECONSTRUCT),
        *((core.multiarray.scalar, name) for name in SCALAR),
    ]


def fetch(checkpoint: str) -> Path:
    """Return the local file of a checkpoint; one at an address is downloaded once, into torch's hub folder."""
    if not checkpoint.startswith(("http://", "https://")):
        return Path(checkpoint)
    path = Path(torch.hub.get_dir()) / "checkpoints" / checkpoint.rpartition("/")[2]
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(checkpoint, str(path))
    except OSError as error:
        line = f"task.model.checkpoint: {checkpoint} cannot be fetched ({error})."
        raise PdiffError(f"{line} Download it elsewhere and give the file.") from None
    return path


def export_checkpoint(model: nn.Module, path: Path) -> None:
    """Write a checkpoint with its meta data, and beside it, as `.py`, the config that it belongs to.

    Both together are what mmdet's `init_detector(config, checkpoint)` and mmseg's `init_model(config, checkpoint)`
    take; the network holds the config as `cfg` and the meta data as `dataset_meta`, as these functions leave it. A name
    that ends in `.safetensors` gets the state dict alone.

    Raises:
        PdiffError: the suffix stands for no known format.
    """
    check_suffix(path, (".pth", ".safetensors"))
    if path.suffix == ".safetensors":
        export_state_dict(model, path)
        return
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    meta = {"dataset_meta": plain(model.dataset_meta), "experiment_name": path.stem}
    save(path, {"meta": meta, "state_dict": state})
    model.cfg.dump(str(path.with_suffix(".py")))


def plain(value: Any) -> Any:
    """Return nested values with tuples and lists only, so that a checkpoint needs no trust to be read."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value.tolist() if hasattr(value, "tolist") else value
