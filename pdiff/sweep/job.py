"""What is to be done for a sweep: its collections, then its runs; also as commands for a scheduler."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdiff.run.stage import STAGES
from pdiff.runtime.settings import to_yaml
from pdiff.runtime.storage import write_text
from pdiff.sweep.record import COLLECTIONS, CONFIGS, RUNS
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


def commands_of(folder: Path, collections: Sequence[Job], runs: Sequence[Job]) -> list[str]:
    """Write the configs of a sweep, and return its commands: of the collections, an empty line, of the runs.

    Args:
        folder: of the sweep.
        collections: come first, in any order among themselves.
        runs: come after them, in any order among themselves.
    """
    return [*(command(folder, "collection,", job) for job in collections), "", *(command(folder, "", j) for j in runs)]


def command(folder: Path, before: str, job: Job) -> str:
    """Write one config, whose file's name begins with some letters, and return the command that runs it."""
    file = folder / CONFIGS / f"{before}{job.name}.yaml"
    write_text(file, to_yaml(job.config))
    words = ["python", "tools/run.py", "--config", file, "--work-dir", job.path]
    words += ["--collection", job.collection] if job.collection else ["--stage", job.stages[0]]
    return shlex.join(map(str, [*words, "--no-gates", "--resume"]))
