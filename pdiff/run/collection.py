"""The collection of another run in a run directory of its own: two runs that share it differ in all the rest alone."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdiff.run.directory import DROPPED, ORDER, RunDirectory, flatten
from pdiff.run.stage import STAGES
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import explain_write_errors, fsync_folder, replaced, write_json

STAGE = "collect"


def take_collection(source: Path, directory: RunDirectory, config: Mapping[str, Any]) -> None:
    """Put the finished collection of another run into a run directory that has none.

    Its files are linked, or copied where that cannot be, and nothing is changed there. A directory that has a finished
    collection keeps it. Interrupted at any moment, the same call ends with the same.

    Args:
        source: the directory of the other run.
        directory: of this run.
        config: the resolved config of this run.

    Raises:
        PdiffError: `source` is no run directory, its collection is not done or its files differ from their checksums,
            it was collected with another config, or `directory` holds a collection that is not finished.
    """
    own = directory.records().get(STAGE)
    if own is not None and directory.folder(STAGE).exists():
        return
    check_source(source, config)
    found = RunDirectory(source)
    found.require(STAGE)
    record = found.records()[STAGE]
    if own is not None and own["files"] != record["files"]:
        line = f"{directory.path}: lacks its collection, and that of {source} is another one"
        raise PdiffError(f"{line}. Give another --work-dir.")
    if directory.folder(STAGE).exists():
        make_room(directory)
    place(found, directory, record)


def check_source(source: Path, config: Mapping[str, Any]) -> None:
    """Raise a `PdiffError` unless a run directory has a finished collection that was made as `config` says.

    Args:
        source: the run directory.
        config: a resolved config.
    """
    found = RunDirectory(source)
    if not (found.path / "config.yaml").is_file():
        raise PdiffError(f"--collection: got {source}, expected the directory of a run. Name one.")
    found.check_own()
    before, after = (collected_with(each) for each in (found.config(), config))
    differ = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if differ:
        line = f"--collection: got {source}, which was collected with another config ({', '.join(differ)} differ)"
        raise PdiffError(f"{line}, expected the same. Set them as they are there, or leave --collection out.")
    if STAGE not in found.records():
        line = f"--collection: got {source}, whose collection is not done, expected a finished one"
        raise PdiffError(f"{line}. Finish it: the same command as there, with --resume.")


def collected_with(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a collection depends on of a config, by dotted key."""
    return flatten({name: config[name] for name in STAGES[STAGE].sections if name in config})


def make_room(directory: RunDirectory) -> None:
    """Drop what a collection left that stopped before its first snapshot; raise a `PdiffError` where it has more."""
    if not directory.holds_nothing():
        line = f"{directory.path}: holds a collection that is not finished, expected none beside --collection"
        raise PdiffError(f"{line}. Leave --collection out to finish it, or give another --work-dir.")
    directory.drop(ORDER)


def place(found: RunDirectory, directory: RunDirectory, record: Mapping[str, Any]) -> None:
    """Put the files of a finished collection into a run directory, and record them.

    The folder comes last: a collection that is not recorded would go on in the files that it shares with the other run.
    """
    aside, folder = directory.path / DROPPED, directory.folder(STAGE)
    directory.drop([])  # what an interrupted call has left aside
    with explain_write_errors(directory.path):
        for name in record["files"]:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            put(found.path / name, aside / name, link=found.folder(STAGE) / "task" not in (found.path / name).parents)
        os.replace(aside / directory.base.name, directory.base)
        origin = os.path.relpath(found.path.resolve(), directory.path.resolve())
        write_json(directory.path / "stages.json", {**directory.records(), STAGE: {**record, "from": origin}})
        (aside / folder.name).rename(folder)
        fsync_folder(directory.path)
        shutil.rmtree(aside)


def put(source: Path, target: Path, link: bool) -> None:
    """Make a file one with another, or a copy of it where it is not to be linked or the disk cannot do that.

    What a plugin has written for its task is copied: it may write there again, and in place.
    """
    if link:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:
            pass
    with replaced(target) as aside:
        shutil.copyfile(source, aside)
