"""Checks of what serves the canonical form: the hooks `inputs` and `symmetries`."""

from typing import TYPE_CHECKING

import torch
from torch.utils._pytree import tree_leaves

from pdiff.canonical.form import Form
from pdiff.run.units import FEW, find_symmetries, first_batch, outputs_for
from pdiff.task.contract import fault
from pdiff.testing.finding import NotApplicable

if TYPE_CHECKING:
    from pdiff.testing.specimen import Specimen

ALIKE = 0.999  # the similarity of two networks that differ in the order of their sums alone


def check_inputs(specimen: "Specimen") -> str:
    """`inputs` yields what the network takes, the same at every call."""
    run = specimen.built
    if not run.has_hook("inputs"):
        raise NotApplicable("the plugin has no inputs")
    once, again = (tree_leaves(first_batch(run, "select")) for _ in range(2))
    pairs = zip(once, again, strict=True)
    if any(isinstance(a, torch.Tensor) and not torch.equal(a, b) for a, b in pairs):
        words = "inputs yielded another batch the second time. Draw nothing, or from a seed of its own."
        raise fault(run.name, words)
    outputs = outputs_for(run, run.built.model, first_batch(run, "select"))
    return f"the network gives {len(outputs)} tensors, {tuple(outputs[0].shape)} of {FEW} samples or less"


def check_symmetries(specimen: "Specimen") -> str:
    """`symmetries` names units whose order tells nothing: in another order, a network does the same."""
    run = specimen.trained
    if not run.has_hook("symmetries"):
        raise NotApplicable("the plugin has no symmetries")
    found, vector = find_symmetries(run), specimen.vectors[:1]
    moved = Form("permutation+scale", run.layout, found, vector[0]).shuffled(vector[0])
    one, other = specimen.evaluate(torch.stack([vector[0], moved]), rows=[0, 0])
    if run.task.similarity(one.signature[None], other.signature[None]).item() < ALIKE:
        names = ", ".join(dict.fromkeys(unit.name for unit in (*found.groups, *found.gains)))
        words = f"symmetries returned units ({names}) whose order, or scale, tells something. "
        words += "Name all tensors that move along."
        raise fault(run.name, words)
    return f"{len(found.groups)} groups, {sum(group.size for group in found.groups)} units"
