"""tools/compare.py as a user calls it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def call(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / "compare.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_runs_are_set_side_by_side(tmp_path, compared):
    done = call(tmp_path, compared("one"), compared("two"), "-o", "all.html")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("comparison: all.html, all.png\n")
    assert (tmp_path / "all.html").is_file()
    assert (tmp_path / "all.png").is_file()


def test_mistake_is_one_line_and_exit_code_2(tmp_path, compared):
    done = call(tmp_path, compared("one"), tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'none'}: is no run directory")
    assert len(done.stderr.strip().splitlines()) == 1


def test_output_that_cannot_be_written_is_one_line(tmp_path, compared):
    (tmp_path / "file").write_text("")
    done = call(tmp_path, compared("one"), "-o", "file/all.html")
    assert done.returncode == 2
    assert "file/all.png: cannot be written" in done.stderr
