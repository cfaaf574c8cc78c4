import pytest

from pdiff.stages.fit import choose_heldout


@pytest.mark.parametrize(
    ("size", "wanted", "rows"),
    [(300, 10, list(range(15, 300, 30))), (40, 10, [5, 15, 25, 35]), (25, 10, [6, 18]), (9, 10, []), (50, 0, [])],
)
def test_heldout_checkpoints_are_evenly_spaced_and_at_most_a_tenth(size, wanted, rows):
    assert choose_heldout(size, wanted) == rows


