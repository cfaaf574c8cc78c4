"""The checks of the canonical form on made-up vectors; what a run of it finds is in tests/stages/test_canonical.py."""

import numpy as np
import torch

from pdiff.gates.canonical import check_canonical, check_reordered
from pdiff.weights.gram import centred_gram

RECORD = {
    "form": "permutation",
    "lineages": 30,
    "groups": [{"name": "0.weight", "size": 16}, {"name": "2.weight", "size": 8}],
    "largest_change": 3e-7,
    "compared": "outputs",
    "spread_before": 4.0,
    "spread": 1.0,
}


def found(vectors, lineages):
    names = [f"network {lineage}" for lineage in lineages]
    return check_reordered(centred_gram(vectors), np.array(lineages), names)


def test_the_form_is_said():
    check = check_canonical(RECORD)
    assert check.passed
    assert check.line == (
        "permutation: 30 lineages in one order of 24 units in 2 groups, 75% nearer to their average than in "
        "their own order; outputs change by 3e-07 at most"
    )
    assert check.figures["nearer"] == 0.75


def test_networks_that_coincide_across_lineages_are_copies():
    vectors = torch.randn(10, 50, generator=torch.Generator().manual_seed(0))
    vectors[7] = vectors[2] + 1e-6
    check = found(vectors, range(10))
    assert not check.passed
    assert check.figures["copies"] == 1
    assert "(network 7 is network 2), expected at most 5%. They tell nothing beside it: leave them out." in check.line


def test_snapshots_of_one_lineage_may_lie_close_to_each_other():
    vectors = torch.randn(10, 50, generator=torch.Generator().manual_seed(0))
    vectors[7] = vectors[2] + 1e-6
    lineages = [0, 1, 2, 3, 4, 5, 6, 2, 8, 9]
    assert found(vectors, lineages).passed
