"""A network for every condition: the selection is fine-tuned from one trained network, for many conditions in lockstep.

All networks of a block take a step on the same images under the same augmentations, so that these are loaded once, and
what comes before the selection is computed once; only the labels differ. So each is trained as it would be alone. The
blocks are shared by processes, and an interrupted collection goes on where it rested.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from pdiff_plugins.images.blocks import blocks_of
from pdiff_plugins.openmmlab.collection import MODES, constant_rate, train_base
from pdiff_plugins.openmmlab.conditions import only
from pdiff_plugins.openmmlab.data import Shared, Split, without
from pdiff_plugins.openmmlab.draws import Numbers, Part, SeededDraws, Turns
from pdiff_plugins.openmmlab.hooks import SECONDS_BETWEEN_RESTS, freeze_all_but
from pdiff_plugins.openmmlab.libraries import Library, one_line
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader

from pdiff import (
    Conditions,
    PdiffError,
    Prefix,
    Snapshot,
    Task,
    call,
    check_positive,
    check_section,
    derive_seed,
    is_norm,
    known,
    pack,
    parameter_names,
    progress,
    seed_all,
    spread,
    training_modules,
    unpack,
)

TOGETHER = 40  # networks that are trained at once, at most
T = TypeVar("T")


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


class Wearing(nn.Module):
    """Does something while a network wears the tensors that `functional_call` gives; also what backward runs again.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, step: Callable[[], T]) -> T:
        """Return what `step` returns."""
        return step()

    def put_on(self, tensors: Mapping[str, Tensor], step: Callable[[], T]) -> T:
        """Return what `step` returns while the network wears some tensors, tied ones by their first names."""
        there = {name for name, _ in self.model.named_modules()}  # one that is there several times by its first name
        own = {name: each for name, each in spread(self.model, tensors).items() if name.rpartition(".")[0] in there}
        return functional_call(self, {f"model.{name}": each for name, each in own.items()}, (step,), tie_weights=False)


def roots_of_many(count: int, together: int = TOGETHER) -> list[int]:
    """Return for each block the number of the trained network it begins with: there is one."""
    return [0] * len(blocks_of(count, together))


def snapshots_of_many(
    task: Task,
    names: Sequence[str],
    seed: int,
    device: torch.device,
    state: Mapping[str, Tensor] | None,
    folder: Path,
    library: Library,
    conditions: dict,
    networks: dict,
    train: dict | None = None,
    together: int = TOGETHER,
    draws: str = "seeded",
    branch: int | None = None,
) -> Iterator[Snapshot]:
    """Yield a network for each condition, all from one trained network: those of all blocks, or of one of them.

    Args:
        task: whose split `train` is a `data.Split` with a kind of condition.
        names: the selection.
        seed: of the run.
        device: where the network is.
        state: where an interrupted collection goes on.
        folder: for mmengine's logs.
        library: mmdet or mmseg.
        conditions: `type` and settings of what the networks are made for.
        networks: settings of the training of each network.
        train: settings of the base training.
        together: networks that are trained at once.
        draws: of the base training: `seeded` makes every draw of training data a function of seed and step, so that an
            interrupted one ends with the same bytes; `config` keeps the samplers of the config.
        branch: which block of networks; None for all.
    """
    table = task.splits["train"].kind.table
    blocks = blocks_of(len(table), together)
    about = {"model": task.model, "names": names, "config": task.model.cfg}
    settings = call(network_settings, networks, "collect.networks", **about)
    state = unpack(state) if state else None
    base = state.get("base") if state else None
    if base is None:
        own = settings_of(task.model)
        given = {"task": task, "seed": seed, "config": task.model.cfg, "library": library, "draws": draws}
        yield from call(train_base, train or {}, "collect.train", state=state, folder=folder, device=device, **given)
        for module, values in own.items():
            vars(module).update(values)
        tensors = task.model.state_dict()
        base, state = {name: tensors[name].detach().clone() for name in names}, None
    if state and "model" in state:  # before the first snapshot nothing else holds what the base training has made
        task.model.load_state_dict(state["model"])
    reached = state["block"] if state else -1
    for number in range(max(reached, 0), len(blocks)) if branch is None else [branch]:
        own = state if number == reached else None
        yield from train_block(task, seed, number, blocks[number], base, own, settings)


