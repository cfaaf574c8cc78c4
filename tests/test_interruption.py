"""Real runs that are killed, or run out of disk, and then go on with --resume."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import yaml

from pdiff.commands import run
from pdiff.engine import training
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.stages.pipeline import run_pipeline

ROOT = Path(__file__).parents[1]


@pytest.fixture
def arguments(tiny, tmp_path) -> list[str]:
    """What the command `run` takes for a tiny run."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    return ["--config", str(tmp_path / "tiny.yaml"), "--work-dir", str(tmp_path / "run"), "--no-gates"]


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


# Where to kill, by what is about to be done with a file: in the base training, whose second state is written but
# not yet there, among the snapshots, and in each of the other stages.
MOMENTS = {
    "training": ("os.rename", "population/branches/0/collect.state.safetensors", 2),
    "collecting": ("open", "population/branches/3/provenance.jsonl", 2),
    "fitting": ("os.rename", "engine/denoiser.state.safetensors", 1),
    "generating": ("os.rename", "samples/vectors.safetensors", 1),
    "evaluating": ("os.rename", "evaluation/generated.jsonl", 1),
    "comparing": ("os.rename", "report/table.md", 1),
}


def test_run_that_is_killed_again_and_again_ends_with_the_same_bytes(
    arguments, killed, call, tmp_path, finished, results
):
    rows = []
    for name, (event, file, count) in MOMENTS.items():
        again = partial(run.main, [*arguments, "--resume"])
        assert killed(again, event, tmp_path / "run" / file, count), name
        rows.append(sum(map(lines, (tmp_path / "run" / "population").rglob("provenance.jsonl"))))
    assert rows[0] == 0
    assert 0 < rows[1] < rows[2] == 10
    done = call("run", *arguments, "--resume")
    assert results(tmp_path / "run") == results(finished.path)
    assert "generated" in done.out


def test_fit_that_is_killed_between_two_steps_goes_on_to_the_same_bytes(
    tiny, killed, tmp_path, finished, results, monkeypatch
):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_STATES", 0)
    shutil.copytree(finished.path, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    directory.drop(ORDER[1:])
    go_on = partial(run_pipeline, resolve(tiny), directory, resume=True, gates=False)
    state = directory.path / "engine" / "denoiser.state.safetensors"
    assert killed(go_on, "os.rename", state, 8)
    assert state.exists()
    assert not (directory.path / "engine" / "engine.json").exists()
    go_on()
    assert results(directory.path) == results(finished.path)


def test_plugin_that_keeps_no_state_is_resumed_by_collecting_again(killed, tmp_path):
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    code, config = (re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)[1] for language in ("python", "yaml"))
    (tmp_path / "moons.py").write_text(code)
    (tmp_path / "moons.yaml").write_text(config)
    population = tmp_path / "run" / "population"
    command = ["--plugin", str(tmp_path / "moons.py"), "--stage", "collect", "--work-dir", str(tmp_path / "run")]
    assert killed(partial(run.main, command), "open", population / "provenance.jsonl", 9)
    assert 0 < lines(population / "provenance.jsonl") < 9
    kept = (population / "vectors.f32").read_bytes()
    assert run.main([*command, "--resume"]) == 0
    assert lines(population / "provenance.jsonl") == 100
    assert (population / "vectors.f32").read_bytes().startswith(kept)


def test_disk_that_is_full_is_one_clear_line_and_nothing_is_lost(
    arguments, processes, call, tmp_path, finished, results
):
    def fill(_: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        raise SystemExit(run.main(arguments))

    failed = processes(fill, 1)
    assert failed.codes() == [2]
    last = failed.text("err").strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "cannot be written (File too large). Make room" in last
    assert "Traceback" not in failed.text("err")
    assert call("run", *arguments, "--resume").code == 0
    assert results(tmp_path / "run") == results(finished.path)


def is_one_line_about(error: str, path: Path, reason: str) -> bool:
    line = f"error: {path}: cannot be written ({reason}). Make room or give another --work-dir"
    return error.startswith(line) and error.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_folder_without_permission_is_one_clear_line(arguments, call, tmp_path):
    (tmp_path / "run").mkdir(mode=0o555)
    failed = call("run", *arguments)
    assert failed.code == 2
    assert is_one_line_about(failed.err, tmp_path / "run", "Permission denied")


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && echo mounted && exec "$@"'


@pytest.mark.slow
def test_read_only_file_system_is_one_clear_line(arguments, tmp_path):
    (tmp_path / "run").mkdir()
    alone = ["unshare", "--mount", "sh", "-c", READ_ONLY, str(tmp_path / "run")]  # nobody else sees the mount
    command = [*alone, sys.executable, str(ROOT / "tools" / "run.py"), *arguments]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    if not failed.stdout.startswith("mounted"):
        pytest.skip(f"no read-only file system can be made here: {failed.stderr.strip()}")
    assert failed.returncode == 2
    assert is_one_line_about(failed.stderr, tmp_path / "run", "Read-only file system")


def test_run_directory_below_a_file_is_one_clear_line(arguments, call, tmp_path):
    (tmp_path / "run").write_text("")
    failed = call("run", *arguments)
    assert failed.code == 2
    assert is_one_line_about(failed.err, tmp_path / "run", "File exists")


def test_second_run_in_the_same_directory_is_refused(arguments, processes, at, call, tmp_path):
    begun = get_context("fork").Event()

    def stop(_: int) -> None:
        at("os.rename", tmp_path / "run" / "config.yaml", lambda: begun.set() or signal.pause())
        run.main(arguments)

    processes(stop, 1)
    assert begun.wait(60)
    second = call("run", *arguments, "--resume")
    assert second.code == 2
    assert second.err == (
        f"error: {tmp_path / 'run'}: another run is using it. Wait for it, or give another --work-dir.\n"
    )
