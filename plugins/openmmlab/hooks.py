"""What pdiff adds to a training on mmengine's Runner."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.runner import EpochBasedTrainLoop
from torch import Tensor, nn

from pdiff import Snapshot, derive_seed, is_norm, pack, parameter_names, seed_all, to_host, training_modules

SECONDS_BETWEEN_RESTS = 30
Emit = Callable[[Snapshot | None], None]


class SeedSteps(Hook):
    """Makes what a step draws a function of the seed and of the step's number.

    Args:
        seed: of the training.
        first: number of the first step.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int, first: int = 0):
        self.seed, self.first = seed, first

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Seed this step."""
        seed_all(derive_seed(self.seed, "step", self.first + runner.iter))


class LateFigures(RuntimeInfoHook):
    """Tells mmengine what a training reaches when it logs; the hook it replaces fetches every figure in every step."""

    def before_train(self, runner) -> None:
        """Note when there will be logs."""
        super().before_train(runner)
        self.intervals = {hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)}
        self.late: list[tuple[str, Any]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Keep this step's figures on their device, and tell all that are kept before the logger looks."""
        for name, value in (outputs or {}).items():
            self.late.append((name, value.detach().clone() if isinstance(value, Tensor) else value))
        logged = any(self.every_n_inner_iters(batch_idx, interval) for interval in self.intervals)
        if logged or self.end_of_epoch(runner.train_dataloader, batch_idx):
            self.tell(runner)

    def after_train(self, runner) -> None:
        """Tell the rest."""
        self.tell(runner)
        super().after_train(runner)

    def tell(self, runner) -> None:
        """Tell mmengine all that is kept, in its order."""
        late, self.late = self.late, []
        found = iter(to_host([value for _, value in late if isinstance(value, Tensor)]))
        for name, value in late:
            runner.message_hub.update_scalar(f"train/{name}", next(found) if isinstance(value, Tensor) else value)


class FreezeAllBut(Hook):
    """Trains the selection alone: nothing else has a gradient, and normalisation keeps its statistics.

    A step begins with `model.train()`, which also decides what some heads compute; so modes and gradients are set
    after it, before every step.

    Args:
        names: the selection.
        mode: `eval` keeps the running statistics of every normalisation; `train` updates those of the selected ones.
    """

    priority = "VERY_HIGH"

    def __init__(self, names: Sequence[str], mode: str):
        self.names, self.mode = names, mode

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Freeze everything but the selection."""
        freeze_all_but(runner.model, self.names, self.mode)


def freeze_all_but(model: nn.Module, names: Sequence[str], mode: str) -> list[Tensor]:
    """Let gradients reach the selection alone, set the mode of each normalisation, and return what is trained."""
    trained = set(training_modules(model, names, is_norm)) if mode == "train" else set()
    for module in filter(is_norm, model.modules()):
        module.train(module in trained)
    tensors = model.state_dict(keep_vars=True)
    for tensor in (*model.parameters(), *tensors.values()):  # the affine buffers of a frozen normalisation, too
        tensor.requires_grad_(False)
    trainable = parameter_names(model)
    return [tensors[name].requires_grad_(True) for name in names if name in trainable]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradients that are added up over several steps, where the config asks for it; else there are none."""
    tensors = model.state_dict(keep_vars=True)
    return {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}


