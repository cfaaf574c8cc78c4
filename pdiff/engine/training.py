"""One training by gradients, on mmengine's Runner; resumable to the same weights, on a CPU byte for byte.

A step is a function of the state before it and of its number: which rows it sees and which noise it adds follow
from (seed, step). So the state between two steps is weights, averages and optimiser, and nothing else.

Several processes share each batch, which gives the same but for rounding. A network with batch statistics, which need
the whole batch, is trained by the first process alone, and so is what has fewer rows than there are processes; on GPUs
also what is so small that to add up its gradients takes longer than to compute them.
"""

import hashlib
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import EMAHook, Hook, RuntimeInfoHook
from mmengine.model import ExponentialMovingAverage, is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from pdiff.engine.runner import QuietRunner
from pdiff.engine.scaling import Scaled
from pdiff.engine.watching import Watch
from pdiff.runtime.packing import pack, unpack
from pdiff.runtime.processes import copy_from_main, is_main, on_main, size, training_group
from pdiff.runtime.progress import logger, progress
from pdiff.runtime.seeding import derive_seed, generator
from pdiff.runtime.storage import read_tensors_and_metadata, write_tensors
from pdiff.weights.vectors import brought, parts

SECONDS_BETWEEN_STATES = 30
STEPS_BETWEEN_LOGS = 100
FEWEST_ROWS, LEAST_WORK = 8, 2**28  # of a step that GPUs share: rows of each, and rows times weights of all


class Batches(Dataset):
    """Step number to batch: the rows in an order that is shuffled anew in every epoch.

    Args:
        rows: `(N, ...)`, on the device of the training, or computed there from vectors that lie elsewhere.
        batch_size: B.
        steps: number of batches.
        seed: of the order.
    """

    metainfo: ClassVar = {}  # mmengine's Runner warns without

    def __init__(self, rows: Tensor | Scaled, batch_size: int, steps: int, seed: int):
        self.rows, self.batch_size, self.steps, self.seed = rows, batch_size, steps, seed
        self.orders: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict:
        epoch, place = divmod(step * self.batch_size, len(self.rows))
        order = self.order(epoch)
        while len(order) - place < self.batch_size:
            epoch += 1
            order = torch.cat([order, self.order(epoch)])
        return {"rows": self.rows[order[place : place + self.batch_size]], "step": step}

    @property
    def stored(self) -> torch.device:
        """Where the rows lie, and so the order of them."""
        return self.rows.stored if isinstance(self.rows, Scaled) else self.rows.device

    def order(self, epoch: int) -> Tensor:
        """Return the order of the rows in one epoch."""
        if epoch not in self.orders:
            rng, place = generator(self.seed, "order", epoch), self.stored
            self.orders = {k: v for k, v in self.orders.items() if k >= epoch - 1}
            self.orders[epoch] = brought(torch.randperm(len(self.rows), generator=rng), place)
        return self.orders[epoch]


def bare(runner) -> nn.Module:
    """Return what is trained, without what mmengine wraps around it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


class StepNumber(RuntimeInfoHook):
    """Tells mmengine the number of the step; the hook it replaces fetches the loss from the device in every step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Tell the number."""
        runner.message_hub.update_info("iter", runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Fetch nothing."""


DEFAULT_HOOKS = {
    "runtime_info": {"type": StepNumber},
    "timer": None,
    "checkpoint": None,
    "sampler_seed": None,
    "logger": {"type": "LoggerHook", "interval": STEPS_BETWEEN_LOGS},
}


class Losses(Hook):
    """Keeps the loss of every step, that of all processes, on its device: no step waits for a number; logs means."""

    priority = "HIGH"  # before mmengine's logger

    def before_train(self, runner) -> None:
        """Make room for every step."""
        self.values = torch.zeros(runner.max_iters, device=next(runner.model.parameters()).device)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Keep this step's loss."""
        self.values[runner.iter] = outputs["loss"].detach()  # else all steps' graphs would be kept
        all_reduce(self.values[runner.iter], "mean")
        if not self.every_n_train_iters(runner, STEPS_BETWEEN_LOGS):
            return
        latest = self.values[runner.iter + 1 - STEPS_BETWEEN_LOGS : runner.iter + 1]
        runner.message_hub.update_scalar("train/loss", latest.mean().item())
        runner.message_hub.update_scalar("train/lr", runner.optim_wrapper.get_lr()["lr"][0])


