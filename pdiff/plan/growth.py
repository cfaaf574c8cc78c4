"""What one more costs: something done a few times, timed, and continued as a straight line."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ENOUGH = 1.0  # seconds after which a count is large enough to tell what one costs


@dataclass(frozen=True)
class Line:
    """Seconds as a function of a count.

    Attributes:
        count: one that was timed.
        seconds: what it took.
        each: what one more takes.
    """

    count: int
    seconds: float
    each: float

    def at(self, count: int) -> float:
        """Return the seconds of a count."""
        return self.seconds + (count - self.count) * self.each


def seconds(function: Callable[[], Any]) -> float:
    """Return how long a call takes."""
    start = time.monotonic()
    function()
    return time.monotonic() - start


def line(function: Callable[[int], Any], first: int, last: int) -> Line:
    """Time `function(count)` at growing counts, until they make a difference.

    Args:
        function: does something `count` times.
        first: the smallest count; done twice where that is quick, since the first time warms up.
        last: the largest count.
    """
    first = min(first, last)
    least = seconds(lambda: function(first))
    if least < ENOUGH:
        least = seconds(lambda: function(first))
    count, time_taken = first, least
    while (count < last and time_taken < ENOUGH and time_taken < 3 * least) or count == first < last:
        count = min(count * (4 if time_taken < ENOUGH / 4 else 2), last)
        time_taken = seconds(lambda count=count: function(count))
    each = max(time_taken - least, 0.0) / (count - first) if count > first else 0.0
    return Line(first, least, each)
