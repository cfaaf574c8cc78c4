"""What one more costs: something done a few times, timed, and continued as a straight line."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

FEW = 2  # times that something is done to tell what it costs, after a first time
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


def line(
    function: Callable[[int], Any], first: int, last: int, timer: Callable[[Callable[[], Any]], float] = seconds
) -> Line:
    """Time `function(count)` at growing counts, until they make a difference.

    Args:
        function: does something `count` times.
        first: the smallest count; done twice where that is quick, since the first time warms up.
        last: the largest count.
        timer: from a call to its seconds.
    """
    first = min(first, last)
    least = timer(lambda: function(first))
    if least < ENOUGH:
        least = timer(lambda: function(first))
    count, took = first, least
    while count < last and (count == first or (took < ENOUGH and took < 5 * least)):
        count = min(count * (4 if took < ENOUGH / 4 else 2), last)
        took = timer(lambda count=count: function(count))
    each = max(took - least, 0.0) / (count - first) if count > first else 0.0
    return Line(first, least, each)


def repeated(function: Callable[[], Any], units: int, timer: Callable[[Callable[[], Any]], float] = seconds) -> float:
    """Return the seconds of doing something `units` times: those of the first time, and the mean of a few more.

    Args:
        function: does it once, `units` times at most.
        units: how often it is to be done.
        timer: from a call to its seconds.
    """
    if units == 0:
        return 0.0
    first, more = timer(function), []
    while len(more) < units - 1 and (len(more) < FEW or sum(more) < 2 * ENOUGH):
        more.append(timer(function))
    return first + (units - 1) * sum(more) / max(len(more), 1)