def restore_gradients(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Give a network the gradients back."""
    tensors = model.state_dict(keep_vars=True)
    for name, gradient in kept.items():
        tensors[name].grad = gradient.to(tensors[name].device)


class Snapshots(Hook):
    """Hands the selection over every few steps, with what the fine-tuning needs to go on.

    Args:
        emit: takes a snapshot.
        names: the selection.
        place: values that belong to every snapshot's provenance.
        keep: what every state holds beside the selection and the optimiser.
        first: steps that were done before.
        every: steps between snapshots.
        optimizer: of mmengine's wrapped state, to begin with.
        added: gradients, to begin with.
        warmup: steps at the beginning that hand nothing over.
    """

    priority = "LOWEST"

    def __init__(
        self,
        emit: Emit,
        names: Sequence[str],
        place: Mapping[str, int],
        keep: Mapping[str, Any],
        first: int,
        every: int,
        optimizer: Mapping[str, Any] | None,
        added: Mapping[str, Tensor] | None = None,
        warmup: int = 0,
    ):
        self.emit, self.names, self.place, self.keep = emit, names, place, keep
        self.first, self.every, self.optimizer, self.added = first, every, optimizer, added or {}
        self.warmup = warmup

    def before_train(self, runner) -> None:
        """Give the optimiser its state back."""
        if not self.optimizer:
            return
        runner.optim_wrapper.load_state_dict(self.optimizer)
        restore_gradients(runner.model, self.added)
        runner.optim_wrapper.initialize_count_status(runner.model, self.first, self.first + runner.max_iters)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Hand the selection over, if it is time."""
        step = self.first + runner.iter + 1
        if step <= self.warmup or (step - self.warmup) % self.every:
            self.emit(None)
            return
        tensors = runner.model.state_dict()
        params = {name: tensors[name].detach().clone() for name in self.names}
        state = {"step": step, "selected": params, "optimizer": runner.optim_wrapper.state_dict(), **self.keep}
        state["gradients"] = gradients(runner.model)
        outputs = outputs or {}
        losses = {name: value.item() for name, value in zip(outputs, to_host([*outputs.values()]), strict=True)}
        self.emit(Snapshot(params, {**self.place, "step": step, **losses}, pack({**self.place, **state})))


class Rests(Hook):
    """Hands over, now and then, what the base training needs to go on, and takes it up again.

    Args:
        emit: takes a snapshot.
        state: that of the last rest.

    Attributes:
        weights: of the last rest: what mmengine's checkpoint of that moment would hold.
    """

    priority = "LOWEST"

    def __init__(self, emit: Emit, state: Mapping[str, Any] | None):
        self.emit, self.state = emit, state
        self.weights: Mapping[str, Tensor] = {}

    def before_train(self, runner) -> None:
        """Go on from the last rest."""
        self.rested = time.monotonic()
        if self.state is None:
            return
        runner.call_hook("after_load_checkpoint", checkpoint=self.state)
        runner.model.load_state_dict(self.state["state_dict"])
        runner.optim_wrapper.load_state_dict(self.state["optimizer"])
        restore_gradients(runner.model, self.state["gradients"])
        for scheduler, state in zip(runner.param_schedulers, self.state["param_schedulers"], strict=True):
            scheduler.load_state_dict(state)
        loop = runner.train_loop
        loop._iter, loop._epoch = self.state["iter"], self.state["epoch"]
        runner.optim_wrapper.initialize_count_status(runner.model, loop.iter, loop.max_iters)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Rest after a step, where mmengine can begin with any."""
        self.emit(None)
        if not isinstance(runner.train_loop, EpochBasedTrainLoop) and runner.iter + 1 < runner.max_iters:
            self.rest(runner, runner.iter + 1, runner.epoch)

    def after_train_epoch(self, runner) -> None:
        """Rest after an epoch, where mmengine can begin with a whole one only."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and runner.epoch + 1 < runner.max_epochs:
            self.rest(runner, runner.iter, runner.epoch + 1)

    def after_train(self, runner) -> None:
        """Rest at the end, which a hook may have brought about early."""
        self.rest(runner, runner.iter, runner.epoch, done=True)

    def rest(self, runner, iteration: int, epoch: int, done: bool = False) -> None:
        """Hand the state over when the last one is old; always when the training is done."""
        if not done and time.monotonic() - self.rested < SECONDS_BETWEEN_RESTS:
            return
        checkpoint = {
            "iter": iteration,
            "epoch": epoch,
            "done": done,
            "gradients": gradients(runner.model),
            "state_dict": runner.model.state_dict(),
            "optimizer": runner.optim_wrapper.state_dict(),
            "param_schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
        }
        runner.call_hook("before_save_checkpoint", checkpoint=checkpoint)  # an average of weights takes their place
        self.weights = checkpoint["state_dict"]
        self.emit(Snapshot({}, state=pack(checkpoint)))
        self.rested = time.monotonic()
