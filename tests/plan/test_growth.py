"""What is timed a few times is continued as a straight line; the clock of these tests is the functions' own."""

import pytest

from pdiff.plan.growth import ENOUGH, FEW, Line, line, repeated


def told(call) -> float:
    """Return the seconds that a function says it took."""
    return call()


class Steps:
    """Does steps of equal length behind a start, and keeps the counts.

    Args:
        start: seconds before the first step.
        each: seconds of a step.
    """

    def __init__(self, start: float, each: float):
        self.start, self.each, self.counts = start, each, []

    def __call__(self, count: int) -> float:
        self.counts.append(count)
        return self.start + count * self.each


def test_line_goes_through_what_was_timed():
    assert Line(2, 1.0, 0.25).at(2) == 1.0
    assert Line(2, 1.0, 0.25).at(10) == 3.0


@pytest.mark.parametrize(("start", "each"), [(0.0, 0.001), (0.2, 0.01), (5.0, 3.0), (0.0, 0.0)])
@pytest.mark.parametrize("count", [2, 50, 1000, 100_000])
def test_line_finds_start_and_step(start, each, count):
    assert line(Steps(start, each), 2, 64, told).at(count) == pytest.approx(start + count * each)


def test_counts_grow_until_they_make_a_difference():
    steps = Steps(0.1, 0.01)
    line(steps, 2, 1000, told)
    assert steps.counts == [2, 2, 8, 32, 64]


def test_slow_steps_are_done_few_times_and_not_twice():
    steps = Steps(0.0, ENOUGH)
    line(steps, 2, 64, told)
    assert steps.counts == [2, 4]


@pytest.mark.parametrize("last", [1, 2, 5])
def test_no_more_is_done_than_there_is(last):
    steps = Steps(0.1, 0.0001)
    found = line(steps, 2, last, told)
    assert max(steps.counts) == last
    assert found.at(last) == pytest.approx(0.1 + last * 0.0001)


def test_time_that_falls_with_the_count_costs_nothing_more():
    seconds = iter([0.4, 0.3, 0.2, 0.1])
    assert line(lambda count: next(seconds), 2, 8, told) == Line(2, 0.3, 0.0)


class Units:
    """Does units, the first of which takes longer."""

    def __init__(self, first: float, other: float):
        self.first, self.other, self.done = first, other, 0

    def __call__(self) -> float:
        self.done += 1
        return self.first if self.done == 1 else self.other


@pytest.mark.parametrize(("units", "expected"), [(0, 0.0), (1, 3.0), (2, 3.5), (3, 4.0), (1001, 503.0)])
def test_units_are_the_first_and_the_mean_of_the_next(units, expected):
    assert repeated(Units(3.0, 0.5), units, told) == pytest.approx(expected)


@pytest.mark.parametrize(("other", "done"), [(100.0, 1 + FEW), (ENOUGH / 2, 5)])
def test_slow_units_are_done_few_times(other, done):
    units = Units(1.0, other)
    repeated(units, 1000, told)
    assert units.done == done


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_no_more_units_are_done_than_there_are(count):
    units = Units(0.0, 0.0)
    repeated(units, count, told)
    assert units.done == count
