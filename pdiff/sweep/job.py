"""What is to be done for a sweep: its collections, then its runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdiff.run.stage import STAGES
from pdiff.sweep.record import COLLECTIONS, RUNS
from pdiff.sweep.setting import Setting


@dataclass(frozen=True)
class Job:
    """One run, or one collection, that is to be done.

    Attributes:
        name: that tells it apart.
        path: its run directory.
        config: the resolved config.
        collection: the run directory whose collection it takes; None for one that collects itself, and does no more.
    """

    name: str
    path: Path
    config: dict[str, Any]
    collection: Path | None

    @property
    def stages(self) -> list[str]:
        """What is run."""
        return list(STAGES) if self.collection else list(STAGES)[:1]


def jobs_of(folder: Path, settings: Sequence[Setting]) -> tuple[list[Job], list[Job]]:
    """Return the collections and the runs of a sweep in its folder."""
    collections: dict[str, Job] = {}
    runs = []
    for setting in settings:
        path = folder / COLLECTIONS / setting.collection
        collections.setdefault(setting.collection, Job(setting.collection, path, setting.config, None))
        runs.append(Job(setting.name, folder / RUNS / setting.name, setting.config, path))
    return list(collections.values()), runs
