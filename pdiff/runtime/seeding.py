"""Randomness that depends on names and numbers only, never on what ran before."""

import hashlib
import random
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from pdiff.runtime.errors import PdiffError

TYPES = ("cpu", "cuda")


def derive_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed that belongs to `seed` and the sequence of `names`."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on `device`, seeded by `derive_seed`."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *names))


def normal(shape: torch.Size, rng: torch.Generator) -> Tensor:
    """Return N(0, 1) numbers from a generator, on its device."""
    return torch.randn(shape, generator=rng, device=rng.device)


def seed_all(seed: int, cuda: bool = True) -> None:
    """Seed the global generators of Python, numpy and torch; `cuda=False` leaves those of the GPUs alone."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    (torch.manual_seed if cuda else torch.default_generator.manual_seed)(seed)


@contextmanager
def isolated_seed(seed: int, cuda: bool = True):
    """Seed Python, numpy and torch inside the block, and give the caller's random state back after it.

    Args:
        seed: of the block.
        cuda: whether the block draws on GPUs; a data worker must not touch them. None is touched that this process
            has not begun to use: a run on the CPU takes no memory of a GPU.
    """
    python, numpy_state = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if cuda and torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        seed_all(seed, cuda)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` means the current GPU, else the CPU.

    A GPU comes with its number: which one is current differs from thread to thread.

    Raises:
        PdiffError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        return resolve_device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in TYPES:
            raise TypeError(f"pdiff needs double precision too, and computes on {' and '.join(TYPES)} alone")
        torch.zeros(1, device=device).item()
    except Exception as error:  # torch raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        line = f"device: got {name!r}, which cannot be used here ({reason}). Use auto, cpu or cuda."
        raise PdiffError(line) from None
    if device.type == "cpu":
        return torch.device("cpu")  # torch takes cpu:1 for another device than that of its own tensors
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())


def current(device: torch.device) -> AbstractContextManager:
    """Return a block in which a GPU is the current one, on which libraries that are told none compute and measure."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
