"""What a stage costs: seconds and the peak of memory."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Yield a dict that holds, after the block, its `seconds` and `peak_memory_bytes` (resident, plus GPU)."""
    cost: dict[str, float] = {}
    reset_peak_memory()
    start = time.monotonic()
    yield cost
    cost["seconds"] = round(time.monotonic() - start, 3)
    cost["peak_memory_bytes"] = peak_memory()


def reset_peak_memory() -> None:
    """Let the peak of this process start anew, where the system can do that (Linux)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    path = Path("/proc/self/clear_refs")
    if path.exists():
        try:
            path.write_text("5")
        except OSError:
            return  # in a sandbox that forbids it the peak is that of the whole process


def peak_memory() -> int:
    """Return the peak resident memory in bytes since the last reset, plus the peak of GPU memory."""
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024 + gpu
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit + gpu
