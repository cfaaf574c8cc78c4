"""What a stage costs: seconds and the peaks of memory, the host's and a GPU's; and what memory there is."""

import resource
import sys
import time
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")
CPU = torch.device("cpu")


class Stopwatch:
    """Measures from its making to the first `stop`; the peak of memory is the process's own, so one runs at a time.

    Args:
        device: that is computed on; of a GPU its memory is measured too, and no other one is touched.
    """

    def __init__(self, device: torch.device = CPU):
        self.device = device
        reset_peak_memory(device)
        self.start = time.monotonic()
        self.cost: dict[str, float] | None = None

    def stop(self) -> dict[str, float]:
        """Return `seconds`, `peak_memory_bytes` and, of a GPU, `peak_gpu_memory_bytes`; later calls return the same."""
        if self.cost is None:
            seconds = round(time.monotonic() - self.start, 3)
            gpu = peak_gpu_memory(self.device)
            self.cost = {"seconds": seconds, "peak_memory_bytes": peak_memory()}
            self.cost |= {} if gpu is None else {"peak_gpu_memory_bytes": gpu}
        return self.cost


def reset_peak_memory(device: torch.device = CPU) -> None:
    """Let the peaks of this process start anew: the host's where the system can do that (Linux), and a GPU's.

    What torch holds of the GPU without need is given back, so that no peak counts what an earlier one left.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    path = Path("/proc/self/clear_refs")
    if path.exists():
        try:
            path.write_text("5")
        except OSError:
            return  # in a sandbox that forbids it the peak is that of the whole process


def peak_memory() -> int:
    """Return the peak of the host's memory since the last reset: what was resident of this process, in bytes."""
    highest = kilobytes(Path("/proc/self/status"), "VmHWM")
    if highest is not None:
        return highest * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_gpu_memory(device: torch.device) -> int | None:
    """Return the most bytes of a GPU that torch has reserved since the last reset; None where `device` is none.

    That is what others could not have: the tensors, and what torch keeps to place the next ones in.
    """
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


def free_memory() -> int | None:
    """Return the bytes that this process may have in all, those of its control group at most; None if not known."""
    free, own = kilobytes(Path("/proc/meminfo"), "MemAvailable"), kilobytes(Path("/proc/self/status"), "VmRSS")
    if free is None or own is None:
        return None
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    available = free * 1024
    if limit.exists() and limit.read_text().strip() != "max":
        available = min(available, int(limit.read_text()) - int(used.read_text()))
    return available + own * 1024


def resident_memory() -> int:
    """Return the resident memory of this process in bytes; 0 where the system does not say."""
    return (kilobytes(Path("/proc/self/status"), "VmRSS") or 0) * 1024


def kilobytes(path: Path, name: str) -> int | None:
    """Return a line of a file of the Linux kernel, such as `VmRSS: 1024 kB`; None without it."""
    if not path.exists():
        return None
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(lines[name].split()[0]) if name in lines else None
