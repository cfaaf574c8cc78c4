"""The bench of all that needs a GPU; here on the CPU, at tiny sizes."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pdiff.testing.simulated_cuda import simulated_cuda

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tools" / "bench" / "gpu.py"


@pytest.fixture(scope="module")
def tool() -> Iterator:
    """The module of the tool."""
    spec = importlib.util.spec_from_file_location("gpu", FILE)
    module = sys.modules["gpu"] = importlib.util.module_from_spec(spec)  # where its dataclasses look for their types
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu"]


def test_without_a_gpu_the_page_says_that_nothing_was_run_and_how(tool, tmp_path, capsys):
    assert tool.main(["-o", str(tmp_path / "gpu.md")]) == 0
    page = (tmp_path / "gpu.md").read_text()
    assert "Not run: no GPU was at hand." in page
    assert tool.COMMAND in page
    assert all(f"| {name} | " in page for name in tool.PARTS)
    assert "nothing was run" in capsys.readouterr().out


def test_all_parts_together_end_in_ten_minutes(tool):
    assert sum(part.limit for part in tool.PARTS.values()) < 600


def test_the_page_has_a_table_for_each_part_with_a_row_for_what_failed(tool):
    rows = [("a step", "2 s", "1 s", ""), ("", "", "failed", "RuntimeError: this | that")]
    page = tool.page({"presets": rows}, "A machine.")
    assert "A machine." in page
    assert "## Fitting and drawing" in page
    assert page.endswith("| a step | 2 s | 1 s |  |\n|  |  | failed | RuntimeError: this / that |\n")


def test_what_cannot_be_done_is_a_row_with_the_error_behind_those_that_are_there(tool):
    def rows():
        yield "bfloat16", "", "1 s", ""
        raise RuntimeError("no kernel\nmore words")

    assert list(tool.tried("bfloat16", rows())) == [
        ("bfloat16", "", "1 s", ""),
        ("bfloat16", "", "failed", "RuntimeError: no kernel"),
    ]


def test_rows_of_two_devices_that_tell_of_the_same_become_one(tool):
    rows = [tool.row("a step", "cuda", "1 s", "N = 8"), ("", "", "failed", "this"), tool.row("a step", "cpu", "2 s")]
    assert tool.merged(rows) == [("a step", "2 s", "1 s", "N = 8"), ("", "", "failed", "this")]
    assert tool.merged([*rows, tool.row("a step", "cuda", "3 s")])[-1] == ("a step", "", "3 s", "")


def test_the_gpu_is_measured_first(tool):
    assert tool.devices(tool.FULL) == ["cuda", "cpu"]
    assert tool.devices(tool.TRY) == ["cpu"]


LONG = """
import subprocess, sys, time
with open(sys.argv[sys.argv.index("--rows") + 1], "w") as rows:
    rows.write('["a step", "", "1 s", ""]\\n')
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(__file__ + ".child", "w").write(str(child.pid))
time.sleep(600)
"""


@pytest.mark.slow
def test_a_part_that_takes_too_long_is_stopped_with_what_it_started_and_leaves_its_rows(tool, tmp_path, monkeypatch):
    (tmp_path / "long.py").write_text(LONG)
    monkeypatch.setattr(tool, "__file__", str(tmp_path / "long.py"))
    rows = tool.measured("demo", True, 10)
    assert rows == [("a step", "", "1 s", ""), ("", "", "stopped", "after 10 s, its limit")]
    child = int((tmp_path / "long.py.child").read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rpartition(") ")[2].startswith("Z")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tests", "presets", "replay", "many", "lengths", "arithmetic", "demo", "processes"])
def test_every_part_runs_at_tiny_sizes_on_the_cpu(tool, tmp_path, name):
    assert tool.main(["--try", str(tmp_path / "tried.md"), "--only", name]) == 0
    page = (tmp_path / "tried.md").read_text()
    assert "no measurement" in page
    assert f"## {tool.PARTS[name].title}" in page
    assert not {"failed", "stopped"} & {cell for line in page.splitlines() for cell in line.split(" | ")}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["presets", "replay", "lengths", "demo"])
def test_parts_mix_no_devices_on_a_simulated_gpu(tool, name):
    with simulated_cuda():
        rows = tool.merged(list(tool.PARTS[name].measure(replace(tool.TRY, device="cuda"))))
    assert not {"failed", "stopped"} & {gpu for _, _, gpu, _ in rows}
    assert all(gpu for _, _, gpu, _ in rows if name != "replay")
    assert name != "replay" or all("identical 3 of 3" in remark for *_, remark in rows)
    apart = [gpu for what, _, gpu, _ in rows if what.endswith("apart")]
    assert apart == (["0.0e+00"] * 3 if name == "presets" else [])
