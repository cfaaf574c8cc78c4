"""What a plan says."""

from collections.abc import Iterable
from dataclasses import dataclass

from pdiff.run.directory import FOLDERS

UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class StagePlan:
    """What one stage will cost.

    Attributes:
        name: of the stage.
        seconds: None where the plugin does not say what its collection consists of.
        peak_memory_bytes: as `pdiff.runtime.cost` measures it.
        disk_bytes: what it leaves in the run directory.
    """

    name: str
    seconds: float | None
    peak_memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a run will cost.

    Attributes:
        parameters: P.
        checkpoints: N.
        latent: L.
        candidates: of all sources together, on the split that sees most.
        stages: in their order.
        notes: what is assumed.
    """

    parameters: int
    checkpoints: int
    latent: int
    candidates: int
    stages: tuple[StagePlan, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The time of the stages whose time is known."""
        return sum(stage.seconds for stage in self.stages if stage.seconds is not None)

    @property
    def disk_bytes(self) -> int:
        """The size of the run directory."""
        return sum(stage.disk_bytes for stage in self.stages)


def plan_lines(plan: Plan) -> Iterable[str]:
    """Yield the lines of the plan as a person reads it."""
    numbers = (plan.parameters, plan.checkpoints, plan.latent, plan.candidates)
    yield "plan: P {:,} parameters, N {:,} checkpoints, L {:,}, {:,} candidates".format(*numbers)
    yield f"{'stage':<10}{'time':>12}{'peak memory':>14}{'on disk':>12}  folder"
    for stage in plan.stages:
        yield _row(stage.name, stage.seconds, stage.peak_memory_bytes, stage.disk_bytes, FOLDERS[stage.name])
    peak = max(stage.peak_memory_bytes for stage in plan.stages)
    yield _row("all", plan.seconds, peak, plan.disk_bytes, "").rstrip()
    yield from plan.notes


def _row(name: str, seconds: float | None, peak: int, disk: int, folder: str) -> str:
    time = "not known" if seconds is None else duration(seconds)
    return f"{name:<10}{time:>12}{size(peak):>14}{size(disk):>12}  {folder}"


def duration(seconds: float) -> str:
    """Return seconds in words: `9.3 s`, `45 s`, `12 min 5 s`, `3 h 20 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: int) -> str:
    """Return bytes in words: `640 B`, `2.1 MB`."""
    value = float(count)
    for unit in UNITS[:-1]:
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.0f} {UNITS[-1]}"
