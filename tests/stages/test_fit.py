import pytest

from pdiff.errors import PdiffError
from pdiff.registry import call
from pdiff.stages.fit import choose_heldout


@pytest.mark.parametrize(
    ("size", "wanted", "rows"),
    [(300, 10, list(range(15, 300, 30))), (40, 10, [5, 15, 25, 35]), (25, 10, [6, 18]), (9, 10, []), (50, 0, [])],
)
def test_heldout_checkpoints_are_evenly_spaced_and_at_most_a_tenth(size, wanted, rows):
    assert choose_heldout(size, wanted) == rows


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"heldout": -1}, r"^fit\.heldout: got -1, expected an integer from 0 on\.$"),
        ({"heldout": 0.5}, r"^fit\.heldout: got 0\.5, expected an integer\.$"),
    ],
)
def test_an_unfit_number_of_heldout_checkpoints_is_refused(settings, line):
    with pytest.raises(PdiffError, match=line):
        call(choose_heldout, settings, "fit", size=100)
