"""Stage 1: the population, collected by the plugin or read from checkpoints that the user has."""

from typing import TYPE_CHECKING

from pdiff.run.beforehand import check_settings
from pdiff.run.fit_through_losses import check_hypernet
from pdiff.run.sources import tell_members
from pdiff.runtime import processes
from pdiff.runtime.errors import PdiffError
from pdiff.stages.branches import collect_branches, roots_of
from pdiff.stages.importing import import_checkpoints
from pdiff.stages.snapshots import collect_branch

if TYPE_CHECKING:
    from pdiff.run.run import Run


def collect(run: "Run") -> None:
    """Write `population/` and `base.safetensors`; go on where an interrupted collection stopped.

    A snapshot with a NaN is the last one: a training that diverged does not come back, and the gate names the place.

    Raises:
        PdiffError: the plugin yields nothing, something that is no snapshot, or changes what is not selected.
    """
    files = run.config.checkpoints.files
    roots = [] if files else roots_of(run)
    processes.on_main(lambda: run.layout)  # builds the task in the first process; the others find what it has written
    check_settings(run)
    if files:
        processes.on_main(lambda: import_checkpoints(run))
    elif len(roots) == 1:
        processes.on_main(lambda: collect_branch(run))
    else:
        collect_branches(run, roots)
    processes.on_main(lambda: look_at_number(run))


def look_at_number(run: "Run") -> None:
    """Raise a `PdiffError` where the checkpoints are too few to fit to, or not what a fit needs; tell of sources."""
    count = len(run.collected)
    if count < 2:
        remedy = "Name more files" if run.config.checkpoints.files else "Collect more"
        raise PdiffError(f"population: got {count} checkpoint, expected at least 2. {remedy}.")
    check_hypernet(run, run.conditional)
    if not run.conditional:
        tell_members(run, count)
