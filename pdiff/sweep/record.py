"""What a folder says of the sweep in it: `sweep.json`."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from pdiff.run.directory import DROPPED, RunDirectory
from pdiff.run.grouping import short_names
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import explain_write_errors, read_json, write_json
from pdiff.sweep.setting import Setting
from pdiff.sweep.sweep import Sweep

FILE = "sweep.json"
RUNS, COLLECTIONS, CONFIGS = "runs", "collections", "configs"
TABLE, FIGURES = "table.md", "sweep.csv"


def begin_sweep(folder: Path, sweep: Sweep, settings: Sequence[Setting], resume: bool, overwrite: bool) -> None:
    """Make a folder ready for a sweep, and record it there.

    Args:
        folder: of the sweep.
        sweep: what is swept.
        settings: its runs.
        resume: keep what is done, and go on.
        overwrite: drop the sweep that is there, whatever it is: runs, collections, and what was made of them.

    Raises:
        PdiffError: there is a sweep, and nothing says what to do about it, or it is another one; nothing is changed.
    """
    file = folder / FILE
    if file.exists():
        before = read_json(file)
        if overwrite:
            drop(folder, before)
        elif not resume:
            raise PdiffError(f"{folder}: was swept before. Give --resume to go on, or --overwrite to repeat it.")
        elif changed := [name for name, value in sweep.to_dict().items() if plain(before.get(name)) != plain(value)]:
            line = f"{folder}: is of another sweep ({', '.join(changed)} differ)"
            raise PdiffError(f"{line}. Give another --work-dir, or --overwrite to drop its runs.")
        else:
            check_configs(folder, settings)
    names = {RUNS: names_of(setting.name for setting in settings)}
    names |= {COLLECTIONS: names_of(setting.collection for setting in settings)}
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(file, {**plain(sweep.to_dict()), **names})


def check_configs(folder: Path, settings: Sequence[Setting]) -> None:
    """Raise a `PdiffError` where runs were made with another config: the file of the sweep's config was changed."""
    for setting in settings:
        directory = RunDirectory(folder / RUNS / setting.name)
        changed = directory.changed_keys(setting.config)
        if changed and not directory.holds_nothing():
            line = f"{directory.path}: was made with another config ({', '.join(changed[:4])} differ)"
            raise PdiffError(f"{line}. Set it as it was, give another --work-dir, or --overwrite to drop all runs.")


def names_of(names: Iterable[str]) -> list[str]:
    """Return names, each once, in their order."""
    return list(dict.fromkeys(names))


def plain(value: object) -> object:
    """Return a value as JSON gives it back."""
    return json.loads(json.dumps(value, default=str))


def drop(folder: Path, record: dict) -> None:
    """Delete the directories that a record names, and no other, and the table and the pictures of that sweep.

    Where that is interrupted, what is there of a directory is all of it, so that `--resume` can go on.
    """
    keys, aside = dict.fromkeys(key for ablation in record.get("vary", []) for key in ablation), folder / DROPPED
    with explain_write_errors(folder):
        for path in (folder / TABLE, folder / FIGURES, *pictures_of(folder, list(keys)).values()):
            path.unlink(missing_ok=True)  # first: they must not outlast their runs
        directories = [folder / kind / name for kind in (RUNS, COLLECTIONS) for name in record.get(kind, [])]
        for directory in [aside, *directories, folder / CONFIGS]:  # the first was left by an interrupted call
            if directory.exists():
                directory.rename(aside)
                shutil.rmtree(aside)


def pictures_of(folder: Path, keys: Sequence[str]) -> dict[str, Path]:
    """Return the picture of every varied key."""
    return {key: folder / f"{name}.png" for key, name in short_names(keys).items()}