class MovingAverage(ExponentialMovingAverage):
    """mmengine's average of the weights, all tensors in one call."""

    pairs: tuple[list[Tensor], list[Tensor]] | None = None

    def update_parameters(self, model: nn.Module) -> None:
        """Pull the average towards the weights; the first time, copy them."""
        if self.steps == 0:
            super().update_parameters(model)
            return
        if self.pairs is None:
            source = model.state_dict()
            floating = [name for name, tensor in self.avg_parameters.items() if tensor.is_floating_point()]
            self.pairs = [self.avg_parameters[n] for n in floating], [source[n] for n in floating]
        get_ema_multi_avg_fn(1 - self.momentum)(*self.pairs, None)
        self.steps += 1


class Compile(Hook):
    """Compiles a method of the model by one of torch's backends while the training lasts.

    Args:
        backend: of `torch.compile`.
        method: its name.
    """

    def __init__(self, backend: str, method: str = "loss"):
        self.backend, self.method = backend, method

    def before_train(self, runner) -> None:
        """Put the compiled function before the method."""
        model = bare(runner)
        setattr(model, self.method, torch.compile(getattr(model, self.method), backend=self.backend))

    def after_train(self, runner) -> None:
        """Take it away."""
        delattr(bare(runner), self.method)


class ShowProgress(Hook):
    """Calls `advance` after every step."""

    def __init__(self, advance):
        self.advance = advance

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Count this step."""
        self.advance()


def kept_state(path: Path, identity: str) -> dict[str, Any] | None:
    """Return what an interrupted training of this identity has left on disk; None where there is nothing.

    A state of another identity is not taken, which the log says: on a GPU vectors that were computed anew may differ in
    their last digits, or be turned, and nobody could go on with those that the state was trained on.
    """
    if not path.exists():
        return None
    tensors, metadata = read_tensors_and_metadata(path)
    if metadata.get("identity") != identity:
        logger.info("fit: %s is of other vectors or settings: this training begins anew", path.name)
        return None
    return unpack(tensors)


class TrainingState(Hook):
    """Writes what the training needs to go on, every `SECONDS_BETWEEN_STATES`, and takes it up again.

    Args:
        path: the safetensors file.
        kept: what `kept_state` read from it.
        losses: the hook that keeps the losses.
        average: the hook that keeps the moving average, if there is one.
        watch: the hook that may end the training, if there is one.
        identity: what the state belongs to.
    """

    priority = "LOWEST"

    def __init__(
        self,
        path: Path,
        kept: dict[str, Any] | None,
        losses: Losses,
        average: EMAHook | None,
        watch: Watch | None,
        identity: str,
    ):
        self.path, self.kept, self.losses, self.average, self.identity = path, kept, losses, average, identity
        self.watch = watch

    def before_train(self, runner) -> None:
        """Go on from the state on disk."""
        self.written = time.monotonic()
        if self.kept is None:
            return
        for part, module in self.modules(runner).items():
            module.load_state_dict(self.kept[part])
        runner.optim_wrapper.optimizer.load_state_dict(self.kept["optimizer"])
        for scheduler, state in zip(runner.param_schedulers, self.kept["schedulers"], strict=True):
            scheduler.load_state_dict(state)
        self.losses.values.copy_(self.kept["losses"])
        runner.train_loop._iter = self.kept["step"]
        if self.watch:
            self.watch.load_state_dict(self.kept["watch"])
            runner.train_loop.stop_training = self.watch.over

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Write the state when the last one is old, or when this was the last step; the first process does."""
        if not is_main():
            return
        goes_on = runner.iter + 1 < runner.max_iters and not runner.train_loop.stop_training
        if goes_on and time.monotonic() - self.written < SECONDS_BETWEEN_STATES:
            return
        state = {
            **{part: module.state_dict() for part, module in self.modules(runner).items()},
            "optimizer": runner.optim_wrapper.optimizer.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
            "losses": self.losses.values,
            "step": runner.iter + 1,
            **({"watch": self.watch.state_dict()} if self.watch else {}),
        }
        write_tensors(self.path, pack(state), {"identity": self.identity})
        self.written = time.monotonic()

    def modules(self, runner) -> dict[str, nn.Module]:
        """Return what has weights: the model and its average."""
        return {"model": bare(runner)} | ({"average": self.average.ema_model} if self.average else {})


