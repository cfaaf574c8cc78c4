"""Pickles of `torch.save`, read without importing, building or calling anything that they name.

Tensors become notes of where their values stand; what is harmless becomes an empty shell that keeps the items of
mappings; any other name is an error. torch's own weights-only unpickler refuses most of what stands beside weights.
"""

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import torch

from pdiff.files.harmless import is_harmless, present_name
from pdiff.files.stored import DTYPES, Storage, Stored, Values, view


class Shell(dict):
    """Takes the place of an object that is not built: takes whatever it is given, keeps the items of mappings."""

    __slots__ = ("state",)
    NAME = ""
    __hash__, __eq__ = object.__hash__, object.__eq__

    def __new__(cls, *args: Any, **kwargs: Any) -> "Shell":
        """Take any arguments."""
        shell = super().__new__(cls)
        shell.state = None
        return shell

    def __init__(self, *args: Any, **kwargs: Any):
        for given in args:
            if isinstance(given, dict):
                self.update(given)
            elif isinstance(given, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in given):
                self.update(pair for pair in given if isinstance(pair[0], str))

    def __setstate__(self, state: Any) -> None:
        """Keep a state, of which nothing becomes an attribute."""
        self.state = state

    def __call__(self, *args: Any, **kwargs: Any) -> "Shell":
        """Take any arguments."""
        return Shell()

    def append(self, *items: Any) -> None:
        """Take items of lists and sets."""

    add = extend = append


class Unnamed:
    """What a pickle's name for a function of torch stands for; it can be called, and not changed."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any) -> Any:
        """Note what the function would return."""
        return self._call(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse any change."""
        raise TypeError("a function has no attributes to set")

    def __setstate__(self, state: Any) -> None:
        """Refuse any state."""
        raise TypeError("a function has no state")


def unread(kind: str, *args: Any) -> Stored:
    """Return a tensor of a kind that is not read."""
    return Stored(None, (), load=lambda: None, mark=object, place=object(), kind=kind)


def rebuilt(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Stored:
    """Return a plain tensor; `rest` is whether it needs gradients, its hooks, and what else torch says of it."""
    flags = rest[2] if len(rest) > 2 and isinstance(rest[2], dict) else {}
    return unread("conjugated or negated lazily") if any(flags.values()) else view(storage, offset, shape, stride)


def rebuilt_of_type(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Stored:
    """Return a tensor of a type that has no class of storages; it stands in `rest` after gradients and hooks."""
    if not isinstance(rest[2], torch.dtype):
        raise ValueError("a tensor without a type")
    return view(storage, offset, shape, stride, rest[2])


def rebuilt_subclass(function: Any, cls: Any, args: Any, state: Any) -> Any:
    """Return a tensor of a class of its own as a plain one."""
    return function(*args) if isinstance(function, Unnamed) else Shell()


def first(data: Any, *rest: Any) -> Any:
    """Return what a parameter or a tensor of another device holds."""
    return data


FUNCTIONS = {
    "torch._utils._rebuild_tensor": rebuilt,
    "torch._utils._rebuild_tensor_v2": rebuilt,
    "torch._utils._rebuild_tensor_v3": rebuilt_of_type,
    "torch._utils._rebuild_parameter": first,
    "torch._utils._rebuild_parameter_with_state": first,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": first,
    "torch.nn.parameter.Parameter": first,
    "torch.autograd.variable.Variable": first,
    "torch._tensor._rebuild_from_type": rebuilt_subclass,
    "torch._tensor._rebuild_from_type_v2": rebuilt_subclass,
    "torch._utils._rebuild_sparse_tensor": partial(unread, "sparse"),
    "torch._utils._rebuild_sparse_csr_tensor": partial(unread, "sparse"),
    "torch._utils._rebuild_qtensor": partial(unread, "quantized"),
    "torch._utils._rebuild_meta_tensor_no_storage": partial(unread, "on the meta device, without values"),
    "torch._utils._rebuild_nested_tensor": partial(unread, "nested"),
    "torch._utils._rebuild_wrapper_subclass": partial(unread, "of a class of its own"),
    "torch._utils._rebuild_device_tensor_from_numpy": partial(unread, "of another device"),
}


class Unpickler(pickle.Unpickler):
    """Reads one pickle after another from a file.

    Args:
        file: the pickle.
        values: the storages of the file.
        unknown: takes the names that are neither tensors' nor harmless.
    """

    def __init__(self, file: BinaryIO, values: Values, unknown: list[str]):
        super().__init__(file, encoding="latin1")  # as Python 2 wrote texts and bytes alike
        self._values, self._unknown, self._shells = values, unknown, {}
        self.dtypes: dict[str, torch.dtype] = {}  # of the storages that were named

    def find_class(self, module: str, name: str) -> Any:
        """Return what takes the place of a class or function."""
        dotted = present_name(module, name)
        if dotted in FUNCTIONS:
            return Unnamed(FUNCTIONS[dotted])
        if dotted == "builtins.getattr":
            return Unnamed(self._attribute)
        if module.partition(".")[0] == "torch" and name.endswith("Storage") and name[:-7] in DTYPES:
            return DTYPES[name[:-7]]
        if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
        return self._shell(dotted)

    def _shell(self, name: str) -> type[Shell]:
        if not is_harmless(name) and name not in self._unknown:
            self._unknown.append(name)
        return self._shells.setdefault(name, type("Shell", (Shell,), {"__slots__": (), "NAME": name}))

    def _attribute(self, owner: Any, name: Any) -> type[Shell]:
        of = owner.NAME if isinstance(owner, type) and issubclass(owner, Shell) else "getattr"
        return self._shell(f"{of}.{name}")

    def persistent_load(self, saved_id: Any) -> Any:
        """Return a storage, of which a pickle of torch has the type, the key and the number of values."""
        kind, *rest = saved_id if isinstance(saved_id, tuple) else [None]
        if kind == "module" and rest and isinstance(rest[0], type):
            return rest[0]  # a class, which torch before 1.6 named with its source
        if kind != "storage" or len(rest) not in (4, 5):
            raise pickle.UnpicklingError("a persistent id that is no storage")
        dtype, key, _, count, *views = rest
        start = 0
        if views and views[0] is not None:
            _, start, count = views[0]
        if not isinstance(dtype, torch.dtype) or not all(isinstance(n, int) and n >= 0 for n in (start, count)):
            raise pickle.UnpicklingError("a storage without type or size")
        self.dtypes[str(key)] = dtype
        return Storage(dtype, str(key), start * dtype.itemsize, count * dtype.itemsize, self._values)
