"""A sweep as commands, for a scheduler that runs them by the number of their line."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from pdiff.runtime.settings import to_yaml
from pdiff.runtime.storage import write_text
from pdiff.sweep.job import Job
from pdiff.sweep.record import CONFIGS


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
