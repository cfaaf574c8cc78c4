"""tools/plugins.py new and check as a user calls them."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def call(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools" / "plugins.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_new_plugin_is_written_and_passes_its_check(tmp_path):
    done = call("new", "mine", "--path", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    done = call("check", str(tmp_path / "mine" / "mine"), "--cfg-options", "collect.train=50")
    assert done.returncode == 0, done.stdout
    assert "stopped after 2 snapshots, it ends with the same 4" in done.stdout


def test_check_prints_the_broken_rule_and_exits_with_1(tmp_path, empty_plugin):
    (tmp_path / "empty.py").write_text(empty_plugin + "\n\n@pdiff.hookimpl\ndef collect():\n    pass\n")
    done = call("check", str(tmp_path / "empty.py"))
    assert done.returncode == 1
    row = next(line for line in done.stdout.splitlines() if " build " in line)
    assert "failed" in row
    assert "build returned None, expected pdiff.Task" in row


def test_what_is_mended_before_checking_is_one_line_and_exit_code_2(tmp_path):
    for arguments, words in (
        (["new", "my-task", "--path", str(tmp_path)], "new: got 'my-task', expected a Python identifier"),
        (["check", "clasification"], "plugin: got 'clasification'. Did you mean 'classification'?"),
    ):
        done = call(*arguments)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
        assert done.stderr.startswith(f"error: {words}")
