"""What is found on a GPU and brought to the host in few copies."""

import pytest
import torch

from pdiff.runtime.delivery import to_host
from pdiff.testing.simulated_cuda import simulated_cuda

TENSORS = [
    torch.tensor([True, False, True]),
    torch.arange(6).view(2, 3),
    torch.rand(4, 1),
    torch.zeros(0, 4),
    torch.tensor(7, dtype=torch.int16),
    torch.arange(12.0).view(3, 4).T,
    torch.tensor([0.5, 3e38], dtype=torch.bfloat16),
]


def same(ones, others) -> bool:
    """Say whether tensors of the CPU have the same values, shapes and types."""
    pairs = list(zip(ones, others, strict=True))
    return all(a.device.type == "cpu" and a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def test_tensors_of_a_gpu_come_by_one_copy_as_they_are():
    with simulated_cuda() as gpu:
        away = [tensor.cuda() for tensor in TENSORS]
        gpu.reset()
        found = to_host(away)
        assert gpu.copies_to_host == gpu.syncs == 1
        assert same(found, TENSORS)


def test_those_of_the_host_are_not_copied():
    with simulated_cuda():
        mixed = [TENSORS[0], TENSORS[1].cuda(), TENSORS[2]]
        found = to_host(mixed)
        assert same(found, TENSORS[:3])
    assert found[0] is TENSORS[0]
    assert to_host([]) == []


@pytest.mark.parametrize(("sizes", "copies"), [((40, 40, 40), 2), ((200, 10, 80), 2), ((100,), 1), ((60, 60, 60), 3)])
def test_a_copy_has_no_more_bytes_than_it_may_unless_one_tensor_has(sizes, copies):
    tensors = [torch.randint(256, (size,), dtype=torch.uint8) for size in sizes]
    with simulated_cuda() as gpu:
        away = [tensor.cuda() for tensor in tensors]
        gpu.reset()
        assert same(to_host(away, most=100), tensors)
        assert gpu.copies_to_host == copies


def test_what_is_brought_has_no_gradient_and_a_memory_of_its_own():
    with simulated_cuda():
        weight, bias = (torch.zeros(3, device="cuda", requires_grad=True) for _ in range(2))
        found = to_host([weight, bias])
        assert not any(tensor.requires_grad for tensor in found)
        found[0] += 1
        assert same(found, [torch.ones(3), torch.zeros(3)])
