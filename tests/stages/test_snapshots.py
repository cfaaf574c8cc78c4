"""What of a collection is computed again."""

import pytest
import torch

from pdiff import PdiffError, Snapshot
from pdiff.stages.snapshots import repeated
from pdiff.weights.layout import Layout
from pdiff.weights.population import Population


@pytest.fixture
def stored(tmp_path):
    """Return a function that writes a population of vectors of one value each, and returns it."""

    def write(*values: float) -> Population:
        population = Population.create(tmp_path, Layout.of({"w": torch.zeros(1)}))
        for value in values:
            population.append(torch.tensor([value]), {})
        return population

    return write


def snapshots(*values: float):
    return (Snapshot({"w": torch.tensor([value])}) for value in values)


def test_snapshots_on_disk_are_compared_and_left_out(stored):
    new = repeated(snapshots(1.0, 2.0, 3.0), stored(1.0, 2.0))
    assert [snapshot.params["w"].item() for snapshot in new] == [3.0]
    with pytest.raises(PdiffError, match="snapshot 1 differs from the one on disk"):
        list(repeated(snapshots(1.0, 5.0, 3.0), stored(1.0, 2.0)))


def test_nothing_follows_a_snapshot_on_disk_that_is_not_finite(stored):
    assert not list(repeated(snapshots(1.0, float("nan"), 3.0), stored(1.0, float("nan"))))
