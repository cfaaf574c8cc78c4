"""What is found on a GPU and brought to the host in parcels."""

import pytest
import torch

pytest.importorskip("mmengine")

from pdiff_plugins.openmmlab.delivery import Delivery

TENSORS = [
    torch.tensor([True, False, True]),
    torch.arange(6).view(2, 3),
    torch.rand(4, 1),
    torch.zeros(0, 4),
    torch.tensor(7, dtype=torch.int16),
    torch.arange(12.0).view(3, 4).T,
]


class Away(torch.Tensor):
    """A tensor that says it lies on a GPU, until it is copied to the host."""

    copies = 0

    @property
    def device(self):
        """The GPU."""
        return torch.device("cuda")

    def cpu(self):
        """Return it on the host, and count."""
        Away.copies += 1
        return self.as_subclass(torch.Tensor)


@pytest.fixture(autouse=True)
def counted():
    """Begin to count anew."""
    Away.copies = 0


def away(tensors) -> list[torch.Tensor]:
    """Return tensors on a GPU that there is not."""
    return [tensor.as_subclass(Away) for tensor in tensors]


def same(ones, others) -> bool:
    """Say whether tensors are plain ones with the same values, shapes and types."""
    pairs = list(zip(ones, others, strict=True))
    return all(type(a) is torch.Tensor and a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def test_on_a_cpu_nothing_waits():
    got = []
    delivery = Delivery(lambda owner, *tensors: got.append((owner, len(tensors))))
    delivery.send("a", *TENSORS)
    assert got == [("a", len(TENSORS))]


def test_from_a_gpu_all_comes_at_the_end_in_its_order():
    got = []
    delivery = Delivery(lambda owner, *tensors: got.append((owner, tensors)))
    for number, tensor in enumerate(TENSORS):
        delivery.send(number, *away([tensor, tensor]))
    assert got == []
    delivery.flush()
    assert [owner for owner, _ in got] == list(range(len(TENSORS)))
    assert all(same(tensors, [TENSORS[owner]] * 2) for owner, tensors in got)
    assert Away.copies == 1
    delivery.flush()
    assert len(got) == len(TENSORS)


def test_a_full_parcel_comes_at_once():
    got = []
    delivery = Delivery(lambda owner, *_: got.append(owner), most=100)
    for number in range(5):
        delivery.send(number, *away([torch.zeros(10)]))  # 40 bytes
    assert got == [0, 1, 2]
    delivery.flush()
    assert (got, Away.copies) == ([0, 1, 2, 3, 4], 2)
