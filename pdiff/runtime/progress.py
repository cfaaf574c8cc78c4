"""Progress of long work: a bar with rate and remaining time on a terminal, sparse log lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pdiff.runtime.processes import is_main

logger = logging.getLogger("pdiff")
SECONDS_BETWEEN_LINES = 20


def say(line: str) -> None:
    """Tell how work goes: in the log, or on the standard error output of a program that has set up none."""
    if logger.hasHandlers():
        logger.info(line)
    else:
        print(line, file=sys.stderr)


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Show the progress of the block, which calls what it is given once per finished unit; only in the first process.

    Args:
        description: what is being done.
        total: number of units.
        done: units that were finished before.
    """
    if not is_main():
        yield lambda: None
        return
    show = _bar if sys.stderr.isatty() else _lines
    with show(description, total, done) as advance:
        yield advance


@contextmanager
def _bar(description: str, total: int, done: int):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units per second."""

        def render(self, task):
            return Text(f"{task.speed or 0:.1f}/s")

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        unit = bar.add_task(description, total=total, completed=done)
        yield lambda: bar.advance(unit)


@contextmanager
def _lines(description: str, total: int, done: int):
    start = last = time.monotonic()
    finished = done

    def advance() -> None:
        nonlocal finished, last
        finished += 1
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = (finished - done) / (now - start)
        left = (total - finished) / rate
        say(f"{description} {finished}/{total}, {rate:.1f}/s, {left:.0f} s left")

    yield advance
