"""The format `ray`: what Ray Tune leaves of trials, as in the Model Zoos of Schürholt et al. (arXiv 2209.14764).

A trial is a folder with `params.json`, `result.json` (a JSON object a line, one for each iteration) and, for each
checkpoint, `checkpoint_0000NN/checkpoints`, a state dict.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pdiff.files.folders import flattened, folders_of, object_in
from pdiff.files.formats import FORMATS, Cell, Zoo
from pdiff.files.paths import below_common_folder, natural
from pdiff.files.reader import Reader
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.progress import say

ITERATION = "training_iteration"
FOLDER = re.compile(r"checkpoint_(\d+)")
FILES = ("params.json", "result.json")
Results = Mapping[int, Mapping[str, Cell]]  # what a trial said of itself, by the number of the iteration


@FORMATS.register_module(name="ray")
def ray(pattern: str, reader: Reader, file: str = "checkpoints") -> Zoo:
    """Find the checkpoints of every trial; columns are those of `params.json` and of the iteration in `result.json`.

    A checkpoint belongs to the iteration of its number; where more of them fit so, to the one after (numbers from 0
    for iterations from 1). Checkpoints without an iteration are left out, and said.

    Args:
        pattern: the zoo's folder, that of a trial, or a glob of them.
        reader: of the checkpoints.
        file: name of the state dict in the folder of a checkpoint.
    """
    folders = folders_of(pattern)
    checkpoints = checkpoints_of(folders, file)
    left_out: Counter[str] = Counter()
    left_out["trials without a checkpoint"] = len(trials_of(folders) - set(checkpoints))
    told = {trial: results_of(trial, left_out) for trial in checkpoints}
    shift = shift_of(checkpoints, told)
    members = [
        (trial, path, told[trial][number + shift])
        for trial, numbers in checkpoints.items()
        for number, path in numbers.items()
        if number + shift in told[trial]
    ]
    left_out["checkpoints without a line in result.json"] = sum(map(len, checkpoints.values())) - len(members)
    words = ", ".join(f"{count} {what}" for what, count in left_out.items() if count)
    if not members:
        words = words or f"no checkpoint_*/{file}"
        raise PdiffError(f"checkpoints.files: got {pattern!r}, where no trial has a checkpoint ({words}). Mend it.")
    if words:
        say(f"checkpoints: left out {words}")
    if shift:
        say(f"checkpoints: a checkpoint's number is taken as its {ITERATION} less {shift}, since so more of them fit")
    paths = [path for _, path, _ in members]
    names = list(dict.fromkeys(name for _, _, cells in members for name in cells))
    return Zoo(
        origins=below_common_folder(paths),
        read=lambda number, *wanted: reader.read(paths[number], *wanted),
        columns={name: [cells.get(name) for _, _, cells in members] for name in names},
        lineage=below_common_folder([trial for trial, _, _ in members]),
    )


def checkpoints_of(folders: list[Path], file: str) -> dict[Path, dict[int, Path]]:
    """Return the state dicts of each trial by their numbers."""
    found: dict[Path, dict[int, Path]] = {}
    for folder in folders:
        match = FOLDER.fullmatch(folder.name)
        if match and (folder / file).is_file():
            found.setdefault(folder.parent, {})[int(match[1])] = folder / file
    return {trial: dict(sorted(found[trial].items())) for trial in sorted(found, key=natural)}


def trials_of(folders: list[Path]) -> set[Path]:
    """Return the folders in which a trial was begun."""
    return {folder for folder in folders if any((folder / name).is_file() for name in FILES)}


def results_of(trial: Path, left_out: Counter[str]) -> Results:
    """Return what a trial says of itself: its parameters, and the results of each iteration.

    Args:
        trial: its folder.
        left_out: counts what cannot be read.
    """
    parameters = parameters_of(trial, left_out)
    found = {}
    for line in lines_of(trial / "result.json", left_out):
        number = line.get(ITERATION)
        if isinstance(number, int):
            own = {key: value for key, value in line.items() if not (parameters and key == "config")}
            found[number] = {**parameters, **dict(flattened(own))}
    return found


def parameters_of(trial: Path, left_out: Counter[str]) -> dict[str, Cell]:
    """Return the parameters of a trial; none where there is no file."""
    path = trial / "params.json"
    if not path.is_file():
        return {}
    try:
        return dict(flattened(object_in(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError):
        left_out["damaged params.json"] += 1
        return {}


def lines_of(path: Path, left_out: Counter[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects in the lines of a file, those that are damaged left out."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield object_in(line or "{}")
        except (ValueError, RecursionError):
            left_out["damaged lines of result.json"] += 1


def shift_of(checkpoints: Mapping[Path, Mapping[int, Path]], told: Mapping[Path, Results]) -> int:
    """Return by how much the numbers of iterations lie above those of checkpoints: 0, or 1 where more fit so."""
    fitting = [
        sum(number + shift in told[trial] for trial, numbers in checkpoints.items() for number in numbers)
        for shift in (0, 1)
    ]
    return int(fitting[1] > fitting[0])
