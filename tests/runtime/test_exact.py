"""Flags for arithmetic that a GPU repeats: set for a while and given back; where they do not help, that is said."""

import logging
import os
import warnings
from contextlib import suppress

import pytest
import torch
from torch.backends import cuda, cudnn, mkldnn

from pdiff.runtime import exact as module
from pdiff.runtime.exact import exact, flags, given_back, prepare

GPU = torch.device("cuda")
EXACT = {
    "deterministic_algorithms": "where there are any",
    "cudnn_deterministic": True,
    "cudnn_benchmark": False,
    "tf32_products": False,
    "tf32_convolutions": False,
    "cublas_workspace": ":4096:8",
}


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine that says it has a GPU; what the test sets of torch is given back after it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv(module.WORKSPACE, raising=False)
    with given_back():
        yield
    os.environ.pop(module.WORKSPACE, None)


def test_flags_hold_in_the_block_and_are_given_back_after_an_error_too():
    cudnn.benchmark = True
    before = flags()
    with suppress(ZeroDivisionError), exact(GPU):
        assert flags() == EXACT
        assert not torch.utils.deterministic.fill_uninitialized_memory
        raise ZeroDivisionError
    assert flags() == {**before, "cublas_workspace": ":4096:8"}  # which cuBLAS has read by then
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_without_a_device_the_gpu_is_meant():
    with exact():
        assert flags() == EXACT


@pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("meta")])
def test_nothing_is_touched_for_a_cpu(device):
    before = flags()
    prepare(device)
    with exact(device):
        assert flags() == before


def test_nothing_is_touched_on_a_machine_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = flags()
    with exact():
        assert flags() == before


def test_workspace_that_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv(module.WORKSPACE, ":16:8")
    prepare(GPU)
    with exact(GPU):
        assert flags()["cublas_workspace"] == ":16:8"


def test_block_in_a_block_sets_the_flags_again_that_a_library_has_changed():
    with exact(GPU):
        cudnn.benchmark = True
        with exact(GPU):
            assert flags() == EXACT
        assert cudnn.benchmark
    assert not cudnn.benchmark


def test_what_a_library_sets_ends_with_the_block():
    before = flags()
    with given_back():
        cudnn.benchmark, cudnn.deterministic = True, True
        torch.set_float32_matmul_precision("high")
    assert flags() == before


def use_products():
    torch.set_float32_matmul_precision("medium")


def use_old_names():
    cudnn.allow_tf32, cuda.matmul.allow_tf32 = False, True


def use_new_names():
    cudnn.conv.fp32_precision, cuda.matmul.fp32_precision = "ieee", "tf32"


@pytest.mark.parametrize("use", [use_products, use_old_names, use_new_names])
def test_both_of_torch_s_names_for_tf32_are_given_back(use):
    use()
    operations = (*module.TF32, mkldnn.matmul)
    names = [operation.fp32_precision for operation in operations]
    with exact(GPU):
        assert flags() == EXACT
        assert (cudnn.allow_tf32, cuda.matmul.allow_tf32) == (False, False)
        assert torch.get_float32_matmul_precision() == "highest"
    assert [operation.fp32_precision for operation in operations] == names


def test_operation_without_a_deterministic_kernel_is_named_once(caplog, recwarn):
    caplog.set_level(logging.WARNING, "pdiff")
    words = "does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True"
    with exact(GPU):
        for _ in range(2):
            warnings.warn(f"index_add_cuda_ {words}", UserWarning, stacklevel=1)
        attention = "Memory Efficient attention defaults to a non-deterministic algorithm. To explicitly enable"
        warnings.warn(attention, UserWarning, stacklevel=1)
    assert [record.getMessage() for record in caplog.records] == [
        "index_add_cuda_ has no deterministic kernel: its last digits may differ from run to run",
        "Memory Efficient attention has no deterministic kernel: its last digits may differ from run to run",
    ]
    assert not recwarn.list


def test_other_warnings_go_where_they_went():
    with pytest.warns(UserWarning, match="of another kind"), exact(GPU):
        warnings.warn("of another kind", UserWarning, stacklevel=1)
