"""What a stage costs, and what it ran on."""

import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "pdiff", "torch", "torchvision", "onedl-mmengine", "mmengine", "onedl-mmcv", "onedl-mmdetection",
    "onedl-mmsegmentation", "faster-coco-eval", "diffusers", "timm", "torchmetrics", "torch-fidelity",
    "numpy", "scipy", "scikit-learn",
)


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


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions, machine and git commit."""
    return {
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
