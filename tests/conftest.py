"""A real run that takes seconds: a tiny timm network on digits, all stages, all sources; and processes for it."""

import os
import runpy
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
import yaml

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.storage import write_json
from pdiff.stages.pipeline import run_pipeline

ROOT = Path(__file__).parents[1]
TINY = {
    "plugin": "classification",
    "select": "last_norms(2)",
    "task": {
        "network": {"type": "timm", "name": "test_resnet"},
        "data": {"type": "digits", "size": 32, "noise": 0.1, "train": 64, "select": 64},
        "eval_batch": 900,
    },
    "collect": {
        "train": {"epochs": 2, "batch_size": 32, "augment": [{"type": "shift"}]},
        "finetune": {"steps": 10, "batch_size": 32, "augment": [{"type": "noise", "std": 0.1}]},
    },
    "engine": {"denoiser": {"width": 16, "depth": 1}, "denoiser_training": {"steps": 20}},
    "generate": {"num": 5, "path": 2},
    "evaluate": {"num": 4, "sources": {"soup16": {"members": 3}}},
    "compare": {"resamples": 50},
}


@pytest.fixture
def empty_plugin() -> str:
    """The code of a plugin whose hooks do nothing."""
    hooks = ("build(cfg)", "evaluate(task)")
    return "import pdiff\n" + "".join(f"\n@pdiff.hookimpl\ndef {hook}:\n    pass\n" for hook in hooks)


@pytest.fixture
def tiny() -> dict:
    """The values of the tiny config, to be changed at will."""
    return yaml.safe_load(yaml.safe_dump(TINY))


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> RunDirectory:
    """A finished tiny run; not to be changed."""
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "finished")
    run_pipeline(resolve(TINY), directory, gates=False)
    return directory


@pytest.fixture
def compared(tmp_path):
    """Return a function that writes a run directory with nothing but a summary, which may be changed before."""

    def write(name: str, **changes) -> Path:
        figures = {"difference": 0.01, "ci": [0.0, 0.02], "superiority": 0.6, "p": 0.04, "p_adjusted": 0.08}
        summary = {
            "plugin": "classification",
            "metric": {"name": "accuracy", "higher_is_better": True, "chance": 0.1},
            "verdict": "average-like: as good as <soup>",
            "verdict_kind": "average-like",
            "gates": [{"stage": "fit", "name": "codec", "passed": False, "line": "codec: too small", "figures": {}}],
            "sources": {
                "trained": {"mean": 0.5, "similarity": 0.99},
                "generated": {"mean": 0.51, "similarity": 0.95},
                "soup": {"mean": 0.52, "similarity": None},
            },
            "comparisons": {"trained": figures, "soup": {**figures, "difference": -0.01, "ci": [-0.015, -0.005]}},
            "seconds": {"collect": 30.0, "fit": 10.0, "generate": 1.0, "evaluate": 20.0, "compare": 5.0},
            **changes,
        }
        write_json(tmp_path / name / "report" / "summary.json", summary)
        (tmp_path / name / "config.yaml").write_text("plugin: classification\n")
        return tmp_path / name

    return write


@pytest.fixture
def results():
    """Return what a run computed: its bytes by file, without times and logs."""

    def read(path: Path) -> dict[str, bytes]:
        folders = ("population", "engine", "samples", "evaluation")
        files = [f for name in folders for f in (path / name).rglob("*") if f.is_file() and "logs" not in f.parts]
        files = [f for f in [*files, path / "base.safetensors"] if f.suffix != ".part"]
        return {str(f.relative_to(path)): f.read_bytes() for f in files}

    return read


class Processes:
    """Processes of one run, forked, so that none has to import anything.

    Args:
        folder: for what they print: `0.out`, `0.err`, `1.out`, ...
        work: what each does; gets its number.
        number: how many.
    """

    def __init__(self, folder: Path, work: Callable[[int], object], number: int = 2):
        folder.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(number)}
        self.folder = folder
        self.all = [
            get_context("fork").Process(target=self.run, args=(work, {**place, "RANK": str(i), "LOCAL_RANK": str(i)}))
            for i in range(number)
        ]
        for process in self.all:
            process.start()

    def run(self, work: Callable[[int], object], place: dict[str, str]) -> None:
        """Do the work in a child, whose exit code says what came of it."""
        os.environ |= place
        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
        for descriptor, end in ((1, "out"), (2, "err")):
            os.dup2(os.open(self.folder / f"{place['RANK']}.{end}", os.O_WRONLY | os.O_CREAT), descriptor)
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1) for descriptor in (1, 2))
        code = 0
        try:
            work(int(place["RANK"]))
        except SystemExit as error:
            code = error.code
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        os._exit(code)

    def codes(self, seconds: float = 300) -> list[int]:
        """Return the exit codes, once all have ended; minus the signal for one that was killed."""
        end = time.monotonic() + seconds
        for process in self.all:
            process.join(max(end - time.monotonic(), 0))
            assert process.exitcode is not None, "it hangs"
        return [process.exitcode for process in self.all]

    def text(self, end: str) -> str:
        """Return what all of them printed to `out` or to `err`."""
        return "".join((self.folder / f"{i}.{end}").read_text() for i in range(len(self.all)))

    def errors(self) -> list[str]:
        """Return the error lines of all; not what torch's C++ says when the process that keeps the store is gone."""
        return [line for line in self.text("err").splitlines() if line.startswith(("error: ", "Traceback"))]


@pytest.fixture
def processes(tmp_path):
    """Return a function that starts processes; those that are left at the end of the test are killed."""
    started: list[Processes] = []

    def start(work: Callable[[int], object], number: int = 2) -> Processes:
        started.append(Processes(tmp_path / f"processes{len(started)}", work, number))
        return started[-1]

    yield start
    for process in (process for one in started for process in one.all):
        process.kill()


@pytest.fixture
def together(processes):
    """Return a function that calls tools/run.py in two processes."""

    def start(*arguments: object) -> Processes:
        def work(number: int) -> None:
            sys.argv = ["run.py", "--launcher", "pytorch", *map(str, arguments)]
            runpy.run_path(str(ROOT / "tools" / "run.py"), run_name="__main__")

        return processes(work)

    return start
