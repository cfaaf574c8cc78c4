"""Files that would run code are refused by a line that names what they would call, and nothing is called."""

import builtins
import copyreg
import os
import pickle
import subprocess
import sys

import pytest
import torch

from pdiff.files.archives import read_content
from pdiff.files.nesting import tensors
from pdiff.files.reader import Reader
from pdiff.runtime.errors import PdiffError
from tests.files.gadgets import STATE, call, function, gadgets, pickled, push, text, write

NAMES = list(gadgets("mark"))
FORMS = [(legacy, beside) for legacy in (False, True) for beside in (False, True)]


@pytest.fixture
def mark(tmp_path):
    """Return a path at which gadgets make a file; nothing may be there, nor anything else have happened, afterwards."""
    before = builtins.open, os.system, dict(copyreg.dispatch_table), torch.nn.Module, sys.gettrace()
    path = tmp_path / "mark"
    yield str(path)
    assert not path.exists()
    assert "antigravity" not in sys.modules
    assert before == (builtins.open, os.system, dict(copyreg.dispatch_table), torch.nn.Module, sys.gettrace())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, mark, name):
    for legacy, beside in FORMS:
        path = write(tmp_path / "adapter_model.bin", gadgets(mark)[name], legacy, beside)
        with pytest.raises(PdiffError, match=r"adapter_model\.bin: ") as raised:
            Reader(torch.nn.Linear(2, 2)).read(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("os.system", "os.system"),
        ("eval of Python 2", "builtins.eval"),
        ("by attributes of a module", "os.path.os.system"),
        ("by getattr", "builtins.__import__, getattr.system"),
        ("by getattr of a harmless class", r"argparse.Namespace.__init__.__globals__"),
        ("functools.partial", "os.system"),
        ("a network", "torch.nn.modules.linear.Linear"),
    ],
)
def test_what_would_be_called_is_named(tmp_path, mark, name, said):
    with pytest.raises(PdiffError) as raised:
        read_content(write(tmp_path / "a.pth", gadgets(mark)[name], beside=True))
    assert f"a.pth: holds objects that are no tensors ({said}), and reading these could run code." in str(raised.value)


@pytest.mark.parametrize("name", ["os.system", "posix.system", "builtins.exec", "by STACK_GLOBAL", "by INST", "by OBJ"])
def test_such_files_do_run_code_where_pickle_reads_them(tmp_path, name):
    body = gadgets(str(tmp_path / "mark"))[name]
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({pickled(body)!r})"], check=True)
    assert (tmp_path / "mark").exists()


def pid(*values) -> bytes:
    """Return the opcodes that ask for an object of the program by a tuple."""
    return push(*values) + b"Q"


STORAGE = function("torch", "FloatStorage")
TENSOR = function("torch._utils", "_rebuild_tensor_v2")
NONE = pickle.dumps(({},), 2)[2:-1]


@pytest.mark.parametrize(
    "body",
    [
        pid("module", "x", "y", "z"),
        pid("file", STORAGE, "0", "cpu", 4),
        text("storage") + b"Q",
        pid("storage", "FloatStorage", "0", "cpu", 4),
        pid("storage", STORAGE, "0", "cpu", "four"),
        pid("storage", STORAGE, "0", "cpu", -1),
        b"\x82\x01",
        b"\x83\xff\xff",
        call(TENSOR, b"N", 0, push(2), push(1), b"\x89", b"}"),
        call(TENSOR, pid("storage", STORAGE, "0", "cpu", 4), 0, push(10**9), push(1), b"\x89", b"}"),
        call(TENSOR, pid("storage", STORAGE, "0", "cpu", 4), 0, push(-1), push(1), b"\x89", b"}"),
        call(TENSOR, pid("storage", STORAGE, "0", "cpu", 4), 0, push("a"), push(1), b"\x89", b"}"),
        TENSOR + b"}" + text("_call") + function("collections", "OrderedDict") + b"sb",
        TENSOR + push(b"N", b"}" + text("_call") + function("collections", "OrderedDict") + b"s") + b"b",
        function("collections", "OrderedDict") + b"}" + text("append") + text("x") + b"sb",
        pid("storage", STORAGE, "0", "cpu", 4) + b"}" + text("values") + text("x") + b"sb",
        b"\x96" + (1 << 60).to_bytes(8, "little"),
        b"",
        b"0",
        b"2" * 10,
    ],
)
def test_broken_pickles_are_refused(tmp_path, body):
    for legacy, beside in FORMS:
        with pytest.raises(PdiffError, match=r"a\.pth: .*(cannot be read|could run code)"):
            read_content(write(tmp_path / "a.pth", body, legacy, beside))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_larger_than_its_storage_in_the_file_is_refused(tmp_path, legacy):
    storage = pid("storage", STORAGE, "0", "cpu", 40)
    body = b"}" + text("weight") + call(TENSOR, storage, 0, push(1, 40), push(40, 1), b"\x89", b"}") + b"s"
    with pytest.raises(PdiffError, match=r"a\.pth: .*cannot be read"):
        Reader(torch.nn.Linear(40, 1, bias=False)).read(write(tmp_path / "a.pth", body, legacy))


def test_names_of_records_lead_nowhere_outside(tmp_path):
    storage = pid("storage", STORAGE, "../../../../etc/hostname", "cpu", 4)
    body = b"}" + text("weight") + call(TENSOR, storage, 0, push(2), push(1), b"\x89", b"}") + b"s"
    with pytest.raises(PdiffError, match=r"a\.pth: "):
        Reader(torch.nn.Linear(2, 1)).read(write(tmp_path / "a.pth", body))


def test_mappings_within_themselves_end(tmp_path):
    content = {"state_dict": STATE}
    content["self"] = content
    content["list"] = [content]
    for _ in range(40):
        content = {"a": content, "b": content}
    torch.save(content, tmp_path / "a.pth")
    assert len(tensors(read_content(tmp_path / "a.pth"))) in (0, 2)
