"""Training data whose every draw is a function of the seed and of its number, and of nothing that ran before.

So a training that was interrupted goes on with the same images under the same augmentations, with any number of
data workers.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from pdiff import derive_seed, generator, isolated_seed


class Wrapper(Dataset):
    """A data set around another, with what mmengine and its hooks ask of one; a subclass says how samples are taken.

    Args:
        dataset: the data set inside.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    @property
    def metainfo(self) -> Mapping[str, Any]:
        """What mmengine asks of a data set."""
        return self.dataset.metainfo

    @property
    def pipeline(self) -> Any:
        """The data set's, so that a hook that sets it sets that one."""
        return self.dataset.pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        self.dataset.pipeline = pipeline

    def update_skip_type_keys(self, keys: Sequence[str]) -> None:
        """Do as YOLOX's hook asks of a data set that mixes images."""
        self.dataset.update_skip_type_keys(keys)

    def __len__(self) -> int:
        return len(self.dataset)


class Part(Wrapper):
    """Some of the samples of a data set, in an order of their own.

    Args:
        dataset: the data set inside.
        rows: which samples.
    """

    def __init__(self, dataset: Dataset, rows: Sequence[int]):
        super().__init__(dataset)
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.rows[index]]


class SeededDraws(Wrapper):
    """Number of the draw to augmented sample: each epoch shuffled anew, each draw with its own random state.

    Args:
        dataset: S samples, drawn from at random.
        seed: of all draws.
    """

    def __init__(self, dataset: Dataset, seed: int):
        super().__init__(dataset)
        self.seed = seed
        self.epoch, self.order = -1, torch.empty(0)

    def __getitem__(self, number: int) -> Any:
        epoch, place = divmod(number, len(self.dataset))
        if epoch != self.epoch:
            rng = generator(self.seed, "order", epoch)
            self.epoch, self.order = epoch, torch.randperm(len(self.dataset), generator=rng)
        with isolated_seed(derive_seed(self.seed, "draw", number), cuda=False):
            return self.dataset[int(self.order[place])]


class Turns(Dataset):
    """Number of the draw to sample: a batch of the first data set, one of the second, ..., and so again and again.

    Args:
        datasets: each from the number of its own draw to a sample.
        batch: number of samples of a batch.
    """

    def __init__(self, datasets: Sequence[Dataset], batch: int):
        self.datasets, self.batch = datasets, batch

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def __getitem__(self, number: int) -> Any:
        turn, place = divmod(number, self.batch)
        round_, which = divmod(turn, len(self.datasets))
        return self.datasets[which][round_ * self.batch + place]


class Numbers(Sampler):
    """The numbers of the draws, in order.

    Args:
        size: S.
        endless: never stop, for mmengine's iteration-based loop; otherwise an epoch at a time.
        start: the first number.
    """

    def __init__(self, size: int, endless: bool, start: int = 0):
        self.size, self.endless, self.start = size, endless, start

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start) if self.endless else iter(range(self.start, self.start + self.size))

    def set_epoch(self, epoch: int) -> None:
        """Begin at the epoch's first draw; mmengine calls this before every epoch."""
        self.start = self.start if self.endless else epoch * self.size

    def skip(self, count: int) -> None:
        """Begin behind the first `count` draws; mmengine calls this when a training goes on."""
        self.start = count
