"""What a run ran on: versions, machine, git commit."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "pdiff", "torch", "torchvision", "onedl-mmengine", "mmengine", "onedl-mmcv", "onedl-mmdetection",
    "onedl-mmsegmentation", "faster-coco-eval", "diffusers", "timm", "torchmetrics", "torch-fidelity",
    "numpy", "scipy", "scikit-learn",
)


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions, machine and git commit."""
    return {
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": name_of(device),
        "git_commit": _git_commit(),
    }


def name_of(device: torch.device) -> str:
    """Return what a device is: the name of a GPU, else its type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


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
