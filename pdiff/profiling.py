"""Where the time of a stage went: Python's own profiler, read as two short lists."""

import cProfile
import pstats
import re
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pdiff.run.directory import STAGES, RunDirectory
from pdiff.runtime.storage import read_json, write_json
from pdiff.task.plugins import plugin_places

LONGEST = 8  # lines of each list
LIBRARIES = ("site-packages", sysconfig.get_paths()["stdlib"], "<")  # but for pdiff and plugins that lie in them
PACKAGE = str(Path(__file__).parent)
BUILTIN = re.compile(r"<(?:built-in method |method '(\w+)' of '(?:\w+\.)*(\w+)' objects|)(.*?)>")


@contextmanager
def profiled(path: Path | None) -> Iterator[None]:
    """Profile the block, and write to `path` where its time went; None: do nothing."""
    if path is None:
        yield
        return
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        yield
    finally:
        profiler.disable()
    write_json(path, summarised(pstats.Stats(profiler)))


def summarised(stats: pstats.Stats) -> dict[str, Any]:
    """Return the functions with the longest time, and the operations with the longest time of their own.

    A function is one of pdiff or the plugin, and its time includes what it calls. An operation is compiled: torch's
    and numpy's, reading a file, the backward pass. On a GPU its time is that of the launch, or of waiting for a result.
    """
    functions, operations, own = [], [], (PACKAGE, *plugin_places())
    for (file, _, name), (_, calls, inside, whole, _) in stats.stats.items():
        if file == "~":
            operations.append({"name": readable(name), "calls": calls, "seconds": inside})
        elif file.startswith(own) or not any(library in file for library in LIBRARIES):
            functions.append({"name": f"{'/'.join(Path(file).parts[-2:])}: {name}", "calls": calls, "seconds": whole})
    return {"seconds": stats.total_tt, "functions": longest(functions), "operations": longest(operations)}


def readable(name: str) -> str:
    """Return `torch.conv2d` of `<built-in method torch.conv2d>`, `Tensor.item` of a method's longer name."""
    found = BUILTIN.fullmatch(name)
    if found is None:
        return name
    method, owner, function = found.groups()
    return f"{owner}.{method}" if method else function


def longest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with the longest time, the longest first."""
    return sorted(rows, key=lambda row: row["seconds"], reverse=True)[:LONGEST]


def profile_file(directory: RunDirectory, stage: str) -> Path:
    """Return where the profile of a stage is kept until the report: among its logs, which are no result."""
    return directory.folder(stage) / "logs" / "profile.json"


def read_profiles(directory: RunDirectory) -> Mapping[str, Any]:
    """Return the profiles that there are, by stage."""
    files = {stage: profile_file(directory, stage) for stage in STAGES}
    return {stage: read_json(file) for stage, file in files.items() if file.exists()}
