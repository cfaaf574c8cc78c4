"""How networks behave in training: the loss of the plugin's hook, as a function of their vectors, looked at."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pdiff.run.frozen import check_frozen
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.seeding import isolated_seed
from pdiff.task.selection import fault, kind
from pdiff.weights.conditions import Conditions, shown
from pdiff.weights.select import parameter_names

if TYPE_CHECKING:
    from pdiff.run.run import Run

STEPS_BETWEEN_LOOKS = 50  # to look at a loss makes a GPU wait


def has_loss(run: "Run") -> bool:
    """Say whether the plugin tells its training loss."""
    return run.has_hook("loss") or run.has_hook("losses")


def check_has_loss(run: "Run", where: str) -> None:
    """Raise a `PdiffError` where the plugin does not tell its training loss; `where` names what needs it."""
    if not has_loss(run):
        line = f"needs the hook loss, which the plugin {run.name} lacks"
        raise PdiffError(f"{where}: {line}. Define it, or set {where} to null.")


def learnt_names(run: "Run") -> list[str]:
    """Return the names of the selected tensors that training changes: parameters, not statistics."""
    learnt = parameter_names(run.built.model)
    return [entry.name for entry in run.layout if entry.name in learnt]


class Behaviour:
    """The training losses of networks as a function of their vectors.

    Args:
        run: whose plugin has the hook; its frozen network is loaded.
        conditions: what networks may be for `(N, C)`; None without conditions.

    Raises:
        PdiffError: no parameter is selected.
    """

    def __init__(self, run: "Run", conditions: Conditions | None = None):
        run.load_base()
        self.run, self.conditions = run, conditions
        self.learnt = learnt_names(run)
        if not self.learnt:
            line = f"got {run.config.select!r}, which selects no parameter, so that a loss has no gradient"
            raise PdiffError(f"select: {line}. Select one, or train nothing through the task.")
        self.looked_at: int | None = None  # the step of the last look

    def __call__(self, vectors: Tensor, numbers: Tensor, step: int) -> Tensor:
        """Return the losses `(n,)` on the training batch of a step.

        Args:
            vectors: n of them `(n, P)`, on the device of the run, with gradients or without.
            numbers: of the condition that each is for `(n,)`, on the CPU; any where there are none.
            step: of the batch.

        Raises:
            PdiffError: what the hook gives is no loss, not finite, has no gradient, or the hook changes what is not
                selected. The second and third are looked for at the first call and then now and again.
        """
        params, asked = self.selections(vectors, numbers)
        with torch.enable_grad():
            losses = self.ask(params, asked, step)
        if self.looked_at is None or step < self.looked_at or step - self.looked_at >= STEPS_BETWEEN_LOOKS:
            self.look(losses, params, asked, step)
        return losses

    def selections(self, vectors: Tensor, numbers: Tensor) -> tuple[dict[str, Tensor], Conditions | None]:
        """Return the stacked tensors `(n, ...)` of vectors `(n, P)`, and what each is for.

        What training does not change is a copy without gradients: a pass may write statistics of its batch into it.
        Selected counters, which have no place in a vector, are copies of the network's own.
        """
        params = self.run.layout.unflatten_many(vectors)
        params = {name: tensor if name in self.learnt else tensor.detach().clone() for name, tensor in params.items()}
        own = self.run.built.model.state_dict()
        for name in (name for name in self.run.selected if name not in params):
            params[name] = own[name].expand(len(vectors), *own[name].shape).clone()
        return params, None if self.conditions is None else self.conditions.take(numbers.cpu())

    def ask(self, params: Mapping[str, Tensor], asked: Conditions | None, step: int) -> Tensor:
        """Return what the hook gives of stacked selections: all at once, or one after another."""
        if not self.run.has_hook("losses"):
            return self.one_by_one(params, asked, step)
        given = {"task": self.run.built, "cfg": self.run.config, "step": step}
        with isolated_seed(self.run.seed("loss", step)):
            found = self.run.hook.losses(params=params, conditions=asked, **given)
        return self.checked(found, "losses", (len(next(iter(params.values()))),))

    def one_by_one(self, params: Mapping[str, Tensor], asked: Conditions | None, step: int) -> Tensor:
        """Return what the hook `loss` gives of stacked selections, one after another.

        Each has the draws of the step to itself: what it gets hangs on none before it, nor on who else shares a batch.
        """
        given, each = {"task": self.run.built, "cfg": self.run.config, "step": step}, []
        for number in range(len(next(iter(params.values())))):
            own, condition = {name: tensor[number] for name, tensor in params.items()}, asked and asked[number]
            with isolated_seed(self.run.seed("loss", step)):
                found = self.run.hook.loss(params=own, condition=condition, **given)
            each.append(self.checked(found, "loss", ()))
        return torch.stack(each)

    def checked(self, found: Any, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return what a hook gave; raise a `PdiffError` unless it is a tensor of a shape."""
        if not isinstance(found, Tensor):
            raise fault(self.run.name, f"{name} returned {kind(found)}, expected a tensor of shape {shape}. Return it.")
        if tuple(found.shape) != shape:
            line = f"{name} returned shape {tuple(found.shape)}, expected {shape}."
            raise fault(self.run.name, f"{line} Return one number for each selection.")
        return found

    def look(self, losses: Tensor, params: Mapping[str, Tensor], asked: Conditions | None, step: int) -> None:
        """Raise a `PdiffError` for losses that are not finite or have no gradient, and for a network that changed."""
        wrong = (~losses.detach().isfinite()).nonzero().flatten().tolist()
        if wrong:
            whose = f" for {shown(asked[wrong[0]])}" if asked is not None else ""
            largest = max(self.learnt, key=lambda name: size_of(params[name][wrong[0]]))
            line = f"loss is {losses[wrong[0]].item()} at step {step}{whose}; the largest values are in {largest!r}."
            raise fault(self.run.name, f"{line} Lower the rate, or mend the hook.")
        if any(params[name].requires_grad for name in self.learnt):
            self.check_gradients(losses, params)
        check_frozen(self.run, "loss")
        self.looked_at = step

    def check_gradients(self, losses: Tensor, params: Mapping[str, Tensor]) -> None:
        """Raise a `PdiffError` unless every tensor that training changes has a gradient, and one that is not 0."""
        advice = "Use the tensors of params in the pass, by torch.func.functional_call."
        if not losses.requires_grad:
            raise fault(self.run.name, f"loss has no gradient in {self.learnt[0]!r}, nor in any tensor. {advice}")
        tensors = [params[name] for name in self.learnt]
        found = torch.autograd.grad(losses.sum(), tensors, retain_graph=True, allow_unused=True)
        for name, gradient in zip(self.learnt, found, strict=True):
            if gradient is None:
                raise fault(self.run.name, f"loss has no gradient in {name!r}. {advice}")
            if not gradient.isfinite().all():
                line = f"loss has a gradient in {name!r} that is not finite."
                raise fault(self.run.name, f"{line} Lower the rate, or mend the hook.")
        if not any(bool(gradient.any()) for gradient in found):
            raise fault(self.run.name, f"loss has the gradient 0 in {self.learnt[0]!r} and in all others. {advice}")


def size_of(tensor: Tensor) -> float:
    """Return the largest absolute value of a tensor; of one with a NaN infinity."""
    return tensor.detach().abs().nan_to_num(math.inf).max().item()
