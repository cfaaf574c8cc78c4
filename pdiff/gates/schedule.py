"""A gate of the fit: does the noise schedule end where sampling starts, in noise alone?"""

from typing import TYPE_CHECKING

from pdiff.run.check import Check

if TYPE_CHECKING:
    from pdiff.run.run import Run


def gate_schedule(run: "Run") -> list[Check]:
    """Return the check of a schedule that leaves some of the signal; none of one that does not."""
    process = run.engine.process
    words = process.words_for_end() if process else None
    return [Check("schedule", False, words, {"signal": process.at_end()})] if words else []
