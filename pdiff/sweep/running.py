"""The runs of a sweep, one after another or several at a time; what goes wrong in one does not stop the others."""

import gc
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from mmengine.config import Config

from pdiff.run.directory import RunDirectory
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.progress import say
from pdiff.runtime.storage import write_text
from pdiff.sweep.job import Job, jobs_of
from pdiff.sweep.setting import Setting

Pipeline = Callable[..., None]  # `run_pipeline`
ERRORS, OUTPUT = "error.log", "output.log"
KILLED = "not done: one of the processes was killed, by want of memory or by hand. --resume goes on; give fewer --jobs."


def run_sweep(
    folder: Path, settings: Sequence[Setting], number: int, pipeline: Pipeline
) -> dict[str, str | None]:
    """Do the collections of a sweep, then its runs; a line tells of each that has ended.

    Args:
        folder: of the sweep.
        settings: its runs.
        number: how many are done at a time.
        pipeline: `run_pipeline`, which does one.

    Returns:
        what went wrong in each run, by its name, in a line; None where nothing did.
    """
    collections, runs = jobs_of(folder, settings)
    missing = {job.path: f"collection {job.name}: {line}" for job, line in told(collections, number, pipeline) if line}
    lost: dict[str, str | None] = {job.name: missing[job.collection] for job in runs if job.collection in missing}
    done = {job.name: line for job, line in told([job for job in runs if job.name not in lost], number, pipeline)}
    return lost | done


def told(jobs: Sequence[Job], number: int, pipeline: Pipeline) -> Iterator[tuple[Job, str | None]]:
    """Do some jobs, and say of each how it has ended."""
    for count, (job, line) in enumerate(do_all(jobs, number, pipeline), start=1):
        kind = "run" if job.collection else "collection"
        say(f"{kind} {count}/{len(jobs)}, {job.name}: {line or 'done'}")
        yield job, line


def do_all(jobs: Sequence[Job], number: int, pipeline: Pipeline) -> Iterator[tuple[Job, str | None]]:
    """Do some jobs, so many of them at a time, and yield each that has ended with what went wrong, in a line, if any.

    A single one at a time is done in this process. Several have a process each, which imports everything once, takes
    its share of the cores, and says how it goes in `output.log` of the run directory.
    """
    if number == 1:
        for job in jobs:
            yield job, do(job, pipeline)
        return
    from joblib import Parallel, cpu_count, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    threads = max(1, cpu_count() // number)
    parallel = Parallel(n_jobs=number, return_as="generator_unordered", batch_size=1, pre_dispatch="all")
    calls = (delayed(do_quietly)(place, job, pipeline, threads) for place, job in enumerate(jobs))
    left = dict(enumerate(jobs))
    try:
        for place, line in parallel(calls):
            yield left.pop(place), line
    except TerminatedWorkerError:  # takes all other processes with it
        for job in left.values():
            yield job, KILLED


def do(job: Job, pipeline: Pipeline) -> str | None:
    """Do one job, as far as it is not done, and return what went wrong in a line; None where nothing did."""
    try:
        directory = RunDirectory(job.path)
        pipeline(Config(job.config), directory, job.stages, resume=True, gates=False, collection=job.collection)
    except PdiffError as error:
        return str(error)
    except Exception as error:  # a plugin's own, say: the other runs go on
        write_text(job.path / ERRORS, traceback.format_exc())
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return f"{words} (see {job.path / ERRORS})"
    finally:
        gc.collect()  # networks and vectors of a run hang in circles, which Python lets lie for long
    (job.path / ERRORS).unlink(missing_ok=True)
    return None


def do_quietly(place: int, job: Job, pipeline: Pipeline, threads: int) -> tuple[int, str | None]:
    """Do one of several jobs at a time, in a process with so many threads, and return its place and what went wrong."""
    import torch

    torch.set_num_threads(min(threads, torch.get_num_threads()))  # OMP_NUM_THREADS may ask for fewer
    job.path.mkdir(parents=True, exist_ok=True)
    output = open(job.path / OUTPUT, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
    with output, redirect_stdout(output), redirect_stderr(output):
        return place, do(job, pipeline)
