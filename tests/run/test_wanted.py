"""What networks are wanted for, and what is known around it."""

import numpy as np
import torch

from pdiff.run.wanted import Wanted
from pdiff.weights.conditions import Conditions


def angles(*values: float) -> Conditions:
    return Conditions(["angle"], torch.tensor(values)[:, None])


WANTED = Wanted(
    conditions=angles(0.5, 9.0),
    unseen=np.array([False, True]),
    groups=np.array([3, 4]),
    seen=angles(0.0, 1.0, 2.0),
    seen_groups=np.array([0, 1, 2]),
    lineages=np.array([0, 0, 1]),
    oracles=np.array([7, 8, 9]),
    oracle_of=np.array([0, 1, 1]),
    symmetry=None,
)


def test_distance_is_to_the_nearest_seen_condition():
    deviation = np.std([0, 1, 2])
    np.testing.assert_allclose(WANTED.distance, [0.5 / deviation, 7 / deviation], atol=1e-6)
    assert len(WANTED) == 2


def test_for_other_conditions_nobody_trained_anything_and_the_seen_stay():
    other = WANTED.instead(angles(4.0))
    assert len(other) == 1
    assert other.conditions[0] == {"angle": 4.0}
    assert other.unseen.tolist() == [True]
    assert len(other.oracles) == len(other.oracle_of) == 0
    assert (other.seen, other.lineages is WANTED.lineages) == (WANTED.seen, True)
