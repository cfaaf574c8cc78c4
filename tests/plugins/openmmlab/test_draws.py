"""Seeded draws: each is a function of seed and number, whatever ran before and however many workers there are."""

import itertools
import random

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from pdiff_plugins.openmmlab.draws import Numbers, SeededDraws
from torch.utils.data import DataLoader, Dataset

SIZE = 7


class Noisy(Dataset):
    """Samples of their own number and three random numbers, from Python, numpy and torch."""

    def __init__(self):
        self.metainfo = {"classes": ("a", "b")}

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple:
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))


def draws(numbers, seed: int = 0) -> list[tuple]:
    """Return some draws of a new data set."""
    data = SeededDraws(Noisy(), seed)
    return [data[number] for number in numbers]


def loader(sampler: Numbers, workers: int = 0, seed: int = 0, batch_size: int = 3, **settings) -> DataLoader:
    """Return mmengine's loader of draws."""
    data = SeededDraws(Noisy(), seed)
    given = {"batch_size": batch_size, "num_workers": workers, "sampler": sampler, "dataset": data, **settings}
    return Runner.build_dataloader(given)


def rows(batches) -> list[tuple]:
    """Return the samples of mmengine's batches, one after another."""
    return [tuple(value) for batch in batches for value in zip(*batch, strict=True)]


def test_a_draw_depends_on_its_number_alone():
    numbers = list(range(3 * SIZE))
    through = draws(numbers)
    data = SeededDraws(Noisy(), 0)
    assert [data[number] for number in reversed(numbers)] == through[::-1]
    assert [data[number] for number in [5, 20, 5, 0]] == [through[number] for number in [5, 20, 5, 0]]
    assert [draws([number])[0] for number in numbers] == through


def test_a_draw_does_not_depend_on_the_global_random_state():
    torch.manual_seed(1)
    one = draws(range(SIZE))
    torch.manual_seed(2)
    np.random.seed(2)
    random.seed(2)
    assert draws(range(SIZE)) == one


def test_every_draw_has_random_numbers_of_its_own():
    values = list(itertools.chain(*(row[1:] for row in draws(range(4 * SIZE)))))
    assert len(set(values)) == 4 * SIZE * 3


def test_every_epoch_is_a_permutation_of_its_own():
    indices = [row[0] for row in draws(range(20 * SIZE))]
    epochs = [tuple(indices[start : start + SIZE]) for start in range(0, len(indices), SIZE)]
    assert all(sorted(epoch) == list(range(SIZE)) for epoch in epochs)
    assert len(set(epochs)) == 20


def test_another_seed_gives_another_order_and_other_samples():
    one, other = draws(range(4 * SIZE)), draws(range(4 * SIZE), seed=1)
    assert [row[0] for row in one] != [row[0] for row in other]
    assert not {row[1] for row in one} & {row[1] for row in other}


def states() -> tuple:
    """Return the global random states."""
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, keys.tolist(), rest, torch.random.get_rng_state().tolist()


def test_global_random_states_are_left_as_they_were():
    before = states()
    draws(range(3 * SIZE))
    rows(loader(Numbers(SIZE, endless=False)))
    assert states()[:4] == before[:4]
    torch.manual_seed(0)
    before = states()
    draws(range(3 * SIZE))
    assert states() == before


def test_global_random_states_are_left_as_they_were_when_a_sample_fails():
    class Broken(Noisy):
        def __getitem__(self, index: int) -> tuple:
            raise OSError(f"sample {super().__getitem__(index)[0]} is gone")

    before = states()
    with pytest.raises(OSError, match="is gone"):
        SeededDraws(Broken(), 0)[3]
    assert states() == before


def test_facts_of_the_data_set_are_handed_on():
    data = SeededDraws(Noisy(), 0)
    assert len(data) == SIZE
    assert data.metainfo == {"classes": ("a", "b")}


@pytest.mark.parametrize("start", [0, 6, 8 * SIZE + 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_loader_of_mmengine_gives_the_draws_in_order_with_any_number_of_workers(workers, start):
    batches = loader(Numbers(SIZE, endless=True, start=start), workers)
    assert rows(itertools.islice(batches, 6)) == draws(range(start, start + 18))


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_of_a_loader_are_those_of_the_draws(workers):
    batches = loader(Numbers(SIZE, endless=False), workers, persistent_workers=workers > 0)
    assert len(batches) == 3
    for epoch in (0, 1, 5):
        batches.sampler.set_epoch(epoch)
        assert rows(batches) == draws(range(epoch * SIZE, (epoch + 1) * SIZE))


def test_an_epoch_leaves_an_incomplete_batch_out_when_the_loader_says_so():
    batches = loader(Numbers(SIZE, endless=False), drop_last=True)
    batches.sampler.set_epoch(1)
    assert rows(batches) == draws(range(SIZE, SIZE + 6))


def test_endless_numbers_go_on_for_ever():
    numbers = Numbers(SIZE, endless=True, start=4)
    assert list(itertools.islice(numbers, 3 * SIZE)) == list(range(4, 4 + 3 * SIZE))
    assert len(numbers) == SIZE


def test_numbers_of_an_epoch_end_with_it():
    numbers = Numbers(SIZE, endless=False)
    assert list(numbers) == list(numbers) == list(range(SIZE))
    numbers.set_epoch(3)
    assert list(numbers) == list(range(3 * SIZE, 4 * SIZE))
    numbers.set_epoch(0)
    assert list(numbers) == list(range(SIZE))


def test_endless_numbers_know_no_epochs():
    numbers = Numbers(SIZE, endless=True, start=4)
    numbers.set_epoch(3)
    assert next(iter(numbers)) == 4


def test_skipped_numbers_are_left_out():
    numbers = Numbers(SIZE, endless=True)
    numbers.skip(5)
    assert next(iter(numbers)) == 5


def test_a_loop_of_mmengine_goes_on_behind_the_batches_that_it_skips():
    from mmengine.runner.loops import _InfiniteDataloaderIterator

    iterator = _InfiniteDataloaderIterator(loader(Numbers(SIZE, endless=True)))
    iterator.skip_iter(4)
    assert rows([next(iterator)]) == draws(range(12, 15))
