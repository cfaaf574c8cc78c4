"""The comparison of mmengine's Runner with a bare loop."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_runner_and_bare_loop_end_with_the_same_weights():
    tool, arguments = ROOT / "tools" / "bench" / "runner.py", ("--size", "64", "--steps", "6", "--turns", "1")
    done = subprocess.run([sys.executable, str(tool), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("Runner over bare") for line in lines)
    assert lines[-1].split()[2] == "0.0e+00"
