"""Nested training states as named tensors, so that they are kept without pickle."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdiff.runtime.delivery import to_host
from pdiff.runtime.errors import PdiffError


def pack(value: Any) -> dict[str, Tensor]:
    """Return nested dicts, lists, tuples, tensors and plain values as tensors, the nesting itself as JSON bytes.

    Raises:
        PdiffError: something else is among the values.
    """
    tensors: list[Tensor] = []

    def node(item: Any) -> Any:
        if isinstance(item, Tensor):
            tensors.append(item.detach())
            return {"tensor": len(tensors) - 1}
        if isinstance(item, Mapping):
            return {"dict": [[node(key), node(inner)] for key, inner in item.items()]}
        if isinstance(item, list | tuple):
            return {"tuple" if isinstance(item, tuple) else "list": [node(inner) for inner in item]}
        if item is None or isinstance(item, bool | int | float | str):
            return item
        if isinstance(item, np.generic):
            return item.item()
        raise PdiffError(f"collect: a training state holds a {type(item).__name__}, which cannot be kept for --resume.")

    tree = json.dumps(node(value))
    pairs = zip(to_host(tensors), tensors, strict=True)
    kept = [host.clone() if own.device.type == "cpu" else host for host, own in pairs]
    numbered = {str(number): tensor for number, tensor in enumerate(kept)}
    return {**numbered, "tree": torch.tensor(list(tree.encode()), dtype=torch.uint8)}


def unpack(tensors: Mapping[str, Tensor]) -> Any:
    """Return what `pack` was given."""

    def value(item: Any) -> Any:
        if not isinstance(item, dict):
            return item
        ((kind, content),) = item.items()
        if kind == "tensor":
            return tensors[str(content)].clone()
        if kind == "dict":
            return {value(key): value(inner) for key, inner in content}
        return (tuple if kind == "tuple" else list)(value(inner) for inner in content)

    return value(json.loads(bytes(tensors["tree"].tolist()).decode()))
