"""A GPU for tests on a machine without one: real tensors of the CPU, some of which are said to lie on `cuda:0`.

Values, addresses and control flow stay the CPU's, so a run under the simulation ends with the CPU's bytes. What the
simulation finds: tensors of both sides in one operation, generators of the wrong side, arrays made of tensors of the
GPU, copies between both sides, and waits of the host. What it cannot find: faults of kernels, of dtypes and of
streams. The default generator of the GPU is the CPU's.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, UntypedStorage, nn

from pdiff.testing.simulated_modes import Here, Names, Operations, as_device
from pdiff.testing.simulated_tags import GPU, SimulatedGPU

MEMORY = 16 << 30
NAME = "simulated GPU"
_running: list[SimulatedGPU] = []


class Generator(torch.Generator):
    """A generator that says that it is the GPU's, and draws as the CPU's do."""

    def __new__(cls, device: Any = "cpu"):
        """Return a new generator of a device."""
        made = super().__new__(cls, "cpu")
        made.place = as_device(device)
        if made.place == GPU:
            _running[-1].generators[made._cdata] = made
        return made

    device = property(lambda self: self.place)


def properties(*_: Any) -> SimpleNamespace:
    """Return what `torch.cuda.get_device_properties` does."""
    known = {"major": 8, "minor": 0, "multi_processor_count": 1, "uuid": "0"}
    return SimpleNamespace(name=NAME, total_memory=MEMORY, **known)


def of_torch_cuda(gpu: SimulatedGPU, memory: int) -> dict[str, Any]:
    """Return what stands in `torch.cuda` during a simulation of a GPU with so many bytes, by name."""

    def set_device(device: Any) -> None:
        as_device(device)

    zeros = ("current_device", "max_memory_allocated", "memory_allocated", "max_memory_reserved", "memory_reserved")
    nothing = ("_lazy_init", "init", "empty_cache", "ipc_collect", "manual_seed", "manual_seed_all", "seed_all",
               "reset_peak_memory_stats", "reset_max_memory_allocated")  # fmt: skip
    return {
        **{name: lambda *_, **__: 0 for name in (*zeros, "_exchange_device", "_maybe_exchange_device")},
        **{name: lambda *_, **__: None for name in nothing},
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "is_bf16_supported": lambda *_, **__: True,
        "device_count": lambda: 1,
        "set_device": set_device,
        "mem_get_info": lambda *_: (memory, memory),
        "memory_stats": lambda *_: {},
        "get_device_name": lambda *_: NAME,
        "get_device_capability": lambda *_: (8, 0),
        "get_device_properties": properties,
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
        "set_rng_state_all": lambda states: torch.set_rng_state(states[0]),
        "synchronize": lambda *_: gpu.wait("synchronize"),
    }


def simulated_autocast(original):
    """Return an `autocast.__init__` that takes the CPU's for the GPU's."""

    def init(self, device_type: str, *args, **kwargs) -> None:
        original(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return init


def of_another_type(values: Any) -> bool:
    """Say whether a tensor has a type of its own; that Python's view is on is no reason for torch to go another way."""
    return any(isinstance(value, Tensor) and type(value) not in (Tensor, nn.Parameter) for value in values)


def simulated_clone(gpu: SimulatedGPU):
    """Return a `clone` of storages that keeps on the GPU what lies there."""

    def clone(storage: UntypedStorage) -> UntypedStorage:
        copy = type(storage)(storage.nbytes())
        gpu.put(copy, gpu.tag_of(storage))
        return copy.copy_(storage)

    return clone


def simulated_groups(gpu: SimulatedGPU, original):
    """Return torch's grouping of tensors by device and dtype, with the devices that they are said to lie on."""

    def group(lists, with_indices: bool = False) -> dict:
        found = original(lists, with_indices)
        first = {key: next(t for t in members[0][0] if t is not None) for key, members in found.items()}
        return {(gpu.device_of(first[key]), key[1]): members for key, members in found.items()}

    return group


@contextmanager
def in_files(gpu: SimulatedGPU) -> Iterator[None]:
    """Let `torch.save` and `torch.load` know the GPU, inside the block."""
    registry = torch.serialization._package_registry

    def tag(storage: Any) -> str | None:
        own = getattr(storage, "_untyped_storage", storage)
        return "cuda:0" if gpu.tag_of(own) == GPU else None

    def restore(storage: Any, location: str) -> Any:
        if not location.startswith("cuda"):
            return None
        as_device(location)
        gpu.put(getattr(storage, "_untyped_storage", storage), GPU)
        return storage

    entry = (0, tag, restore)
    registry.insert(0, entry)
    try:
        yield
    finally:
        registry.remove(entry)


@contextmanager
def modes(gpu: SimulatedGPU) -> Iterator[None]:
    """Let a thread see the GPU, inside the block: torch's modes are one for each thread."""
    here = Here()
    with Operations(gpu, here), Names(gpu, here):
        yield


@contextmanager
def simulated_cuda(memory: int = MEMORY) -> Iterator[SimulatedGPU]:
    """Let `torch.device("cuda")` work, inside the block, without a GPU.

    Threads that are started inside see the GPU too; processes that are forked inside do, others do not. A block inside
    another gets the same GPU. Behind the block all tensors are the CPU's again.

    Args:
        memory: bytes that the GPU says it has, all of them free whatever lies there.

    Yields:
        The GPU, which counts copies and waits.
    """
    if _running:
        yield _running[-1]
        return
    gpu, run = SimulatedGPU(), threading.Thread.run

    def run_in_thread(thread: threading.Thread) -> None:
        with modes(gpu):
            run(thread)

    autocast = torch.amp.autocast_mode.autocast
    groups = torch._C._group_tensors_by_device_and_dtype
    with ExitStack() as held:
        for name, value in of_torch_cuda(gpu, memory).items():
            held.enter_context(mock.patch.object(torch.cuda, name, value))
        for owner, name, value in (
            (torch, "Generator", Generator),
            (torch.overrides, "has_torch_function", of_another_type),
            (torch.accelerator, "current_stream", lambda *_: SimpleNamespace(is_capturing=lambda: False)),
            (autocast, "__init__", simulated_autocast(autocast.__init__)),
            (torch.storage._StorageBase, "clone", simulated_clone(gpu)),
            (torch._C, "_group_tensors_by_device_and_dtype", simulated_groups(gpu, groups)),
            (threading.Thread, "run", run_in_thread),
        ):
            held.enter_context(mock.patch.object(owner, name, value))
        held.enter_context(in_files(gpu))
        _running.append(gpu)
        held.callback(_running.pop)
        held.callback(gpu.tags.clear)
        held.enter_context(modes(gpu))
        yield gpu
