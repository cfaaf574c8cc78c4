"""Check of the hooks `loss` and `losses`: is it a loss, and the one that `collect` minimises?"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pdiff.run.behaviour import Behaviour, has_loss, learnt_names
from pdiff.run.finetuning import base_vector, finetune
from pdiff.task.selection import fault
from pdiff.testing.finding import NotApplicable
from pdiff.weights.conditions import shown
from pdiff.weights.provenance import branch_labels

if TYPE_CHECKING:
    from pdiff.testing.specimen import Specimen

ROUNDING = 1e-4  # of the same losses, computed in another order
NEAR = 1e-3  # of a loss to the one that the training told
LARGE = 0.1  # a gradient is large from this share of the largest on
MOST = 0.95  # of the large gradients, against which a step of the training must go


def check_loss(specimen: "Specimen") -> str:
    """`loss` and `losses` give a number with gradients, the same again, and what `collect` minimises."""
    run = specimen.trained
    if not has_loss(run):
        raise NotApplicable("the plugin has no loss")
    if not learnt_names(run):
        raise NotApplicable("the selection has no parameter")
    behaviour = Behaviour(run, specimen.conditions)
    vectors, numbers = specimen.vectors.to(run.device).requires_grad_(), torch.arange(len(specimen.vectors))
    losses = behaviour(vectors, numbers, 0)
    check_apart(behaviour, losses, vectors)
    again = behaviour(vectors.detach(), numbers, 0)
    if not near(losses, again, ROUNDING):
        line = f"{hook_of(behaviour)} gave {again[0]:.4g} the second time, {losses[0]:.4g} the first."
        raise fault(run.name, f"{line} Seed what you draw from cfg.seed and step.")
    if run.has_hook("loss") and run.has_hook("losses"):
        check_agreement(behaviour, losses, vectors, numbers)
    return f"finite, with a gradient in each of {len(behaviour.learnt)} tensors; {compared(specimen, behaviour)}"


def hook_of(behaviour: Behaviour) -> str:
    """Return the name of the hook that is asked: of two, that for many."""
    return "losses" if behaviour.run.has_hook("losses") else "loss"


def near(ones: Tensor, others: Tensor, share: float) -> bool:
    """Say whether losses `(n,)` differ from others by that share at most."""
    return torch.allclose(ones.detach().cpu(), others.detach().cpu(), rtol=share, atol=1e-8)


def check_apart(behaviour: Behaviour, losses: Tensor, vectors: Tensor) -> None:
    """Raise a `PdiffError` where the loss `(n,)` of a network hangs on another's vector `(P,)` of n."""
    others = torch.autograd.grad(losses[0], vectors)[0][1:]
    entry = next((entry for entry in behaviour.run.layout if others[:, entry.slice].any()), None)
    if entry is not None:
        line = f"losses gave selection 0 a loss with a gradient in {entry.name!r} of another."
        raise fault(behaviour.run.name, f"{line} Let each selection have a loss of its own.")


def check_agreement(behaviour: Behaviour, losses: Tensor, vectors: Tensor, numbers: Tensor) -> None:
    """Raise a `PdiffError` unless `loss` gives one by one what `losses` gave `(n,)` for vectors `(n, P)`."""
    run = behaviour.run
    params, asked = behaviour.selections(vectors.detach(), numbers)
    each = behaviour.one_by_one(params, asked, 0)
    if not near(losses, each, ROUNDING):
        number = int((losses.detach() - each).abs().argmax())
        line = f"loss gave {each[number]:.4g} where losses gave {losses[number]:.4g}, for selection {number}."
        raise fault(run.name, f"{line} Let both take the same batch, or leave one out.")


def compared(specimen: "Specimen", behaviour: Behaviour) -> str:
    """Say with what of the training the loss agrees; raise a `PdiffError` where it does not."""
    if specimen.config.checkpoints.files:
        return "not compared: the checkpoints come from files"
    rows = rows_that_tell(specimen.collected.collected.provenance[: len(specimen.vectors)])
    if rows:
        return check_told(specimen, behaviour, rows)
    if specimen.conditions is not None and behaviour.run.has_hook("finetune"):
        return check_direction(specimen, behaviour)
    return "not compared: no two successive snapshots tell step and loss, and no hook finetune goes on from the base"


def rows_that_tell(provenance: list[dict[str, Any]]) -> list[int]:
    """Return the rows of the first training whose next one is a step later, for the same, and tells its loss."""
    told, labels = [], branch_labels(provenance)
    for row in range(len(provenance) - 1):
        one, other = provenance[row : row + 2]
        numbers = isinstance(one.get("step"), int) and isinstance(other.get("step"), int)
        follows = labels[row + 1] == 0 and one.get("condition") == other.get("condition")
        if numbers and follows and other["step"] == one["step"] + 1 and isinstance(other.get("loss"), float):
            told.append(row)
    return told


def check_told(specimen: "Specimen", behaviour: Behaviour, rows: list[int]) -> str:
    """Compare with what snapshots tell: the loss of each row's next one is that of the row, on the batch between them.

    Plugins count steps from 0 or from 1, so that this batch is of the next one's step, or of the one before.
    """
    provenance = specimen.collected.collected.provenance
    for row in rows:
        vectors, step, told = specimen.vectors[row : row + 1], provenance[row + 1]["step"], provenance[row + 1]["loss"]
        given = vectors.to(behaviour.run.device), torch.tensor([row])
        found = [behaviour(*given, number) for number in (step - 1, step) if number >= 0]
        if not any(near(loss, torch.tensor([told]), NEAR) for loss in found):
            line = f"{hook_of(behaviour)} gave snapshot {row} {found[0].item():.4g} at step {step}, collect {told:.4g}."
            raise fault(behaviour.run.name, f"{line} Take the batch of that step as the training does, in its mode.")
    return f"what collect minimised at {len(rows)} steps"


def check_direction(specimen: "Specimen", behaviour: Behaviour) -> str:
    """Compare with a step of `finetune` from the base: for every condition it goes against the large gradients."""
    run, conditions = behaviour.run, specimen.conditions
    base = base_vector(run)
    moved = finetune(run, conditions, 1)[0] - base
    begun = base.expand(len(conditions), -1).to(run.device).clone().requires_grad_()
    losses = behaviour(begun, torch.arange(len(conditions)), 0)
    gradient = torch.autograd.grad(losses.sum(), begun)[0].cpu()
    large = (gradient.abs() >= LARGE * gradient.abs().amax(1, keepdim=True)) & (gradient * moved != 0)
    if not large.any(1).all():
        return "not compared: the first step of finetune moves nothing that has a large gradient"
    along = large & (gradient * moved > 0)
    share = along.sum(1) / large.sum(1)
    if share.max() > 1 - MOST:
        number = int(share.argmax())
        entry = next(entry for entry in run.layout if along[number, entry.slice].any())
        line = f"{hook_of(behaviour)} has a gradient in {entry.name!r} that finetune does not go against"
        line += f" in its first step for {shown(conditions[number])}."
        raise fault(run.name, f"{line} Take the batch of that step as the training does, in its mode.")
    return f"the first step of finetune goes against it for {len(conditions)} conditions"
