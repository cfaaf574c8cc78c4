"""The stand-in for `mmcv._ext`: when it is put in, what it answers, and what importing it does not load."""

import importlib
import importlib.util
import inspect
import os
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
FAKE = """
import sys
from pdiff_plugins.openmmlab.extension import provide_operators
print(provide_operators(), provide_operators())
print("mmcv._ext" in sys.modules)
import mmcv._ext
print(mmcv._ext.compiled)
"""


@pytest.fixture(scope="module")
def ops():
    """Return `mmcv.ops` with the stand-in."""
    if not provide_operators():
        pytest.skip("a compiled mmcv is installed")
    return importlib.import_module("mmcv.ops")


def run(code: str, path: Path | None = None) -> list[str]:
    """Return the lines that a program prints in a fresh interpreter, whose first place to import from is `path`."""
    env = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env)
    return done.stdout.splitlines()


def bound() -> dict[str, list[str]]:
    """Return the argument names of the compiled operators, from mmcv's own binding; the names of overloads are left."""
    text = (Path(mmcv.__file__).parent / "ops/csrc/pytorch/pybind.cpp").read_text(encoding="utf-8")
    definitions = re.findall(r'm\.def\(\s*"(\w+)",(.*?)\);', text, re.DOTALL)
    return {name: re.findall(r'py::arg\("(\w+)"\)', rest) for name, rest in definitions}


def test_importing_the_module_loads_neither_mmcv_nor_torchvision_and_mmcv_needs_the_stand_in(ops):
    before, error, provided, after = run(LOADED)
    assert before == "['pdiff_plugins']"
    assert error == "No module named 'mmcv._ext'"
    assert provided == "True"
    assert after == "['mmcv', 'pdiff_plugins', 'torchvision']"


def test_a_compiled_extension_is_left_untouched(tmp_path):
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").touch()
    (tmp_path / "mmcv" / "_ext.py").write_text("compiled = 'compiled'\n")
    assert run(FAKE, tmp_path) == ["False False", "False", "compiled"]


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
