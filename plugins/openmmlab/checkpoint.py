"""Checkpoints as OpenMMLab's libraries write and read them."""

import hashlib
import http.client
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pdiff import PdiffError, Reader, check_suffix, export_state_dict, save_checkpoint

CHECKSUM = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # in the names of published checkpoints


def load_weights(
    model: nn.Module,
    checkpoint: str,
    key: str | None = None,
    prefix: str = "",
    rename: Mapping[str, str] | None = None,
    cast: bool = False,
) -> None:
    """Put the weights of a file or an address into a network, every tensor of it.

    Args:
        model: the network.
        checkpoint: file or address.
        key, prefix, rename, cast: as `checkpoints` has them (docs/files.md).

    Raises:
        PdiffError: the file cannot be had or read, or a tensor is missing, of no use, or of another shape.
    """
    Reader(model, "task.model", key, prefix, rename, cast).load(fetch(checkpoint))


def fetch(checkpoint: str) -> Path:
    """Return the local file of a checkpoint; one at an address is downloaded once, into torch's hub folder.

    A name like `...-821213aa.pth` holds the beginning of the file's SHA-256, with which the download is compared.
    """
    if not checkpoint.startswith(("http://", "https://")):
        return Path(checkpoint)
    name = checkpoint.rpartition("/")[2]
    folder = hashlib.sha256(checkpoint.encode()).hexdigest()[:8]  # other addresses have files of the same name
    path = Path(torch.hub.get_dir()) / "checkpoints" / folder / name
    if path.is_file():
        return path
    checksum = CHECKSUM.search(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(checkpoint, str(path), checksum and checksum[1])
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
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
    save_checkpoint(path, {"meta": meta, "state_dict": state})
    model.cfg.dump(str(path.with_suffix(".py")))


def plain(value: Any) -> Any:
    """Return nested values with tuples and lists only, so that a checkpoint needs no trust to be read."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value.tolist() if hasattr(value, "tolist") else value
