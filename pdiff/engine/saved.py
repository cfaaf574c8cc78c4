"""A saved engine: a folder of safetensors, one file for each part, and of JSON, without pickle."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from pdiff.engine.decoder import load_part, load_trained, trained
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json, write_json, write_tensors

FORMAT = 3
KEYS = ("config", "seed", "width", "layout")  # of a description


def write_engine(
    folder: Path,
    parts: Mapping[str, nn.Module],
    tuned: nn.Module | None,
    history: Mapping[str, Any],
    description: Mapping[str, Any],
) -> None:
    """Write an engine to a folder, its description last.

    Args:
        folder: where.
        parts: the modules by name.
        tuned: the decoder that was tuned; None without.
        history: the losses of its trainings.
        description: what else it is made from again; see `read_description`.
    """
    for name, part in parts.items():
        write_tensors(folder / f"{name}.safetensors", part.state_dict())
    if tuned is not None:
        write_tensors(folder / "decoder.safetensors", trained(tuned))
    write_json(folder / "history.json", history)
    write_json(folder / "engine.json", json.loads(json.dumps({"format": FORMAT, **description})))


def read_description(folder: Path) -> dict[str, Any]:
    """Return what was written of an engine beside its tensors; raise a `PdiffError` where it is of another format."""
    if not (folder / "engine.json").is_file():
        raise PdiffError(f"{folder}: has no engine.json. Give a folder that `ParameterDiffusion.save` wrote.")
    description = read_json(folder / "engine.json")
    found = description.get("format") if isinstance(description, dict) else None
    missing = [key for key in KEYS if key not in description] if found == FORMAT else []
    if missing:
        raise PdiffError(f"{folder / 'engine.json'}: lacks {missing[0]!r}. Fit again.")
    if found != FORMAT:
        raise PdiffError(f"{folder / 'engine.json'}: got format {found!r}, expected {FORMAT}. Fit again.")
    return description


def read_parts(folder: Path, parts: Mapping[str, nn.Module]) -> None:
    """Give modules what was written of those of the same names; raise a `PdiffError` where it does not fit."""
    for name, part in parts.items():
        load_part(folder / f"{name}.safetensors", part.load_state_dict, "engine.json")


def read_tuned(folder: Path, decoder: nn.Module) -> None:
    """Give a decoder what was written of the tuned one; raise a `PdiffError` where it does not fit."""
    load_part(folder / "decoder.safetensors", partial(load_trained, decoder), "engine.json")
