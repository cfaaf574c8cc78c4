"""What a stage costs is measured once."""

from pdiff.runtime.cost import Stopwatch


def test_stopwatch_that_is_stopped_again_says_the_same():
    stopwatch = Stopwatch()
    cost = dict(stopwatch.stop())
    assert sum(range(100_000)) > 0
    assert stopwatch.stop() == cost
    assert 0 <= cost["seconds"] < 60
    assert cost["peak_memory_bytes"] > 1_000_000
