"""The training losses of networks with any selections: what the collection minimises, on the batch of one of its steps.

Without conditions it is that of the fine-tuning's first branch; the steps of its warm-up count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from pdiff_plugins.openmmlab.collection import constant_rate, finetune_settings, training_loader
from pdiff_plugins.openmmlab.data import Split
from pdiff_plugins.openmmlab.libraries import one_line
from pdiff_plugins.openmmlab.many import network_settings
from pdiff_plugins.openmmlab.passes import Passes
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.data import DataLoader

from pdiff import Conditions, PdiffError, Task, call, derive_seed, parameter_names

SMALLER = 2.0**-4  # by what a scale changes under which gradients of half precision overflow


class Known(torch.autograd.Function):
    """Gives losses `(n,)` the gradients that were computed with them, `(n, ...)` of each tensor."""

    @staticmethod
    def forward(ctx, losses: Tensor, gradients: Sequence[Tensor], *tensors: Tensor) -> Tensor:
        """Return the losses."""
        ctx.gradients = gradients
        return losses.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, given: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients, weighed by those of the losses."""
        return None, None, *(given.view(-1, *[1] * (each.dim() - 1)) * each for each in ctx.gradients)


def losses_of_networks(
    task: Task,
    seed: int,
    collect: Mapping[str, Any],
    params: Mapping[str, Tensor],
    conditions: Conditions | None,
    step: int,
) -> Tensor:
    """Return the losses `(n,)` of n networks on the training batch of a step.

    Each network's gradients are computed with its loss, so that the passes of n networks need no more memory than one.

    Args:
        task: whose split `train` is a `data.Split`; its network holds the library's config as `cfg`.
        seed: of the run.
        collect: that section of the config.
        params: the tensors of each `(n, ...)`.
        conditions: what they are for; None without conditions.
        step: of the training; with conditions of each network's.

    Raises:
        PdiffError: the draws of the training do not follow from the step, or its loss cannot be computed.
    """
    split, networks = task.splits["train"], Networks(task.model, params)
    training = training_of(task, seed, collect, [*params], conditions is not None)
    parts = [(split, range(len(networks.losses)))] if conditions is None else split.parts(conditions)
    try:
        for part, places in parts:
            training.begin(part, step, len(places))
            for place in places:
                labels = None if conditions is None else split.kind.labels(conditions.values[place])
                networks.run(place, training.passes, labels, training.wrapper)
    except (PdiffError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a head finds wrong with a network, or with images without an object
        where = "finetune" if conditions is None else "networks"
        line = f"collect.{where}: the loss of step {step} cannot be computed ({one_line(error)})."
        advice = "Check pipeline, data_preprocessor, heads and losses"
        raise PdiffError(f"{line} {advice} in {task.model.cfg.filename}.") from error
    finally:
        training.passes.end()
    return networks.result()


@dataclass(frozen=True)
class Training:
    """What the passes of a training are, whose networks have one loss after another.

    Attributes:
        passes: of the networks.
        wrapper: mmengine's around an optimiser that changes nothing; its precision counts.
        seed: of the training.
        steps: how many the config has; there may be more.
    """

    passes: Passes
    wrapper: OptimWrapper
    seed: int
    steps: int

    def begin(self, part: Split, step: int, count: int) -> None:
        """Take the batch of a step of some images, for a number of networks."""
        data = part.ahead.batch(self.seed, step, partial(loader_from, part, self.seed))
        seed = derive_seed(self.seed, "step", step)
        self.passes.begin(data, seed, step, self.steps, self.wrapper, alone=count == 1)


def training_of(task: Task, seed: int, collect: Mapping[str, Any], names: Sequence[str], conditional: bool) -> Training:
    """Return the training of the networks for conditions, or the fine-tuning of the first branch.

    Args:
        task, seed, collect: see `losses_of_networks`.
        names: the selection.
        conditional: whether there are conditions.

    Raises:
        PdiffError: its settings cannot be, or what it draws does not follow from the number of a step.
    """
    where, settings = ("networks", network_settings) if conditional else ("finetune", finetune_settings)
    if not conditional:
        check_draws(collect)
    about = {"model": task.model, "names": names, "config": task.model.cfg}
    section = {**({"steps": 1} if conditional else {}), **(collect.get(where) or {})}  # networks from files have none
    found = call(settings, section, f"collect.{where}", **about)
    nothing = [nn.Parameter(torch.zeros(1))]
    wrapper = constant_rate(task.model.cfg, found["optimizer"], nothing, f"collect.{where}")
    background = task.splits["train"].kind.background if conditional else None
    passes = Passes(task.model, names, found["mode"], background, anew=conditional)
    own = derive_seed(seed, "networks") if conditional else derive_seed(seed, "finetune", 0)
    return Training(passes, wrapper, own, found["steps"] + found.get("warmup", 0))


def check_draws(collect: Mapping[str, Any]) -> None:
    """Raise a `PdiffError` where the number of a step of the fine-tuning does not tell its images."""
    if collect.get("draws") == "config":
        line = "collect.draws: got 'config', expected 'seeded', by which the number of a step tells its images."
        raise PdiffError(f"{line} Give collect.draws=seeded, or train nothing through the losses of networks.")


def loader_from(split: Split, seed: int, step: int) -> DataLoader:
    """Return the loader of the batches of a step and of all behind it."""
    return training_loader(split, seed, "seeded", endless=True, first=step)


class Networks:
    """Networks that are run one after another, and what was found.

    Args:
        model: the network that wears them.
        params: the tensors of each `(n, ...)`.

    Attributes:
        losses: `(n,)`, of those that were run.
    """

    def __init__(self, model: nn.Module, params: Mapping[str, Tensor]):
        self.params, first = params, next(iter(params.values()))
        learnt = parameter_names(model) if torch.is_grad_enabled() else ()
        self.learnt = [name for name, tensor in params.items() if name in learnt and tensor.requires_grad]
        self.losses = torch.zeros(len(first), device=first.device)
        self.gradients: dict[str, Tensor] = {}

    def run(self, place: int, passes: Passes, labels: Sequence[int] | None, wrapper: OptimWrapper) -> None:
        """Run the network of a place on the batch of `passes`; see there."""
        own = {name: tensor[place].detach().clone() for name, tensor in self.params.items()}
        leaves = {name: own[name].requires_grad_(True) for name in self.learnt}

        def learn(total: Tensor) -> None:
            if total.requires_grad:
                wrapper.backward(total)

        while True:
            figures = passes.run(own, labels, wrapper, learn)
            scale = scale_of(wrapper)
            found = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
            if scale <= 1 or all(gradient.isfinite().all() for gradient in found.values()):
                break
            wrapper.loss_scaler.update(max(scale * SMALLER, 1.0))
            for leaf in leaves.values():
                leaf.grad = None
        self.losses[place] = figures["loss"]
        for name, gradient in found.items():
            self.gradients.setdefault(name, torch.zeros_like(self.params[name]))[place] = gradient / scale

    def result(self) -> Tensor:
        """Return the losses `(n,)`, with gradients in all tensors that training changes.

        One that no network needs for this batch, a mask head's where no object is, has the gradient 0.
        """
        if not self.gradients:
            return self.losses
        tensors = [self.params[name] for name in self.learnt]
        gradients = [self.gradients.get(name, torch.zeros_like(self.params[name])) for name in self.learnt]
        return Known.apply(self.losses, gradients, *tensors)


def scale_of(wrapper: OptimWrapper) -> float:
    """Return what a wrapper multiplies losses by, so that small gradients are not 0 in half precision."""
    return wrapper.loss_scaler.get_scale() if isinstance(wrapper, AmpOptimWrapper) else 1.0
