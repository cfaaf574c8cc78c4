"""Memory that is used up is told in one line: whose it is and what to do; other errors stay what they are."""

import re

import pytest
import torch

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.memory import explain_used_up

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def explained(error: Exception, device: torch.device) -> None:
    with explain_used_up("evaluate", "lower task.eval_batch", device):
        raise error


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 24 GB of which 3.9 GB are free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3_900_000_000, 24_000_000_000))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
    ],
)
def test_memory_of_a_gpu_is_told_with_what_goes_on(gpu, error):
    line = (
        "evaluate: GPU memory is used up (20.1 GB of 24 GB). Give --device cpu: the same command with --resume then "
        "goes on. Or lower task.eval_batch, with --resume --overwrite: what does not depend on it is kept."
    )
    with pytest.raises(PdiffError, match=f"^{re.escape(line)}$"):
        explained(error, GPU)


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4000000000000 bytes."),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_memory_of_the_host_is_told_as_such(error, device):
    with pytest.raises(PdiffError, match="^evaluate: memory is used up. End other programs: the same command with"):
        explained(error, device)


def test_what_torch_really_raises_on_the_host_is_known():
    with pytest.raises(PdiffError, match="memory is used up"), explain_used_up("fit", "lower it", CPU):
        torch.empty(2**55)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), OSError(28, "No space left"), KeyError("a")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)):
        explained(error, CPU)
