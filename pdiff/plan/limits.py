"""What a run may use: the memory and the disk that are free now."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pdiff.plan.prediction import Plan, size
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.seeding import resolve_device

CGROUP = Path("/sys/fs/cgroup")
REASONS = ("allocate memory", "bad_alloc", "out of memory")  # what torch says when the system gives it no memory


@dataclass(frozen=True)
class Limits:
    """Bytes that this process may have.

    Attributes:
        memory: resident, what it has already included, plus those of the GPU; None where the system does not say.
        disk: free where the run directory will be.
    """

    memory: int | None
    disk: int


def limits_now(work_dir: Path, device: str) -> Limits:
    """Return what is free now for a run in `work_dir` on the device that the config names."""
    found = resolve_device(device)
    gpu = torch.cuda.mem_get_info(found)[0] if found.type == "cuda" else 0
    free = free_memory()
    return Limits(None if free is None else free + resident() + gpu, shutil.disk_usage(existing_parent(work_dir)).free)


def existing_parent(path: Path) -> Path:
    """Return the closest folder above `path` that is there."""
    return next(parent for parent in Path(path).absolute().parents if parent.is_dir())


def free_memory() -> int | None:
    """Return the bytes that processes can still have, those of this process's control group at most."""
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    free = _kilobytes(path, "MemAvailable")
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if not limit.exists() or limit.read_text().strip() == "max":
        return free
    return min(free, int(limit.read_text()) - int(used.read_text()))


def resident() -> int:
    """Return the resident memory of this process in bytes; 0 where the system does not say."""
    path = Path("/proc/self/status")
    return _kilobytes(path, "VmRSS") if path.exists() else 0


def _kilobytes(path: Path, name: str) -> int:
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


@contextmanager
def memory_limit(more: int | None) -> Iterator[None]:
    """Let the block have at most `more` bytes more (Linux): beyond, an allocation fails and ends no process.

    Args:
        more: None for no limit.
    """
    path = Path("/proc/self/status")
    if more is None or not path.exists():
        yield
        return
    import resource

    old = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _kilobytes(path, "VmData") + more
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, old)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is that of an allocation which failed."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(reason in str(error).lower() for reason in REASONS)


def advice(stage: str, config: Mapping[str, Any]) -> str:
    """Return what to change in the config so that a stage takes less memory."""
    if stage == "fit" and config["engine"]["autoencoder_training"]["steps"]:
        return "Lower engine.autoencoder_training.batch_size, or select fewer parameters (select)."
    return {
        "collect": "Lower the batch size in collect, or take a smaller network (task).",
        "fit": "Select fewer parameters (select), or collect fewer checkpoints (collect).",
        "generate": "Lower generate.batch_size, or generate.num.",
        "evaluate": "Lower the batch size of the evaluation (task), or num in evaluate.sources.",
        "compare": "Lower generate.num and num in evaluate.sources, or select fewer parameters (select).",
    }[stage]


def too_much_memory(stage: str, needed: str, limits: Limits, config: Mapping[str, Any]) -> PdiffError:
    """Return the error of a stage that does not fit into memory."""
    free = "what is free" if limits.memory is None else f"{size(limits.memory)}, what is free"
    return PdiffError(f"plan: memory of {stage}: got {needed}, expected at most {free}. {advice(stage, config)}")


@contextmanager
def within_memory(stage: str, limits: Limits, config: Mapping[str, Any], device: torch.device) -> Iterator[None]:
    """Raise a `PdiffError` when the block, a rehearsal of `stage` on `device`, gets no more memory."""
    # A GPU's driver reserves far more addresses than it uses, so there torch alone notices.
    limited = limits.memory is not None and device.type == "cpu"
    try:
        with memory_limit(max(limits.memory - resident(), 0) if limited else None):
            yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise too_much_memory(stage, "more than there is", limits, config) from None


def check_disk(needed: int, limits: Limits) -> None:
    """Raise a `PdiffError` when the run directory does not fit on its disk."""
    if needed > limits.disk:
        raise PdiffError(
            f"plan: run directory: got {size(needed)}, expected at most {size(limits.disk)}, what is free on its disk. "
            "Give a --work-dir on another disk, select fewer parameters (select), or lower generate.num."
        )


def check_plan(plan: Plan, limits: Limits, config: Mapping[str, Any]) -> None:
    """Raise a `PdiffError` that names the setting to change when a stage does not fit."""
    check_disk(plan.disk_bytes, limits)
    worst = max(plan.stages, key=lambda stage: stage.peak_memory_bytes)
    if limits.memory is not None and worst.peak_memory_bytes > limits.memory:
        raise too_much_memory(worst.name, size(worst.peak_memory_bytes), limits, config)
