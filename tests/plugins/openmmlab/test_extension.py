"""The stand-in for `mmcv._ext`: when it is put in, what it answers, and what importing it does not load."""

import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pdiff_plugins.openmmlab.extension import INSTALL, provide_operators

from pdiff.runtime.errors import PdiffError

mmcv = pytest.importorskip("mmcv")
pytestmark = pytest.mark.filterwarnings("ignore:.*MultiScaleDeformableAttention.*:ImportWarning")

REPORT = "print(sorted({'mmcv', 'mmcv.ops', 'torchvision', 'pdiff_plugins'} & set(sys.modules)))"
LOADED = f"""
import sys
from pdiff_plugins.openmmlab.extension import provide_operators
{REPORT}
try:
    import mmcv.ops
except ModuleNotFoundError as error:
    print(error)
print(provide_operators())
{REPORT}
import mmcv.ops
"""


@pytest.fixture(scope="module")
def ops():
    """Return `mmcv.ops` with the stand-in."""
    if not provide_operators():
        pytest.skip("a compiled mmcv is installed")
    return importlib.import_module("mmcv.ops")


def bound() -> dict[str, list[str]]:
    """Return the argument names of the compiled operators, from mmcv's own binding; the names of overloads are left."""
    text = (Path(mmcv.__file__).parent / "ops/csrc/pytorch/pybind.cpp").read_text(encoding="utf-8")
    definitions = re.findall(r'm\.def\(\s*"(\w+)",(.*?)\);', text, re.DOTALL)
    return {name: re.findall(r'py::arg\("(\w+)"\)', rest) for name, rest in definitions}


def test_importing_the_module_loads_neither_mmcv_nor_torchvision_and_mmcv_needs_the_stand_in(ops):
    done = subprocess.run([sys.executable, "-c", LOADED], check=True, capture_output=True, text=True)
    before, error, provided, after = done.stdout.splitlines()
    assert before == "['pdiff_plugins']"
    assert error == "No module named 'mmcv._ext'"
    assert provided == "True"
    assert after == "['mmcv', 'pdiff_plugins', 'torchvision']"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a package in the place of mmcv until the end of the test, one that was built with its operators."""
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    (tmp_path / "mmcv" / "_ext.py").write_text("compiled = 'compiled'\n")
    own = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "mmcv"}
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("mmcv", "mmcv._ext"):
        sys.modules.pop(name, None)
    sys.modules.update(own)


def test_a_compiled_extension_is_left_untouched(fake):
    assert [provide_operators(), provide_operators()] == [False, False]
    assert "mmcv._ext" not in sys.modules
    assert importlib.import_module("mmcv._ext").compiled == "compiled"


def test_repeating_it_keeps_the_module(ops):
    module = sys.modules["mmcv._ext"]
    assert provide_operators()
    assert sys.modules["mmcv._ext"] is mmcv._ext is module


def test_mmengine_takes_the_operators_for_installed(ops):
    from mmengine.utils.dl_utils.misc import mmcv_full_available

    assert mmcv_full_available()
    spec = importlib.util.find_spec("mmcv._ext")
    assert spec.name == "mmcv._ext"
    assert spec.loader


def test_mmcv_lists_its_environment(ops):
    assert (ops.get_compiler_version(), ops.get_compiling_cuda_version()) == ("n/a", "n/a")


def zeros(*shape: int) -> torch.Tensor:
    """Return a tensor that wants a gradient, for which some operators compute more."""
    return torch.zeros(shape, requires_grad=True)


# Operators that a few networks of mmdet and mmseg ask for.
MISSING = {
    "carafe_forward": lambda ops: ops.carafe(zeros(1, 4, 2, 2), zeros(1, 9, 4, 4), 3, 1, 2),
    "bbox_overlaps": lambda ops: ops.bbox_overlaps(zeros(2, 4), zeros(3, 4)),
    "masked_im2col_forward": lambda ops: ops.MaskedConv2d(3, 4, 3)(zeros(1, 3, 6, 7), torch.ones(1, 6, 7)),
    "nms_match": lambda ops: ops.nms_match(torch.zeros(2, 5), 0.5),
    "psamask_forward": lambda ops: ops.PSAMask("collect", (3, 3))(zeros(1, 9, 4, 3)),
    "softmax_focal_loss_forward": lambda ops: ops.softmax_focal_loss(zeros(2, 3), torch.tensor([0, 1])),
}


@pytest.mark.parametrize("name", MISSING)
def test_an_operator_that_is_not_there_says_so_when_it_is_called(ops, name):
    line = (
        f"mmcv: the operator {name} is only in the compiled mmcv, which is not installed. Install an mmcv that "
        f"was built with its operators (under torch 2.13 or older, with a C++ compiler: {INSTALL}), or choose a "
        "network that does without it."
    )
    with pytest.raises(PdiffError, match=f"^{re.escape(line)}$"):
        MISSING[name](ops)


def test_a_name_that_is_no_operator_is_absent(ops):
    with pytest.raises(AttributeError, match=r"^module 'mmcv\._ext' has no attribute '__file__'$"):
        mmcv._ext.__file__


def test_operators_take_the_arguments_of_the_compiled_ones(ops):
    from pdiff_plugins.openmmlab import operators

    compiled = bound()
    own = {name: list(inspect.signature(getattr(operators, name)).parameters) for name in operators.__all__}
    assert own == {name: compiled[name] for name in own}
