"""One candidate of a run as a file that other programs load."""

from pathlib import Path

from pdiff.analysis.statistics import best_index
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.results import read_metrics
from pdiff.run.run import Run
from pdiff.run.sources import open_pool, open_source
from pdiff.runtime.errors import PdiffError


def export(path: Path, source: str, pick: str, output: Path) -> int:
    """Write the network with a candidate in it to `output`, as the task does, and return the candidate's number.

    Args:
        path: the run directory.
        source: whose candidates.
        pick: `best` (on the select split) or a number.
        output: a path with a suffix that the task can write; without other word from the task a `.safetensors`, `.pth`
            or `.pt` file with the full state dict.

    Raises:
        PdiffError: the run is not there, or source, number or suffix is unknown.
    """
    directory = RunDirectory(path)
    if not (directory.path / "config.yaml").exists():
        raise PdiffError(f"{path}: is no run directory. Give the --work-dir of a run.")
    config = resolve({**directory.config(), "device": "cpu"})
    run = Run(config, directory)
    for stage in ("collect", "generate"):
        directory.require(stage)
    vectors = open_source(run, source, open_pool(run)).vectors
    if vectors.ndim > 2:
        raise PdiffError(f"--source: got {source!r}, which are several networks each. Export one of another source.")
    index = pick_index(run, source, pick, len(vectors))
    run.candidates(vectors).load(run.task.model, index)
    run.task.export(run.task.model, output)
    return index


def pick_index(run: Run, source: str, pick: str, count: int) -> int:
    """Return the number that `pick` means, of `count` candidates."""
    if pick == "best":
        run.directory.require("evaluate")
        metrics = read_metrics(run, source)
        return best_index(metrics["select"], run.task.metric.higher_is_better)
    if not pick.isdigit() or int(pick) >= count:
        raise PdiffError(f"--pick: got {pick!r}, expected best or a number from 0 to {count - 1}.")
    return int(pick)
