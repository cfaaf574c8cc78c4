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

from pdiff.rundir import STAGES, RunDirectory

ROOT = Path(__file__).parents[1]


@pytest.fixture
def command(tiny, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    arguments = ["--config", str(tmp_path / "tiny.yaml"), "--work-dir", str(tmp_path / "run"), "--no-gates"]
    return [sys.executable, str(ROOT / "tools" / "run.py"), *arguments]


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


# Where to kill: in the base training, among the snapshots, in the fit, among the evaluations.
MOMENTS = {
    "training": lambda run: (run / "population" / "collect.state.safetensors").exists(),
    "collecting": lambda run: lines(run / "population" / "provenance.jsonl") >= 4,
    "fitting": lambda run: (run / "engine" / "logs").exists(),
    "evaluating": lambda run: (run / "evaluation" / "generated.jsonl").exists(),
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
from pdiff.config import load_config
from pdiff.models import training
from pdiff.pipeline import run_pipeline
from pdiff.rundir import RunDirectory

training.SECONDS_BETWEEN_STATES = 0
run_pipeline(load_config(None, sys.argv[1], {}, {}), RunDirectory(Path(sys.argv[2])), resume=True, gates=False)
"""


def test_fit_that_is_killed_between_two_steps_goes_on_to_the_same_bytes(tmp_path, tiny, finished, results):
    shutil.copytree(finished.path, tmp_path / "run")
    directory = RunDirectory(tmp_path / "run")
    directory.drop(STAGES[1:])
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_read_only_folder_is_one_clear_line(command, tmp_path):
    (tmp_path / "run").mkdir(mode=0o555)
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "cannot be written" in failed.stderr
