"""The stages in their order; each reads and writes files of the run directory, and most end with a gate."""

import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from pdiff.engine.saved import read_description
from pdiff.run.beforehand import check_engine, check_settings
from pdiff.run.collection import check_source, take_collection
from pdiff.run.directory import ORDER, RunDirectory, flatten
from pdiff.run.record import pass_gate, write_gate
from pdiff.run.run import Run
from pdiff.run.stage import STAGES
from pdiff.runtime import processes
from pdiff.runtime.cost import Stopwatch
from pdiff.runtime.environment import environment, name_of
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.exact import exact, flags, given_back
from pdiff.runtime.memory import explain_used_up
from pdiff.runtime.progress import logger
from pdiff.runtime.seeding import current
from pdiff.runtime.storage import write_json


def run_pipeline(
    config: Config,
    directory: RunDirectory,
    stages: Sequence[str] = tuple(ORDER),
    resume: bool = False,
    overwrite: bool = False,
    gates: bool = True,
    collection: Path | None = None,
) -> None:
    """Run stages of a config in a directory.

    Args:
        config: the resolved config.
        directory: the run directory.
        stages: names, in order.
        resume: keep what is done, and go on where an earlier run stopped.
        overwrite: repeat the stages, and accept a directory of another config.
        gates: stop at a stage whose gate has a failed check; False goes on with a warning.
        collection: the directory of another run, whose collection is taken instead of collecting.

    Raises:
        PdiffError: for whatever the user can mend, a failed gate included; nothing that was computed is lost.
    """
    if collection is not None:
        check_not_anew(stages, resume, overwrite)
    processes.take_gpu(config.device)
    run = Run(config, directory)
    processes.agree_on(run.device)

    def begin() -> None:
        held.enter_context(directory.locked())
        if overwrite and "fit" in directory.records() and ORDER.index(stages[0]) > ORDER.index("fit"):
            read_description(directory.folder("fit"))  # of another version: then nothing is dropped that needs it
        if overwrite:  # better told before anything is dropped
            dropped = directory.repeated(config.to_dict(), stages, resume, overwrite)
            check_engine(run, "collect" in directory.records() and "collect" not in dropped)
        if collection is not None and overwrite:
            check_source(collection, config.to_dict())
        directory.begin(config.to_dict(), stages, resume, overwrite)
        if collection is not None:
            take_collection(collection, directory, config.to_dict())
        settings = {"seed": config.seed, "command": shlex.join(sys.argv), "processes": processes.size()}
        folder = {"folder": os.getcwd(), "folder_from_run": os.path.relpath(os.getcwd(), directory.path.resolve())}
        write_json(directory.path / "environment.json", {**environment(run.device), **settings, **folder})
        for stage in ORDER[: ORDER.index(stages[0])]:
            pass_gate(directory, stage, gates)

    with ExitStack() as held:
        held.enter_context(current(run.device))
        processes.on_main(begin)
        held.enter_context(directory.shared())
        if collection is not None and not processes.on_main(lambda: directory.started("fit")):
            processes.on_main(lambda: run.layout)  # builds the task in the first process, as before a collection
            check_settings(run)
        for stage in stages:
            run_stage(run, stage)
            processes.on_main(partial(pass_gate, directory, stage, gates))
        processes.gather(None)  # the first process keeps what the others talk by, so it leaves last


def check_not_anew(stages: Sequence[str], resume: bool, overwrite: bool) -> None:
    """Raise a `PdiffError` where collecting anew is asked for beside taking the collection of another run."""
    if list(stages) == ["collect"]:
        line = "--stage: got collect beside --collection, which takes a collection instead of collecting"
        raise PdiffError(f"{line}. Leave one out.")
    if "collect" in stages and overwrite and not resume:
        line = "--overwrite: got it beside --collection, which takes a collection instead of collecting anew"
        raise PdiffError(f"{line}. Leave one out, or give --resume too, which keeps the stages that hold.")


def run_stage(run: Run, stage: str) -> None:
    """Run one stage and its gate, unless it is done; the stages before it must be, with all their files whole."""
    begun = processes.on_main(partial(begin_stage, run, stage))
    if begun is None:
        return
    run.stopwatch = Stopwatch(run.device)
    with exact(run.device) if STAGES[stage].exact else given_back():
        place = place_of(run.device)
        with explain_used_up(stage, with_less(run, stage), run.device):
            perform(run, stage)
    cost = run.stopwatch.stop()
    processes.on_main(partial(run.directory.finish, stage, {**cost, **begun, **place}))
    logger.info("%s: %.1f s", stage, cost["seconds"])


def place_of(device: torch.device) -> dict[str, Any]:
    """Return on what `device` a stage runs, and on a GPU by which `flags` of torch."""
    place = {"device": name_of(device)}
    return {**place, "flags": flags()} if device.type == "cuda" else place


def with_less(run: Run, stage: str) -> str:
    """Return what takes less memory in a stage: what its sections and the task take at once, if they say it."""
    sections = {*STAGES[stage].sections, "task"}
    settings = [(key.split("."), value) for key, value in flatten(run.config.to_dict()).items()]
    large = [(key, value) for key, value in settings if type(value) is int and value > 1]
    counts = [key for key, _ in large if "batch" in key[-1] or key[-1] == "together"]
    batches = [".".join(key) for key in counts if key[0] in sections]
    if not batches:
        advice = STAGES[stage].advice.rstrip(".")
        return advice[0].lower() + advice[1:]
    return f"lower {', '.join(batches[:-1])} or {batches[-1]}" if len(batches) > 1 else f"lower {batches[0]}"


def begin_stage(run: Run, stage: str) -> dict[str, bool] | None:
    """Return whether an unfinished stage is `resumed`; None for one that is done."""
    if stage in run.directory.records():
        run.directory.require(stage)
        run.directory.remove_passing(stage)  # left by a run that was killed when it had recorded the stage
        logger.info("%s: done before", stage)
        return None
    for earlier in ORDER[: ORDER.index(stage)]:
        run.directory.require(earlier)
    run.directory.remove_torn(stage)
    return {"resumed": run.directory.started(stage)}


def perform(run: Run, stage: str) -> None:
    """Do what a stage does, and write what its gates, if it has any, find."""
    row = STAGES[stage]
    if row.shared:
        row.work()(run)
    else:
        processes.on_main(lambda: row.work()(run))
    if row.gates:
        processes.on_main(lambda: write_gate(run.directory, stage, [c for gate in row.checks() for c in gate(run)]))
