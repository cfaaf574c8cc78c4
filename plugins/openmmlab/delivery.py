"""From the device of a network to the code of the host: in few parcels, so that a GPU is not waited for each time."""

from collections.abc import Callable, Hashable

from torch import Tensor

from pdiff import to_host

PARCEL = 2**28  # bytes, 256 MiB


class Delivery:
    """Hands tensors to the code of the host, in their order: on a CPU at once, from a GPU many by one copy.

    Args:
        receive: takes whose the tensors are, and the tensors, on the CPU.
        most: bytes that may wait on the device; `flush` ends the waiting, too.
    """

    def __init__(self, receive: Callable[..., None], most: int = PARCEL):
        self.receive, self.most = receive, most
        self.waiting: list[tuple[Hashable, tuple[Tensor, ...]]] = []
        self.bytes = 0

    def send(self, owner: Hashable, *tensors: Tensor) -> None:
        """Hand over the tensors of an owner, now or later; they must not be written into any more."""
        if all(tensor.device.type == "cpu" for tensor in tensors):
            self.receive(owner, *tensors)
            return
        self.waiting.append((owner, tensors))
        self.bytes += sum(tensor.nbytes for tensor in tensors)
        if self.bytes >= self.most:
            self.flush()

    def flush(self) -> None:
        """Hand over all that waits."""
        waiting, self.waiting, self.bytes = self.waiting, [], 0
        found = iter(to_host([tensor for _, tensors in waiting for tensor in tensors]))
        for owner, tensors in waiting:
            self.receive(owner, *[next(found) for _ in tensors])
