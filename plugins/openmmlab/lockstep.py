"""Networks for some conditions, trained step by step side by side: what they share is computed once."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from pdiff_plugins.openmmlab.collection import constant_rate
from pdiff_plugins.openmmlab.data import Shared, Split, without
from pdiff_plugins.openmmlab.draws import Numbers, SeededDraws, Turns
from pdiff_plugins.openmmlab.libraries import one_line
from pdiff_plugins.openmmlab.passes import Passes
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pdiff import Conditions, PdiffError, Task, derive_seed, parameter_names, progress, spread


@dataclass
class Trained:
    """One network of a block, while it is trained.

    Attributes:
        tensors: its selection, leaves of its own.
        optimizer: mmengine's wrapper around the optimiser of those that gradients change.
        rates: the first learning rate of each of its groups.
        labels: of the classes that are objects to it; None: all.
        losses: of its last step.
    """

    tensors: dict[str, Tensor]
    optimizer: OptimWrapper
    rates: Sequence[float]
    labels: Sequence[int] | None
    losses: dict[str, Tensor] = field(default_factory=dict)


def unread(clip: Callable[..., Any]) -> Callable[..., None]:
    """Return a function that clips gradients and keeps their norm for itself, which mmengine would wait for to log."""

    def clipped(*args, **kwargs) -> None:
        clip(*args, **kwargs)

    return clipped


class Lockstep:
    """Networks for some conditions, trained step by step side by side.

    Args:
        task: whose split `train` has a kind of condition; the network in it stays as it is, but for its mode.
        begin: the selection that each begins with, on any device.
        conditions: n of them.
        seed: of what is drawn: the same for all networks.
        title: of the progress.
        steps, optimizer, mode: see `network_settings`.
    """

    def __init__(
        self,
        task: Task,
        begin: Mapping[str, Tensor],
        conditions: Conditions,
        seed: int,
        title: str,
        steps: int,
        optimizer: dict | None,
        mode: str,
    ):
        self.model, self.split = task.model, task.splits["train"]
        self.kind, own = self.split.kind, self.model.state_dict()
        self.begin = {name: tensor.detach().to(own[name].device) for name, tensor in begin.items()}
        self.seed, self.title, self.steps, self.step = derive_seed(seed, "networks"), title, steps, 0
        self.networks = [self.network(values, optimizer) for values in conditions.values]
        self.groups = [
            (part, [self.networks[place] for place in places]) for part, places in self.split.parts(conditions)
        ]
        self.passes = Passes(self.model, [*begin], mode, self.kind.background)

    def network(self, values: Tensor, optimizer: dict | None) -> Trained:
        """Return a network for a condition `(C,)`, before its first step."""
        learnt = parameter_names(self.model)
        tensors = {name: tensor.clone() for name, tensor in self.begin.items()}
        trainable = [tensor.requires_grad_(True) for name, tensor in tensors.items() if name in learnt]
        wrapper = constant_rate(self.model.cfg, optimizer, trainable, "collect.networks")
        if wrapper.clip_grad_kwargs:
            wrapper.clip_func = unread(wrapper.clip_func)
        rates = [group["lr"] for group in wrapper.param_groups]
        return Trained(tensors, wrapper, rates, self.kind.labels(values))

    def run(self) -> Iterator[int]:
        """Take the steps that are left, and yield the number of those that are done after each."""
        for network in self.networks:
            network.optimizer.initialize_count_status(nn.Identity(), self.step, self.steps)
        batches = iter(self.batches())
        first, buffers = self.step, self.buffers()
        with progress(self.title, self.steps, self.step) as advance:
            while self.step < self.steps:
                for _, networks in self.groups:
                    try:
                        self.take(next(batches), networks)
                    except (PdiffError, MemoryError, torch.OutOfMemoryError):
                        raise
                    except Exception as error:  # whatever a head finds wrong with images without an object, say
                        if self.step > first:
                            raise
                        raise self.refusal(error) from None
                if self.step == first:
                    self.check_buffers(buffers)
                self.step += 1
                advance()
                yield self.step
        self.passes.end()

    def refusal(self, error: Exception) -> PdiffError:
        """Return the error of a training whose first step fails."""
        line = f"collect.networks: the first step of the training fails ({one_line(error)})."
        advice = "Check pipeline, data_preprocessor, heads and losses"
        return PdiffError(f"{line} {advice} in {self.model.cfg.filename}; a head must bear images without an object.")

    def batches(self) -> DataLoader:
        """Return the loader of the steps that are left, all groups' in turn: one alone, for each has its workers."""
        size = self.split.loader["batch_size"]
        turns = Turns([SeededDraws(Shared(part.dataset), self.seed) for part, _ in self.groups], size)
        numbers = Numbers(len(turns), True, self.step * size * len(self.groups))
        settings = {**without(self.split.loader, "batch_sampler"), "sampler": numbers}
        return Split(turns, settings).batches()

    def buffers(self) -> dict[str, Tensor]:
        """Return copies of the buffers that are not selected."""
        left_out = spread(self.model, self.begin).keys() | parameter_names(self.model)
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items() if name not in left_out}

    def check_buffers(self, before: Mapping[str, Tensor]) -> None:
        """Raise a `PdiffError` where a step wrote into a buffer that is not selected, which all networks share."""
        now = self.buffers()
        changed = next((name for name, tensor in before.items() if not torch.equal(tensor, now[name])), None)
        if changed is not None:
            line = f"collect.networks: a step changes {changed}, which is not selected and all networks share."
            raise PdiffError(f"{line} Add it to select, or give a config whose training leaves it.")

    def take(self, data: Mapping[str, Any], networks: Sequence[Trained]) -> None:
        """Take one step of some networks on a batch as the loader gives it."""
        seed = derive_seed(self.seed, "step", self.step)
        self.passes.begin(data, seed, self.step, self.steps, networks[0].optimizer)
        for network in networks:
            self.learn(network)

    def learn(self, network: Trained) -> None:
        """Take one step of one network on the batch whose prefix is known."""
        share = 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        for group, rate in zip(network.optimizer.param_groups, network.rates, strict=True):
            group["lr"] = share * rate
        wrapper = network.optimizer
        network.losses = self.passes.run(network.tensors, network.labels, wrapper, wrapper.update_params)

    def state(self) -> list[dict[str, Any]]:
        """Return what every network needs to go on."""
        return [
            {
                "tensors": network.tensors,
                "gradients": {name: each.grad for name, each in network.tensors.items() if each.grad is not None},
                "optimizer": network.optimizer.state_dict(),
                "losses": network.losses,
            }
            for network in self.networks
        ]

    def restore(self, networks: Sequence[Mapping[str, Any]], step: int) -> None:
        """Go on behind step `step` with what `state` returned."""
        self.step = step
        for network, kept in zip(self.networks, networks, strict=True):
            with torch.no_grad():
                for name, tensor in kept["tensors"].items():
                    network.tensors[name].copy_(tensor)
                for name, gradient in kept["gradients"].items():
                    network.tensors[name].grad = gradient.to(network.tensors[name].device)
            network.optimizer.load_state_dict(kept["optimizer"])
            network.losses = kept["losses"]


def put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a network."""
    own = model.state_dict()
    for name, tensor in tensors.items():
        own[name].copy_(tensor)
