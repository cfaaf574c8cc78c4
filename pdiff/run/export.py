"""One candidate of a run, or a network for a condition that a user names, as a file that other programs load."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pdiff.analysis.standards import REFERENCES
from pdiff.analysis.statistics import best_index
from pdiff.engine.saved import read_description
from pdiff.files.adapters import write_adapter
from pdiff.run.asking import read_condition
from pdiff.run.conditional_sources import drawn
from pdiff.run.config import resolve
from pdiff.run.derived import root
from pdiff.run.directory import RunDirectory
from pdiff.run.results import read_metrics
from pdiff.run.run import Run
from pdiff.run.sources import open_pool, open_source, source_names, source_table
from pdiff.runtime.errors import PdiffError, known
from pdiff.runtime.progress import logger
from pdiff.runtime.storage import read_json
from pdiff.task.plugins import installed
from pdiff.weights.conditions import Conditions
from pdiff.weights.vectors import Vectors


def made_in(path: Path) -> Path:
    """Return the folder that relative paths in the config of a run are from: where it was run, if that is still there.

    That is looked for from the run's directory first, for a project may have been moved as a whole.
    """
    directory, file, here = RunDirectory(path), Path(path) / "environment.json", Path.cwd()
    record = read_json(file) if file.exists() else {}
    places = [Path(path) / record["folder_from_run"], Path(record["folder"])] if "folder" in record else []
    plugin = os.path.expanduser(directory.config()["plugin"]) if (directory.path / "config.yaml").exists() else ""
    fits = (place for place in places if place.is_dir() and (plugin in installed() or (place / plugin).exists()))
    return next(fits, here).resolve()


def open_run(path: Path) -> Run:
    """Return a run whose vectors are generated; raise a `PdiffError` where there is none."""
    directory = RunDirectory(path)
    if not (directory.path / "config.yaml").exists():
        raise PdiffError(f"{path}: is no run directory. Give the --work-dir of a run.")
    for stage in ("collect", "generate"):
        directory.require(stage)
    read_description(directory.folder("fit"))  # of another version: its config has keys that nobody knows any more
    return Run(resolve({**directory.config(), "device": "cpu"}), directory)


def export(path: Path, source: str, pick: str, output: Path) -> int:
    """Write the network with a candidate in it, as it was measured, to `output`, and return the candidate's number.

    Args:
        path: the run directory.
        source: whose candidates.
        pick: `best` (on the select split; not in a run with conditions) or a number.
        output: a path with a suffix that the task can write; without other word from the task a `.safetensors`, `.pth`
            or `.pt` file with the full state dict; a folder, in a run whose checkpoints are peft's adapters, for an
            adapter like them.

    Raises:
        PdiffError: the run is not there, source, number or suffix is unknown, or nothing says which candidate.
    """
    run = open_run(path)
    pool = open_pool(run)
    found = open_source(run, source, pool)
    check_single(source, found.vectors)
    index = pick_index(run, source, pick, len(found.vectors))
    run.candidates(found.vectors).load(run.task.model, index)
    write_network(run, output)
    return index


def write_network(run: Run, output: Path) -> None:
    """Write the network of the task to a file as the task does; to a folder, where adapters came in, as an adapter."""
    if run.config.checkpoints.format["type"] == "peft" and not output.suffix:
        kept = read_json(run.directory.folder("collect") / "zoo.json")
        write_adapter(output, kept, run.task.model.state_dict())
        return
    run.task.export(run.task.model, output)


def export_for(path: Path, source: str, texts: Sequence[str], output: Path) -> str:
    """Write a network for a condition that a user names to `output`, and return the source that made it.

    Nothing is evaluated. A condition beyond the range of the seen ones is made all the same, and a warning says so.

    Args:
        path: the run directory.
        source: its name, or `best`: that which the comparison chose on select conditions.
        texts: the condition, `KEY=VALUE` each; see `read_condition`.
        output: as for `export`.

    Raises:
        PdiffError: the run is not there or has no conditions, or source, condition or suffix is unknown.
    """
    run = open_run(path)
    if not run.conditional:
        raise PdiffError(f"--condition: the checkpoints of {path} have no conditions. Leave it out.")
    pool = open_pool(run)
    name, seen = chosen_source(run, source), pool.wanted.seen
    conditions = Conditions.of([read_condition(texts, seen)])
    beyond = conditions.outside(seen)
    if beyond:
        logger.warning("--condition: %s beyond the range of the conditions that were seen", ", ".join(beyond))
    pool = replace(pool, wanted=pool.wanted.instead(conditions))
    if root(source_table(run), name) == "generated":
        rng = torch.Generator().manual_seed(run.seed("export", *conditions.values.flatten().tolist()))
        pool = replace(pool, generated=drawn(pool, conditions, rng), generated_for=torch.zeros(1, dtype=torch.long))
    vectors = open_source(run, name, pool).vectors
    check_single(name, vectors)
    run.candidates(vectors, conditions).load(run.task.model, 0)
    if run.task.for_condition is not None:
        run.task.for_condition(run.task.model, conditions[0])
    write_network(run, output)
    return name


def check_single(source: str, vectors: Vectors) -> None:
    """Raise a `PdiffError` for ensembles `(M, K, P)`: no file holds several networks."""
    if vectors.ndim > 2:
        raise PdiffError(f"--source: got {source!r}, which are several networks each. Export one of another source.")


def chosen_source(run: Run, source: str) -> str:
    """Return the source that a name means; raise a `PdiffError` for one that makes no network for a new condition."""
    table = source_table(run)
    names = [name for name in source_names(run) if root(table, name) not in REFERENCES]
    if source == "best":
        run.directory.require("compare")
        best = read_json(run.directory.folder("compare") / "summary.json")["best_source"]
        if best is None:
            raise PdiffError(f"--source: got 'best', but no source has living networks. Name one: {', '.join(names)}.")
        return best
    if source not in names:
        raise PdiffError(f"--source: got {source!r}. {known(source, ['best', *names])}")
    return source


def pick_index(run: Run, source: str, pick: str, count: int) -> int:
    """Return the number that `pick` means, of `count` candidates."""
    if pick == "best" and run.conditional:
        raise PdiffError(
            "--pick: got 'best', but the candidates are for different conditions, and the best of them is for the "
            "easiest. Give --condition KEY=VALUE ..., or the number of a candidate."
        )
    if pick == "best":
        run.directory.require("evaluate")
        metrics = read_metrics(run, source)
        return best_index(metrics["select"], run.task.metric.higher_is_better)
    if not pick.isdigit() or int(pick) >= count:
        raise PdiffError(f"--pick: got {pick!r}, expected best or a number from 0 to {count - 1}.")
    return int(pick)
