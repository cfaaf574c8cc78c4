"""Lineages by their distances: independent trainings are told apart, and none is torn."""

import pytest
import torch

from pdiff.weights.layout import Layout
from pdiff.weights.lineages import find_lineages

LAYOUT = Layout.of({"bias": torch.empty(5), "weight": torch.empty(20, 10)})


def trainings(seeds, steps=4, width=0.1, seed=0):
    """Return vectors of trainings, each of which moves little from where it begins; biases alike."""
    rng = torch.Generator().manual_seed(seed)
    begins = torch.randn(seeds, 1, 205, generator=rng)
    vectors = begins + width * torch.randn(seeds, steps, 205, generator=rng)
    vectors[..., :5] = 30.0
    return vectors.flatten(0, 1)


def test_independent_trainings_are_numbered_as_they_come():
    order = torch.tensor([4, 0, 5, 8, 1, 9])
    assert find_lineages(trainings(3)[order], LAYOUT).tolist() == [0, 1, 0, 2, 1, 2]


def test_single_checkpoints_that_are_all_far_apart_are_one_lineage_each():
    assert find_lineages(trainings(7, 1), LAYOUT).tolist() == [*range(7)]


@pytest.mark.parametrize("width", [0.02, 0.3])
def test_fine_tunings_of_one_network_are_not_torn_apart(width):
    base = trainings(1, 1)
    noise = torch.randn(3, 1, 205, generator=torch.Generator().manual_seed(1))
    branches = base + width * (noise + 0.1 * torch.randn(3, 5, 205, generator=torch.Generator().manual_seed(2)))
    assert find_lineages(branches.flatten(0, 1), LAYOUT) is None


def test_a_training_is_not_torn_from_its_beginning():
    later = trainings(2, 6)[6:]
    assert find_lineages(torch.cat([trainings(2, 1)[:1], later]), LAYOUT) is None


def test_what_lies_in_between_is_not_told():
    vectors = trainings(2, 4)
    assert find_lineages(torch.cat([vectors, (vectors[:1] + vectors[4:5])]), LAYOUT) is None


def test_too_few_weights_tell_nothing():
    small = Layout.of({"bias": torch.empty(185), "weight": torch.empty(4, 5)})
    assert find_lineages(trainings(3), small) is None
    assert find_lineages(trainings(3), Layout.of({"bias": torch.empty(205)})) is None
