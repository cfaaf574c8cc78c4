"""A real run that takes seconds: a tiny timm network on digits, all stages, all sources; and processes for it.

Every process of the tests computes with one thread, so that several of them do not take each other's core. No test
sees a GPU but those that are marked `cuda`, and these are run by `pytest -m cuda` alone.
"""

import gc
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # read when torch is loaded, here or in a child

import torch

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.storage import read_json, write_json
from pdiff.stages.pipeline import run_pipeline
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.testing.simulated_tags import SimulatedGPU

ROOT = Path(__file__).parents[1]
# A forked child can go backward only where torch starts no threads for it; behind a `torch.export` it would.
torch.ones(1, requires_grad=True).backward()
# Files that share what is dear: the import of mmdet and mmseg, and a finished run of each.
TOGETHER = {"openmmlab": ("tests/plugins/detection", "tests/plugins/openmmlab", "tests/plugins/segmentation")}
TINY = {
    "plugin": "classification",
    "select": "last_norms(2)",
    "task": {
        "network": {"type": "timm", "name": "test_resnet"},
        "data": {"type": "digits", "size": 8, "noise": 0.1, "train": 64, "select": 64},
        "eval_batch": 900,
    },
    "collect": {
        "branches": 5,
        "train": {"epochs": 2, "batch_size": 32, "augment": [{"type": "shift"}]},
        "finetune": {"steps": 2, "batch_size": 32, "augment": [{"type": "noise", "std": 0.1}]},
    },
    "engine": {"denoiser": {"width": 16, "depth": 1}, "generator_training": {"steps": 20}},
    "generate": {"num": 5, "path": 2},
    "evaluate": {"num": 4, "sources": {"soup16": {"members": 3}}},
}
OF_THE_MACHINE = {"environment", "seconds", "peak_memory_bytes", "peak_gpu_memory_bytes"}
# The same with conditions, of a plugin whose networks are computed in closed form.
CLOSED = {
    "plugin": str(ROOT / "tests" / "closed_form.py"),
    "device": "cpu",
    "collect": {"networks": 30},
    "engine": {
        "autoencoder": {"latent": 8},
        "denoiser": {"width": 16, "depth": 1},
        "generator_training": {"steps": 20},
    },
    "fit": {"split": {"type": "random", "select": 0.2, "unseen": 0.3}},
    "evaluate": {"conditional": {"regression": {"hidden": [8]}}},
}


def pytest_configure(config) -> None:
    """Hide the GPUs, unless the tests that need one were asked for."""
    if config.option.markexpr != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items) -> None:
    """Skip what needs a GPU where there is none."""
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what was imported: it takes half a second to look through it, each time."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each worker whole files, and one worker all those that share what is dear."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((name for name, places in TOGETHER.items() if file.startswith(places)), file)

    return ByFile(config, log)


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
def closed() -> dict:
    """The values of the tiny config with conditions, to be changed at will."""
    return yaml.safe_load(yaml.safe_dump(CLOSED))


@pytest.fixture(scope="session")
def conditional(tmp_path_factory) -> RunDirectory:
    """A finished tiny run with conditions; not to be changed."""
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "conditional")
    run_pipeline(resolve(CLOSED), directory, gates=False)
    return directory


