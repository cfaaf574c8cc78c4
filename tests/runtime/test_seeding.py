"""Randomness depends on names and numbers only; devices are what this machine has."""

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.seeding import current, derive_seed, generator, isolated_seed, resolve_device


def draw() -> tuple[float, float, float]:
    """Return a number from each of the global random states."""
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_derived_seeds_are_fixed_for_all_time():
    assert derive_seed(0) == 2033344993903900207
    assert derive_seed(7, "source", "soup16") == 8095102751488111556


def test_derived_seeds_differ_by_seed_name_and_order():
    seeds = {derive_seed(0, "a", "b"), derive_seed(1, "a", "b"), derive_seed(0, "b", "a"), derive_seed(0, "a")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_depends_on_its_names_and_on_nothing_that_ran_before():
    first = torch.rand(3, generator=generator(0, "a"))
    torch.rand(5)
    assert torch.equal(first, torch.rand(3, generator=generator(0, "a")))
    assert not torch.equal(first, torch.rand(3, generator=generator(0, "b")))


def test_an_isolated_block_repeats_with_its_seed():
    draws = []
    for seed in (2**62 + 1, 2**62 + 1, 5):
        with isolated_seed(seed):
            draws.append(draw())
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2], strict=True))


def test_an_isolated_block_gives_the_random_state_back():
    with isolated_seed(1):
        expected = [draw(), draw()]
    with isolated_seed(1):
        before = draw()
        with isolated_seed(2):
            draw()
        assert [before, draw()] == expected


def test_an_isolated_block_that_fails_gives_the_random_state_back():
    with isolated_seed(1):
        expected = draw()
    with isolated_seed(1):
        with pytest.raises(KeyError), isolated_seed(2):
            raise KeyError
        assert draw() == expected


def test_an_isolated_block_leaves_gpus_alone_that_are_not_in_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: pytest.fail("opened a GPU"))
    with isolated_seed(1):
        draw()


def test_an_isolated_block_gives_the_random_state_of_gpus_in_use_back(monkeypatch):
    given = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: device)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: given.append((state, device)))
    with isolated_seed(1):
        assert not given
    assert [int(getattr(device, "index", device)) for _, device in given] == [0, 1]


def test_auto_is_a_device_of_this_machine():
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == resolve_device("cpu:1") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cudda", "cuda:99", "", "hpu", None])
def test_a_device_that_cannot_be_used_is_refused_with_those_that_can(name):
    with pytest.raises(PdiffError, match=rf"^device: got {name!r}, .*Use auto, cpu or cuda\.$"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["mps", "xpu"])
def test_a_gpu_on_which_pdiff_does_not_compute_is_refused(name):
    with pytest.raises(PdiffError, match=rf"^device: got '{name}'.*double precision too, and computes on cpu and cuda"):
        resolve_device(name)


def test_a_gpu_is_the_current_one_in_its_block(monkeypatch):
    entered = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(str(device)) or nullcontext())
    with current(torch.device("cuda:1")), current(torch.device("cpu")):
        assert entered == ["cuda:1"]


def test_a_device_without_memory_is_refused():
    with pytest.raises(PdiffError, match=r"^device: got 'meta'.*Use auto, cpu or cuda\.$"):
        resolve_device("meta")