def settings_of(model: nn.Module) -> dict[nn.Module, dict[str, Any]]:
    """Return plain attributes of all modules: hooks of a training change some, as YOLOX's loss in the last epochs.

    A process that takes up the trained network has them as they were before.
    """
    plain = (bool, int, float, str, type(None))
    return {
        module: {name: value for name, value in vars(module).items() if isinstance(value, plain)}
        for module in model.modules()
    }


def network_settings(
    model: nn.Module,
    names: Sequence[str],
    config: Config,
    steps: int,
    optimizer: dict | None = None,
    mode: str = "eval",
) -> dict[str, Any]:
    """Return the settings of the training of each network, all of them checked before anything is trained.

    Args:
        model: the network.
        names: the selection.
        config: the library's.
        steps: optimiser steps of each network, of the config's batch size.
        optimizer: `{type: AdamW, lr: 1.0e-3}`, any of mmengine's, its rate falling to 0 by a cosine; null takes the
            config's. Other settings of the config's `optim_wrapper`, clipping or mixed precision, stay.
        mode: `eval` keeps the running statistics of every normalisation as they are; `train` updates those of the
            selected ones, which then must be selected too.
    """
    check_positive("collect.networks", steps=steps)
    if mode not in MODES:
        raise PdiffError(f"collect.networks.mode: got {mode!r}. {known(mode, MODES)}")
    if mode == "train":
        training_modules(model, names, is_norm)
    if not parameter_names(model) & set(names):
        raise PdiffError("collect.networks: no selected tensor is trained by gradients. Select a weight or a bias.")
    if optimizer is not None:
        check_section(optimizer, "collect.networks.optimizer")
    constant_rate(config, optimizer, [nn.Parameter(torch.zeros(1))], "collect.networks")
    return {"steps": steps, "optimizer": optimizer, "mode": mode}


def train_block(
    task: Task,
    seed: int,
    number: int,
    block: range,
    base: Mapping[str, Tensor],
    state: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
) -> Iterator[Snapshot]:
    """Yield the networks of a block; while they are trained, and with the first of them, a state that holds them all.

    Args:
        task: whose split `train` has a kind of condition.
        seed: of the run.
        number: of the block.
        block: which of the kind's conditions.
        base: the selection that each begins with.
        state: the last one of this block.
        settings: of the training; see `network_settings`.
    """
    table = task.splits["train"].kind.table.take(block)
    kept = {"block": number, "base": dict(base)}
    done = state["done"] if state else 0
    trained = state["trained"] if state and done else None
    if trained is None:
        frozen = {"model": dict(task.model.state_dict())} if number == 0 else {}
        lockstep = Lockstep(task, base, table, seed, f"train {number}", **settings)
        if state:
            lockstep.restore(state["networks"], state["step"])
        rested = time.monotonic()
        for _ in lockstep.run():
            if time.monotonic() - rested > SECONDS_BETWEEN_RESTS:
                rest = {**kept, **frozen, "done": 0, "networks": lockstep.state(), "step": lockstep.step}
                yield Snapshot({}, state=pack(rest))
                rested = time.monotonic()
        trained = [[network.tensors, network.losses] for network in lockstep.networks]
    for place in range(done, len(block)):
        tensors, losses = trained[place]
        origin = {"network": 0, "branch": block[place], "step": settings["steps"]}
        origin |= {name: value.item() for name, value in losses.items()}
        fresh = pack({**kept, "done": place + 1, "trained": trained}) if place == done else None
        yield Snapshot({name: tensor.detach() for name, tensor in tensors.items()}, origin, fresh, table[place])