class Bfloat16OptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16 autocast on any device; mmengine's own wrapper refuses CPUs."""

    @contextmanager
    def optim_context(self, model):
        """Autocast on the model's device; bfloat16 has float32's range, so the loss needs no scaling."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


def train(
    objective: nn.Module,
    rows: Tensor | Scaled,
    name: str,
    folder: Path | None,
    seed: int,
    identity: str,
    watch: Watch | None = None,
    arithmetic: str = "loss",
    device: torch.device | None = None,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    schedule: str,
    ema: float,
    amp: bool,
    compile: str = "none",
) -> list[float]:
    """Train `objective` on `rows` and return the loss of every step.

    Args:
        objective: an mmengine `BaseModel` that takes `rows` and `step`; `compile` compiles one of its methods.
        rows: `(N, ...)`, on the device of the training, unless that is named.
        name: what is trained, for logs and files.
        folder: where log and state go; with a state of the same training in it, the training goes on from there.
        seed: of the order of the rows.
        identity: everything else that decides about the result; a state of another identity is not taken.
        watch: what looks at rows that are left out of `rows`, and may end the training; None for all steps.
        arithmetic: the method that `compile` compiles; of a `Behaving` it is `vectors`.
        device: of the training, where the rows lie elsewhere.
        steps: optimiser steps; 0 for no training.
        batch_size: B, rows of a step.
        lr: AdamW's learning rate.
        weight_decay: AdamW's weight decay.
        schedule: `cosine` (to 0 over all steps) or `constant`.
        ema: decay of the exponential moving average of the weights, which then is the result; 0 for none.
        amp: bfloat16 autocast, on GPUs and CPUs.
        compile: `none`, or a backend of `torch.compile`: `eager`, `inductor` or, on a GPU, `cudagraphs`.
    """
    if steps == 0 or not any(p.requires_grad for p in objective.parameters()):
        return []
    seen = [checksum(part) for part in ((rows, watch.rows) if watch else (rows,))]
    whole, device = str(derive_seed(seed, identity, *seen)), device or rows.device
    kept = on_main(lambda: kept_state(Path(folder) / f"{name}.state.safetensors", whole) if folder else None)
    alone = trains_alone(objective, len(rows), batch_size, device)
    if alone and not is_main():
        return results_of_main(objective, [])
    cosine = {"type": "CosineAnnealingLR", "T_max": steps, "by_epoch": False}
    losses, average = Losses(), EMAHook(MovingAverage, momentum=1 - ema, update_buffers=True) if ema else None
    compiled = Compile(compile, arithmetic) if compile != "none" else None
    group = nullcontext() if alone else training_group(device)
    with tempfile.TemporaryDirectory() as scratch, progress(f"fit {name}", steps) as advance, group:
        work = Path(folder) if folder and is_main() else Path(scratch)
        state = (
            TrainingState(work / f"{name}.state.safetensors", kept, losses, average, watch, whole) if folder else None
        )
        runner = QuietRunner(
            name=name,
            device=device,
            model=objective,
            work_dir=str(work / "logs" / name),
            train_dataloader=DataLoader(Batches(rows, batch_size, steps, seed), batch_size=None),
            train_cfg={"by_epoch": False, "max_iters": steps},
            optim_wrapper={
                "type": Bfloat16OptimWrapper if amp else OptimWrapper,
                "optimizer": {"type": "AdamW", "lr": lr, "weight_decay": weight_decay, "fused": True},
            },
            param_scheduler=[cosine] if schedule == "cosine" else [],
            default_hooks=DEFAULT_HOOKS,
            log_processor={"window_size": 1},
            custom_hooks=[hook for hook in (average, losses, compiled, ShowProgress(advance), watch, state) if hook],
            default_scope="mmengine",
            randomness={"seed": seed % 2**31},
        )
        runner.train()
        runner.close_log()
    result = average.ema_model.module.state_dict() if average else None
    result = watch.best if watch and watch.best else result
    if result:
        objective.load_state_dict(result)
    return results_of_main(objective, losses.values[: runner.iter].tolist())


def trains_alone(objective: nn.Module, rows: int, batch_size: int, device: torch.device) -> bool:
    """Say whether the first process trains alone, on so many rows in batches of so many, on a device."""
    if size() == 1 or rows < size() or has_batch_statistics(objective):
        return True
    work = batch_size * sum(parameter.numel() for parameter in objective.parameters() if parameter.requires_grad)
    return device.type == "cuda" and (batch_size < FEWEST_ROWS * size() or work < LEAST_WORK)


def has_batch_statistics(model: nn.Module) -> bool:
    """Say whether a network's output for one row depends on the other rows of its batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def results_of_main(objective: nn.Module, losses: list[float]) -> list[float]:
    """Give `objective` the weights of the first process, and return the losses of that one."""
    copy_from_main(objective)
    return on_main(lambda: losses)


def checksum(rows: Tensor | Scaled) -> str:
    """Return a hash of the bytes of `(N, ...)`."""
    digest = hashlib.sha256()
    for part in parts(rows):
        digest.update(part.detach().cpu().contiguous().numpy())
    return digest.hexdigest()
