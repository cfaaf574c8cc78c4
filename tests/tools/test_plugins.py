"""The command `plugins`, new and check, as a user calls them."""

import re


def test_new_plugin_is_written_and_passes_its_check(call, tmp_path):
    done = call("plugins", "new", "mine", "--path", str(tmp_path))
    assert (done.code, done.err) == (0, "")
    done = call("plugins", "check", str(tmp_path / "mine" / "mine"), "--cfg-options", "collect.train=50")
    assert done.code == 0, done.out
    assert "stopped after 2 snapshots, it ends with the same 4" in done.out


def test_check_prints_the_broken_rule_and_exits_with_1(call, tmp_path, empty_plugin):
    (tmp_path / "empty.py").write_text(empty_plugin + "\n\n@pdiff.hookimpl\ndef collect():\n    pass\n")
    done = call("plugins", "check", str(tmp_path / "empty.py"))
    assert done.code == 1
    row = next(line for line in done.out.splitlines() if " build " in line)
    assert "failed" in row
    assert "build returned None, expected pdiff.Task" in row


def test_check_on_a_simulated_gpu_tells_of_a_network_that_stays_on_the_cpu(call, tmp_path):
    plugin = """
import torch
from pdiff import *

@hookimpl
def build(cfg):
    return Task(torch.nn.Linear(2, 2), {"select": None, "test": None}, Metric("accuracy"))

@hookimpl
def collect():
    yield

@hookimpl
def evaluate(task):
    pass
"""
    (tmp_path / "stays.py").write_text(plugin)
    done = call("plugins", "check", str(tmp_path / "stays.py"), "--simulate-cuda")
    assert done.code == 1
    words = " ".join(re.findall(r"[\w:.]+", done.out))  # of a table, whose lines are broken
    assert "build returned a network on cpu expected cuda:0 the device of the run" in words


def test_what_is_mended_before_checking_is_one_line_and_exit_code_2(call, tmp_path):
    for arguments, words in (
        (["new", "my-task", "--path", str(tmp_path)], "new: got 'my-task', expected a Python identifier"),
        (["check", "clasification"], "plugin: got 'clasification'. Did you mean 'classification'?"),
    ):
        done = call("plugins", *arguments)
        assert (done.code, len(done.err.strip().splitlines())) == (2, 1)
        assert done.err.startswith(f"error: {words}")