@pytest.fixture
def compared(tmp_path):
    """Return a function that writes a run directory with nothing but a summary, which may be changed before."""

    def write(name: str, **changes) -> Path:
        figures = {
            "difference": 0.01, "ci": [0.0, 0.02], "ci_simultaneous": [-0.01, 0.03], "superiority": 0.6, "p": 0.04,
            "p_adjusted": 0.08, "relation": "no clear difference (better if it were the only one)",
        }  # fmt: skip
        summary = {
            "plugin": "classification",
            "metric": {"name": "accuracy", "higher_is_better": True, "chance": 0.1},
            "verdict": "average-like: as good as <soup>",
            "verdict_kind": "average-like",
            "margin": 0.02,
            "quality": None,
            "baselines": "no clear difference to soup",
            "notes": [],
            "novelty": {"line": "not shown to be new: similarity 0.950"},
            "gates": [{"stage": "fit", "name": "codec", "passed": False, "line": "codec: too small", "figures": {}}],
            "sources": {
                "trained": {"mean": 0.5, "select": 0.49, "similarity": 0.99},
                "generated": {"mean": 0.51, "select": 0.5, "similarity": 0.95},
                "soup": {"mean": 0.52, "select": 0.51, "similarity": None},
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
def compared_over_conditions(tmp_path):
    """Return a function that writes a run directory with nothing but a summary over conditions.

    Its sources are given by their mean and the seconds of one network; a mean of None is that of a dead one. Whatever
    else stands in the summary may be changed.
    """

    def write(name: str, sources: dict | None = None, higher: bool = True, **changes) -> Path:
        sources = {
            "oracle": (0.8, 100.0), "base": (0.4, 0.01), "ridge": (0.76, 1.0), "generated": (0.72, 2.0),
            "generated_permuted": (0.79, 2.0), "soup": (None, 0.001),
        } if sources is None else sources  # fmt: skip
        oracle, rows = sources["oracle"][0], {}
        for source, (mean, seconds) in sources.items():
            gain = None if mean is None or not oracle or source == "oracle" else (1 if higher else -1) * (mean - oracle)
            figures = None if gain is None else {"difference": gain, "ci": [gain - 0.008, gain + 0.008]}
            rows[source] = {"type": source, "mean": mean, "to_oracle": figures, "seconds": seconds}
        summary = {
            "plugin": "classification",
            "conditional": True,
            "metric": {"name": "accuracy" if higher else "FID", "higher_is_better": higher, "chance": None},
            "conditions": {"unseen": 40, "groups": {"seen": 100, "select": 20, "unseen": 20}},
            "best_source": "ridge",
            "verdict": "behind <ridge>: the best on select conditions",
            "verdict_kind": "behind",
            "gates": [{"stage": "fit", "name": "codec", "passed": True, "line": "codec: as it was", "figures": {}}],
            "sources": rows,
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


def figures_of(summary):
    """Return a summary, or a part of one, without what belongs to the machine: device, times and memory."""
    if isinstance(summary, list):
        return [figures_of(value) for value in summary]
    if not isinstance(summary, dict):
        return summary
    return {key: figures_of(value) for key, value in summary.items() if key not in OF_THE_MACHINE}


@pytest.fixture
def on_gpu(results, tmp_path):
    """Return a function that does a run again on a simulated GPU, and asserts that it ends with the same bytes.

    It gets the finished run on the CPU, and returns the directory of the new one and the GPU.
    """

    def run(finished: RunDirectory) -> tuple[RunDirectory, SimulatedGPU]:
        directory = RunDirectory(tmp_path / "on_gpu")
        with simulated_cuda() as gpu:
            run_pipeline(resolve({**finished.config(), "device": "cuda"}), directory, gates=False)
        here, there = results(finished.path), results(directory.path)
        assert [name for name in {**here, **there} if here.get(name) != there.get(name)] == []
        here, there = (read_json(run.path / "report" / "summary.json") for run in (finished, directory))
        assert figures_of(here) == figures_of(there)
        return directory, gpu

    return run


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


def act_at(event: str, path: Path, act: Callable[[], object], count: int = 1) -> None:
    """Act when this process is about to do something with a file for the nth time; for a child, it cannot be undone.

    Args:
        event: as Python audits it: `open`, `os.mkdir`, `os.rename` (to the file), ...
        path: the file.
        act: called without arguments.
        count: the time that counts.
    """
    left = [count]

    def watch(name: str, values: tuple) -> None:
        if name == event and str(path) in map(str, values[:2]):
            left[0] -= 1
            if left[0] == 0:
                act()

    sys.addaudithook(watch)


def die() -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


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
def at() -> Callable:
    """The function `act_at`."""
    return act_at


@pytest.fixture
def killed(processes):
    """Return a function that does a work in a child, kills it -9 when it is about to touch a file, and says if it was.

    Its further arguments are those of `act_at`.
    """

    def start(work: Callable[[], object], event: str, path: Path, count: int = 1) -> bool:
        def until(_: int) -> None:
            act_at(event, path, die, count)
            work()

        return processes(until, 1).codes() == [-signal.SIGKILL]

    return start


@pytest.fixture
def together(processes):
    """Return a function that calls the command `run` in two processes.

    What is done before it in a process, as `first`, gets its number.
    """

    def start(*arguments: object, first: Callable[[int], object] = id) -> Processes:
        def work(number: int) -> None:
            first(number)
            raise SystemExit(import_module("pdiff.commands.run").main(["--launcher", "pytorch", *map(str, arguments)]))

        return processes(work)

    return start


@pytest.fixture
def call(capsys):
    """Return a function that calls a command in this process, and returns its exit code and what it printed."""

    def run(command: str, *arguments: object) -> SimpleNamespace:
        try:
            code = import_module(f"pdiff.commands.{command}").main(list(map(str, arguments)))
        except SystemExit as error:  # of the parser
            code = error.code
        finally:
            logging.getLogger("pdiff").setLevel(logging.NOTSET)
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return run
