"""Check of the hook `finetune`."""

from typing import TYPE_CHECKING

import torch

from pdiff.run.finetuning import base_vector, finetune
from pdiff.task.selection import fault
from pdiff.testing.finding import NotApplicable

if TYPE_CHECKING:
    from pdiff.testing.specimen import Specimen

STEPS = 2


def check_finetuning(specimen: "Specimen") -> str:
    """`finetune` yields a selection for each condition that is finite, no longer the beginning, and the same again."""
    run, conditions = specimen.trained, specimen.conditions
    if not run.has_hook("finetune"):
        raise NotApplicable("the plugin has no finetune")
    if conditions is None or specimen.config.checkpoints.files:
        raise NotApplicable("the plugin collects no networks for conditions")
    base, (once, _), (again, _) = base_vector(run), *(finetune(run, conditions, STEPS) for _ in range(2))
    for number, vector in enumerate(once):
        if torch.equal(vector, base):
            words = f"finetune yielded for condition {number} what it began with, after {STEPS} steps. Train it."
            raise fault(run.name, words)
    if not torch.equal(once, again):
        raise fault(run.name, "finetune yielded other values the second time. Seed what you draw.")
    return f"{STEPS} steps for {len(conditions)} conditions, the same the second time"
