"""What a stage costs: seconds and the peak of memory; and what memory there is."""

import resource
import sys
import time
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")


class Stopwatch:
    """Measures from its making to the first `stop`; the peak of memory is the process's own, so one runs at a time."""

    def __init__(self):
        reset_peak_memory()
        self.start = time.monotonic()
        self.cost: dict[str, float] | None = None

    def stop(self) -> dict[str, float]:
        """Return `seconds` and `peak_memory_bytes` (resident, plus GPU); later calls return the same."""
        if self.cost is None:
            seconds = round(time.monotonic() - self.start, 3)
            self.cost = {"seconds": seconds, "peak_memory_bytes": peak_memory()}
        return self.cost


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
    highest = kilobytes(Path("/proc/self/status"), "VmHWM")
    if highest is not None:
        return highest * 1024 + gpu
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit + gpu


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
