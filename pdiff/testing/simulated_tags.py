"""Which tensors are said to lie on the simulated GPU, and what crossed between it and the host."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
PINNED = "pinned"
OWN = (str(Path(torch.__file__).parent), str(Path(__file__).with_name("simulated_")), "<frozen")
real_device = Tensor.device.__get__


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def unwrapped(tensor: Tensor) -> Tensor:
    """Return the tensor that those of `torch.func` (of vmap, grad) are made of."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def place() -> str:
    """Return `file:line` of the innermost running code that belongs neither to torch nor to the simulation."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OWN):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class SimulatedGPU:
    """The only GPU of a simulation: what lies on it, and what its use would have cost.

    Attributes:
        copies_to_device: copies from the host; lists, arrays and index tensors of the host included.
        copies_to_host: copies to the host; single values (`item`, `float`, `if`) and `tolist` included.
        syncs: how often the host would have waited for the GPU.
        places: the lines that made it wait, as `file:line`, with how often.
        no_sync: the words of the blocks in which it must not wait.
    """

    def __init__(self):
        self.tags: dict[int, tuple[StorageWeakRef, Any]] = {}
        self.generators: WeakValueDictionary[int, torch.Generator] = WeakValueDictionary()
        self.sweep_at = 1000
        self.forbidden: list[str] = []
        self.reset()

    def reset(self) -> None:
        """Count from zero again."""
        self.copies_to_device = self.copies_to_host = self.syncs = 0
        self.places: Counter[str] = Counter()

    def tag_of(self, storage: UntypedStorage) -> Any:
        """Return the tag of a storage: the GPU, `PINNED` or None."""
        known = self.tags.get(storage._cdata)
        return None if known is None or known[0].expired() else known[1]

    def put(self, storage: UntypedStorage, tag: Any) -> None:
        """Tag a storage; None takes its tag away."""
        if tag is None:
            self.tags.pop(storage._cdata, None)
            return
        self.tags[storage._cdata] = StorageWeakRef(storage), tag
        if len(self.tags) > self.sweep_at:
            self.tags = {key: known for key, known in self.tags.items() if not known[0].expired()}
            self.sweep_at = 2 * len(self.tags) + 1000

    def device_of(self, tensor: Tensor) -> torch.device:
        """Return where a tensor is said to lie."""
        tensor = unwrapped(tensor)
        device = real_device(tensor)
        if device != CPU or tensor.layout is not torch.strided:
            return device
        return GPU if self.tag_of(tensor.untyped_storage()) == GPU else CPU

    def place(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Say that a new tensor lies on a device, and return it."""
        own = unwrapped(tensor)
        if real_device(own) == CPU and own.layout is torch.strided:
            self.put(own.untyped_storage(), GPU if device == GPU else None)
        return tensor

    def pinned(self, tensor: Tensor) -> bool:
        """Say whether a tensor lies in pinned memory of the host."""
        return self.tag_of(unwrapped(tensor).untyped_storage()) == PINNED

    def wait(self, why: str) -> None:
        """Count one wait of the host.

        Raises:
            AssertionError: inside `no_sync`.
        """
        where = place()
        if self.forbidden:
            raise AssertionError(f"{self.forbidden[-1]}: the host waits for the GPU ({why}) at {where}")
        self.syncs += 1
        self.places[where] += 1

    def upload(self, why: str, waits: bool = True) -> None:
        """Count a copy from the host."""
        self.copies_to_device += 1
        if waits:
            self.wait(why)

    def download(self, why: str, waits: bool = True) -> None:
        """Count a copy to the host."""
        self.copies_to_host += 1
        if waits:
            self.wait(why)

    def cross(self, source: Tensor, target: torch.device, non_blocking: bool, why: str) -> None:
        """Count the copy of a tensor to the other side; it is waited for, unless both sides allow for none."""
        if target == GPU:
            self.upload(why, waits=not (non_blocking and self.pinned(source)))
        else:
            self.download(why, waits=not non_blocking)

    @contextmanager
    def no_sync(self, what: str) -> Iterator[None]:
        """Let any wait of the host raise an `AssertionError` that names `what`, inside the block."""
        self.forbidden.append(what)
        try:
            yield
        finally:
            self.forbidden.pop()

    @contextmanager
    def hot(self, owner: Any, name: str) -> Iterator[None]:
        """Let any wait of the host inside calls of `owner.name` raise an `AssertionError`, inside the block.

        Args:
            owner: a class or a module.
            name: of one of its functions.
        """
        original, own = getattr(owner, name), name in vars(owner)

        def call(*args, **kwargs):
            with self.no_sync(name):
                return original(*args, **kwargs)

        setattr(owner, name, call)
        try:
            yield
        finally:
            setattr(owner, name, original) if own else delattr(owner, name)
