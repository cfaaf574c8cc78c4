"""Memory that is used up, in one line: whose it is, how much there is, and what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pdiff.runtime.errors import PdiffError

UNITS = ("B", "kB", "MB", "GB", "TB")
# How torch says it outside of its own class: for a GPU's libraries, and for the host.
OF_GPU = re.compile(r"CUDA (error: )?out of memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED")
OF_HOST = re.compile(r"can't allocate memory|not enough memory|Cannot allocate memory")


def in_words(count: int) -> str:
    """Return bytes in words: `640 B`, `2.1 MB`."""
    value = float(count)
    for unit in UNITS[:-1]:
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.0f} {UNITS[-1]}"


@contextmanager
def explain_used_up(what: str, advice: str, device: torch.device) -> Iterator[None]:
    """Turn what is raised in the block where memory is used up into one line.

    Args:
        what: is being done.
        advice: what takes less memory, as a sentence goes on with it: `lower generate.batch_size`.
        device: that it computes on.

    Raises:
        PdiffError: the memory of the GPU, or of the host, is used up.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        on_gpu = isinstance(error, torch.OutOfMemoryError) or OF_GPU.search(str(error))
        if on_gpu and device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            found = f"GPU memory is used up ({in_words(total - free)} of {in_words(total)}). Give --device cpu"
        elif on_gpu or isinstance(error, MemoryError) or OF_HOST.search(str(error)):
            found = "memory is used up. End other programs"
        else:
            raise
        line = f"{what}: {found}: the same command with --resume then goes on. Or {advice}"
        raise PdiffError(f"{line}, with --resume --overwrite: what does not depend on it is kept.") from None