class Lockstep:
    """Networks for some conditions, trained step by step side by side.

    Args:
        task: whose split `train` has a kind of condition; the network in it stays as it is, but for its mode.
        begin: the selection that each begins with.
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
        self.kind, self.begin, self.mode = self.split.kind, begin, mode
        self.seed, self.title, self.steps, self.step = derive_seed(seed, "networks"), title, steps, 0
        self.networks = [self.network(values, optimizer) for values in conditions.values]
        self.groups = self.by_images(conditions)
        self.prefix = Prefix(self.model, begin)
        self.preprocess = copy.deepcopy(self.model.data_preprocessor)  # it may keep the size of its last images

    def network(self, values: Tensor, optimizer: dict | None) -> Trained:
        """Return a network for a condition `(C,)`, before its first step."""
        learnt = parameter_names(self.model)
        tensors = {name: tensor.detach().clone() for name, tensor in self.begin.items()}
        trainable = [tensor.requires_grad_(True) for name, tensor in tensors.items() if name in learnt]
        wrapper = constant_rate(self.model.cfg, optimizer, trainable, "collect.networks")
        rates = [group["lr"] for group in wrapper.param_groups]
        return Trained(tensors, wrapper, rates, self.kind.labels(values))

    def by_images(self, conditions: Conditions) -> list[tuple[Split, list[Trained]]]:
        """Return the images that some of the networks are trained on, and these networks."""
        found: dict[Any, tuple[Split, list[Trained]]] = {}
        for values, network in zip(conditions.values, self.networks, strict=True):
            rows = self.kind.rows(self.split.dataset, values)
            part = self.split if rows is None else replace(self.split, dataset=Part(self.split.dataset, rows))
            found.setdefault(None if rows is None else tuple(rows), (part, []))[1].append(network)
        return [*found.values()]

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
                    except PdiffError:
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
        self.prefix.end()
        freeze_all_but(self.model.eval(), (), "eval")

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
        own = derive_seed(self.seed, "step", self.step)
        freeze_all_but(self.model.train(), self.begin, self.mode)
        self.model.requires_grad_(False)
        hub = MessageHub.get_current_instance()  # where parts of a network ask for the number of the step
        for name, value in {"iter": self.step, "epoch": 0, "max_iters": self.steps}.items():
            hub.update_info(name, value)
        seed_all(own)
        batch = self.preprocess(data, True)
        samples = batch["data_samples"]

        def whole(inputs: Tensor) -> dict[str, Tensor]:
            seed_all(own)
            return self.model(inputs, [sample.clone() for sample in samples], mode="loss")

        with networks[0].optimizer.optim_context(self.model):
            self.prefix.begin(batch["inputs"], whole)
        for network in networks:
            self.learn(network, samples, own)

    def learn(self, network: Trained, samples: Sequence[Any], seed: int) -> None:
        """Take one step of one network on the batch whose prefix is known; `seed` is that of the step."""

        def loss(inputs: Tensor) -> dict[str, Tensor]:
            own = [self.seen_by(network, sample) for sample in samples]
            seed_all(seed)
            return self.model(inputs, own, mode="loss")

        def step() -> dict[str, Tensor]:
            with network.optimizer.optim_context(self.model):
                total, figures = self.model.parse_losses(self.prefix(loss))
            network.optimizer.update_params(total)
            return figures

        share = 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        for group, rate in zip(network.optimizer.param_groups, network.rates, strict=True):
            group["lr"] = share * rate
        with torch.enable_grad():
            figures = Wearing(self.model).put_on(network.tensors, step)
        network.losses = {name: value.detach() for name, value in figures.items()}

    def seen_by(self, network: Trained, sample: Any) -> Any:
        """Return a copy of a training sample as a network sees it, for some heads write into it."""
        return sample.clone() if network.labels is None else only(sample, network.labels, self.kind.background)

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


def finetuned(
    task: Task,
    names: Sequence[str],
    seed: int,
    start: Mapping[str, Tensor],
    conditions: Conditions,
    steps: int,
    networks: dict,
) -> Iterator[dict[str, Tensor]]:
    """Yield the selection that `steps` steps of the training make of `start`, for each condition; see the hook.

    Args:
        task, names, seed, networks: as for `snapshots_of_many`.
        start: the selection that each begins with.
        conditions: n of them.
        steps: in place of those of the config.
    """
    about = {"model": task.model, "names": names, "config": task.model.cfg}
    settings = call(network_settings, {**networks, "steps": steps}, "collect.networks", **about)
    put(task.model, start)
    lockstep = Lockstep(task, start, conditions, seed, "fine-tune", **settings)
    for _ in lockstep.run():
        pass
    for network in lockstep.networks:
        yield {name: tensor.detach() for name, tensor in network.tensors.items()}
