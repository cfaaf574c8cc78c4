"""A gate of the fit: does the noise schedule end where sampling starts, in noise alone?"""

from typing import TYPE_CHECKING

from pdiff.engine.schedule import words_for_end
from pdiff.run.check import Check

if TYPE_CHECKING:
    from pdiff.run.run import Run


def gate_schedule(run: "Run") -> list[Check]:
    """Return the check of a schedule that leaves some of the signal; none of one that does not."""
    schedule = run.engine.schedule
    words, left = words_for_end(schedule), schedule.alphas_cumprod[-1].item()
    return [Check("schedule", False, words, {"signal": left})] if words else []
