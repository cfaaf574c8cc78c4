"""Settings in YAML files, read through mmengine's Config, and one layer of them over another."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pdiff.runtime.errors import PdiffError, check_section

EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`; a section of another `type` replaces the whole section."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merge(old, value) if both and value.get("type", old.get("type")) == old.get("type") else value
    return result


def numbers(value: Any) -> Any:
    """Return a value in which texts like `1e-3` are numbers: YAML 1.1, which PyYAML reads, wants `1.0e-3`."""
    if isinstance(value, Mapping):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [numbers(item) for item in value]
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the plain values of a YAML config, its `_base_` files included.

    Raises:
        PdiffError: the file is missing or is no valid config; the line names it.
    """
    if not Path(path).is_file():
        raise PdiffError(f"config: got {str(path)!r}, which is no file. Check the path.")
    if Path(path).suffix not in (".yaml", ".yml"):
        raise PdiffError(f"config: got {str(path)!r}, expected a .yaml file.")
    try:
        return numbers(Config.fromfile(str(path)).to_dict())
    except Exception as error:  # mmengine and the YAML parser raise many kinds
        raise PdiffError(f"config {path}: cannot be read ({' '.join(str(error).split())}).") from error


def named(section: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a section whose `type` is a text, which a file can hold; see `name_of`."""
    check_section(section, where)
    return {**section, "type": name_of(section.get("type"))}


def name_of(kind: Any) -> str:
    """Return the text that stands for a `type` in a file: a name as it is, a class or function as `module:name`."""
    return f"{kind.__module__}:{kind.__qualname__}" if callable(kind) else kind
