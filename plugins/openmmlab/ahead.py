"""Training batches by the number of their step, their loader going on from one step to the next."""

import copy
from collections.abc import Callable, Hashable, Iterable
from typing import Any


class Ahead:
    """Gives the batch of any step; a loader, and its workers, goes on as long as each step follows the one before."""

    def __init__(self):
        self.at: tuple[Hashable, int] | None = None  # training and step of the last batch
        self.batches, self.last = iter(()), None

    def batch(self, training: Hashable, step: int, loader: Callable[[int], Iterable]) -> Any:
        """Return the batch of a step, which the caller may change.

        Args:
            training: whose batch it is; another one has another loader.
            step: its number.
            loader: from a step to the batches from that one on.
        """
        if self.at != (training, step):
            if self.at != (training, step - 1):
                self.batches = iter(loader(step))
            self.at = None  # until there is a batch
            self.last, self.at = next(self.batches), (training, step)
        return copy.deepcopy(self.last)
