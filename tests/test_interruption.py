"""Real runs that are killed, or run out of disk, and then go on with --resume."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pdiff.run.directory import ORDER, RunDirectory

ROOT = Path(__file__).parents[1]


@pytest.fixture
def command(tiny, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    arguments = ["--config", str(tmp_path / "tiny.yaml"), "--work-dir", str(tmp_path / "run"), "--no-gates"]
    return [sys.executable, str(ROOT / "tools" / "run.py"), *arguments]


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


# Where to kill: in the base training, among the snapshots, in each of the other stages.
MOMENTS = {
    "training": lambda run: (run / "population" / "collect.state.safetensors").exists(),
    "collecting": lambda run: lines(run / "population" / "provenance.jsonl") >= 4,
    "fitting": lambda run: (run / "engine" / "logs").exists(),
    "generating": lambda run: (run / "samples").exists(),
    "evaluating": lambda run: (run / "evaluation" / "generated.jsonl").exists(),
    "comparing": lambda run: (run / "report").exists(),
}


def kill_at(command: list[str], run: Path, moment) -> bool:
    """Start a run, kill -9 it at a moment, and say whether it was still alive then."""
    process = subprocess.Popen([*command, "--resume"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not moment(run):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_run_that_is_killed_again_and_again_ends_with_the_same_bytes(command, tmp_path, finished, results):
    killed = [name for name, moment in MOMENTS.items() if kill_at(command, tmp_path / "run", moment)]
    assert killed == list(MOMENTS)
    done = subprocess.run([*command, "--resume"], check=True, capture_output=True, text=True)
    assert results(tmp_path / "run") == results(finished.path)
    assert "generated" in done.stdout


STATE_AT_EVERY_STEP = """
import sys
from pathlib import Path
from pdiff.run.config import load_config
from pdiff.engine import training
from pdiff.stages.pipeline import run_pipeline
from pdiff.run.directory import RunDirectory

training.SECONDS_BETWEEN_STATES = 0
run_pipeline(load_config(None, sys.argv[1], {}, {}), RunDirectory(Path(sys.argv[2])), resume=True, gates=False)
"""


def test_fit_that_is_killed_between_two_steps_goes_on_to_the_same_bytes(tmp_path, tiny, finished, results):
    shutil.copytree(finished.path, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    directory.drop(ORDER[1:])
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    command = [sys.executable, "-c", STATE_AT_EVERY_STEP, str(tmp_path / "tiny.yaml"), str(directory.path)]
    assert kill_at(command, directory.path, lambda run: (run / "engine" / "denoiser.state.safetensors").exists())
    assert not (directory.path / "engine" / "engine.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert results(directory.path) == results(finished.path)


def test_plugin_that_keeps_no_state_is_resumed_by_collecting_again(tmp_path):
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    code, config = (re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)[1] for language in ("python", "yaml"))
    (tmp_path / "moons.py").write_text(code)
    (tmp_path / "moons.yaml").write_text(config)
    run = tmp_path / "run"
    command = [sys.executable, str(ROOT / "tools" / "run.py"), "--plugin", str(tmp_path / "moons.py"), "--stage"]
    command = [*command, "collect", "--work-dir", str(run)]
    assert kill_at(command, run, lambda run: lines(run / "population" / "provenance.jsonl") >= 7)
    kept = (run / "population" / "vectors.f32").read_bytes()
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    assert lines(run / "population" / "provenance.jsonl") == 100
    assert (run / "population" / "vectors.f32").read_bytes().startswith(kept[: 7 * 66 * 4])


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


def test_disk_that_is_full_is_one_clear_line_and_nothing_is_lost(command, tmp_path, finished, results):
    failed = subprocess.run(command, preexec_fn=limit_file_size, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "cannot be written (File too large). Make room" in last
    assert "Traceback" not in failed.stderr
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    assert results(tmp_path / "run") == results(finished.path)


def is_one_line_about(failed: subprocess.CompletedProcess, path: Path, reason: str) -> bool:
    line = f"error: {path}: cannot be written ({reason}). Make room or give another --work-dir"
    return failed.returncode == 2 and failed.stderr.startswith(line) and failed.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_folder_without_permission_is_one_clear_line(command, tmp_path):
    (tmp_path / "run").mkdir(mode=0o555)
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert is_one_line_about(failed, tmp_path / "run", "Permission denied")


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && echo mounted && exec "$@"'


def test_read_only_file_system_is_one_clear_line(command, tmp_path):
    (tmp_path / "run").mkdir()
    alone = ["unshare", "--mount", "sh", "-c", READ_ONLY, str(tmp_path / "run")]  # nobody else sees the mount
    failed = subprocess.run([*alone, *command], capture_output=True, text=True, check=False)
    if not failed.stdout.startswith("mounted"):
        pytest.skip(f"no read-only file system can be made here: {failed.stderr.strip()}")
    assert is_one_line_about(failed, tmp_path / "run", "Read-only file system")


def test_run_directory_below_a_file_is_one_clear_line(command, tmp_path):
    (tmp_path / "run").write_text("")
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert is_one_line_about(failed, tmp_path / "run", "File exists")


def test_second_run_in_the_same_directory_is_refused(command, tmp_path):
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "run" / "config.yaml").exists() and first.poll() is None:
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)  # so that it surely lasts as long as the second
    second = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    first.kill()
    first.wait()
    assert second.returncode == 2
    assert second.stderr == (
        f"error: {tmp_path / 'run'}: another run is using it. Wait for it, or give another --work-dir.\n"
    )
