"""The bench of growing vectors."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def test_a_size_and_the_figure_are_written_for_a_codec(tmp_path):
    arguments = ("--sizes", "300", "600", "--rows", "4", "--codec", "tokens", "-o", str(tmp_path / "scale.png"))
    tool = ROOT / "tools" / "bench" / "scale.py"
    done = subprocess.run([sys.executable, str(tool), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *_, first, second, growth, _ = done.stdout.splitlines()
    assert first.startswith("| 300 | tokens | ")
    assert second.startswith("| 600 | tokens | ")
    assert growth.startswith("tokens: a step takes ")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
