"""Arithmetic that a GPU repeats: torch's flags for it, set for a while and given back.

On a CPU torch repeats itself without them, so nothing is touched there. On a GPU every operator that has a
deterministic kernel uses it; one that has none is named in a line, and may differ in its last digits from run to run.
"""

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.backends import cuda, cudnn, mkldnn

logger = logging.getLogger("pdiff")
T = TypeVar("T")
WORKSPACE, SIZE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
TF32 = (cuda.matmul, cudnn.conv, cudnn.rnn)  # what may round float32 to ten bits of mantissa
NONE_SUCH = re.compile(
    r"(.+?) (does not have a deterministic implementation|defaults to a non-deterministic algorithm)"
)


def prepare(device: torch.device) -> None:
    """Give cuBLAS, before its first product, the workspace with which it repeats itself, unless the user has."""
    if device.type == "cuda":
        os.environ.setdefault(WORKSPACE, SIZE)


@contextmanager
def exact(device: torch.device | None = None) -> Iterator[None]:
    """Compute repeatably inside the block, and give the flags back after it.

    A block in a block sets the flags again: a library may have changed them, as mmengine's Runner does for the
    `cudnn_benchmark` of a config.

    Args:
        device: that computes; nothing is set for a CPU. None: the GPU, where there is one.
    """
    with given_back():
        if (device.type if device else "cuda") != "cuda" or not torch.cuda.is_available():
            yield
            return
        prepare(torch.device("cuda"))
        with told_once():
            set_flags()
            yield


def set_flags() -> None:
    """Set the flags by which a GPU repeats what it computes."""
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = True, False, False
    torch.set_float32_matmul_precision("highest")
    for operation in TF32:
        operation.fp32_precision = "ieee"
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, and finds mistakes only


@contextmanager
def given_back() -> Iterator[None]:
    """Let the flags after the block be those before it, whatever a library in it has set."""
    own = cudnn.deterministic, cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tf32, product = readable(lambda: cudnn.allow_tf32), readable(torch.get_float32_matmul_precision)
    products = (*TF32, mkldnn.matmul)  # the last is a CPU's, which `set_float32_matmul_precision` sets too
    precisions = [operation.fp32_precision for operation in products]
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory = own
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        if tf32 is not None:
            cudnn.allow_tf32 = tf32
        if product is not None:
            torch.set_float32_matmul_precision(product)
        for operation, precision in zip(products, precisions, strict=True):
            operation.fp32_precision = precision


def readable(get: Callable[[], T]) -> T | None:
    """Return a flag; None where torch refuses to say it, as it does once someone has set it by its newer name."""
    try:
        return get()
    except RuntimeError:
        return None


@contextmanager
def told_once() -> Iterator[None]:
    """Say in one line for each operation that it has no deterministic kernel, in place of torch's warnings of it."""
    known: set[str] = set()

    def tell(message: Warning | str, *where: Any) -> None:
        found = NONE_SUCH.match(str(message))
        if found is None:
            show(message, *where)
        elif found[1] not in known:
            known.add(found[1])
            logger.warning("%s has no deterministic kernel: its last digits may differ from run to run", found[1])

    with warnings.catch_warnings():
        show = warnings.showwarning
        warnings.filterwarnings("always", NONE_SUCH.pattern)
        warnings.showwarning = tell
        yield


def flags() -> dict[str, bool | str | None]:
    """Return the flags in force as JSON has them: what a GPU repeats, and how exactly it multiplies."""
    enabled, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    return {
        "deterministic_algorithms": ("where there are any" if warns else "always") if enabled else "no",
        "cudnn_deterministic": cudnn.deterministic,
        "cudnn_benchmark": cudnn.benchmark,
        "tf32_products": cuda.matmul.fp32_precision == "tf32",
        "tf32_convolutions": cudnn.conv.fp32_precision == "tf32",
        "cublas_workspace": os.environ.get(WORKSPACE),
    }
