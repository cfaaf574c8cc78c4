"""Collection for networks of mmdet and mmseg: train on mmengine's Runner, freeze, fine-tune the selection.

The base training is the one that the config describes. The fine-tuning goes on with its data, its augmentations and
its optimiser, at a constant learning rate, and hands over the selection every few steps.
"""

import contextlib
import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import BaseLoop, IterBasedTrainLoop
from pdiff_plugins.openmmlab.data import Shared, Split, without
from pdiff_plugins.openmmlab.draws import Numbers, SeededDraws
from pdiff_plugins.openmmlab.environment import environment_kept
from pdiff_plugins.openmmlab.hooks import Emit, FreezeAllBut, LateFigures, Rests, SeedSteps, Snapshots, freeze_all_but
from pdiff_plugins.openmmlab.libraries import Library, one_line, silence
from pdiff_plugins.openmmlab.stream import stream
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pdiff import (
    PdiffError,
    QuietRunner,
    ShowProgress,
    Snapshot,
    Task,
    call,
    check_positive,
    check_section,
    derive_seed,
    is_norm,
    known,
    parameter_names,
    progress,
    training_modules,
    unpack,
)

MODES = ("eval", "train")
DRAWS = ("seeded", "config")
SETTINGS = ("env_cfg", "auto_scale_lr", "data_preprocessor", "log_level")


class TaskRunner(QuietRunner):
    """A Runner for a network that has its weights already.

    Args:
        described: the config that the training is run with.
        settings: of mmengine's Runner.
    """

    def __init__(self, described: Config | None = None, **settings):
        self.described, self.validation = described or Config({}), contextlib.ExitStack()
        self.begun, self.stepped = False, False
        super().__init__(**settings)

    def dump_config(self) -> None:
        """Write the config that the training is run with."""
        self.described.dump(str(Path(self.work_dir) / f"{self.timestamp}.json"))

    def build_val_loop(self, loop):
        """Keep what the validation's data and metric print from the terminal."""
        with silence():
            return super().build_val_loop(loop)

    def call_hook(self, fn_name: str, **arguments) -> None:
        """Note that the training begins, and its first step ends; keep what its validations print from the terminal."""
        self.begun |= fn_name == "before_train"
        self.stepped |= fn_name == "after_train_iter"
        if fn_name == "before_val":
            self.validation.enter_context(silence())
        super().call_hook(fn_name, **arguments)
        if fn_name == "after_val":
            self.validation.close()

    def close(self) -> None:
        """Close the log, and end the data workers: torch waits 5 s for each that the garbage collector ends."""
        self.validation.close()
        self.close_log()
        for loop in (self._train_loop, self._val_loop):
            if isinstance(loop, BaseLoop):
                loop.dataloader._iterator = None
        if isinstance(self._train_loop, IterBasedTrainLoop):
            self._train_loop.dataloader_iterator._iterator = None

    def _init_model_weights(self) -> None:
        """Keep the weights."""

    def load_or_resume(self) -> None:
        """Leave it to the hook that keeps the state."""


def snapshots(
    task: Task,
    names: Sequence[str],
    seed: int,
    device: torch.device,
    state: Mapping[str, Tensor] | None,
    folder: Path,
    library: Library,
    finetune: dict,
    train: dict | None = None,
    branches: int = 1,
    draws: str = "seeded",
    branch: int | None = None,
) -> Iterator[Snapshot]:
    """Yield the snapshots of every branch, or of one of them.

    Args:
        task: whose split `train` is a `data.Split`; its network holds the library's config as `cfg`.
        names: the selection.
        seed: of the run.
        device: where the network is.
        state: where an interrupted collection goes on.
        folder: for mmengine's logs.
        library: mmdet or mmseg.
        finetune: settings of the fine-tuning.
        train: settings of the base training.
        branches: fine-tunings of the trained network.
        draws: `seeded` makes every draw of training data a function of seed and step, so that an interrupted
            collection ends with the same bytes; `config` keeps the samplers of the config.
        branch: which of `roots`; None for all.
    """
    check_positive("collect", branches=branches)
    if draws not in DRAWS:
        raise PdiffError(f"collect.draws: got {draws!r}. {known(draws, DRAWS)}")
    state = unpack(state) if state else None
    given = {"task": task, "seed": seed, "config": task.model.cfg, "library": library, "draws": draws}
    given |= {"folder": folder, "device": device}
    about = {"model": task.model, "names": names, "config": task.model.cfg}
    settings = call(finetune_settings, finetune, "collect.finetune", **about)
    base, begun_with = state.get("base") if state else None, settings_of(task.model)
    if base is None:
        yield from call(train_base, train or {}, "collect.train", state=state, **given)
        restore_settings(begun_with)
        base = {name: tensor.detach().clone() for name, tensor in task.model.state_dict().items() if name in names}
        state = None
    reached = state["branch"] if state else 0
    for number in range(reached, branches) if branch is None else [branch]:
        own = state if number == reached else None
        yield from finetune_selection(names=names, branch=number, base=base, state=own, **given, **settings)
        restore_settings(begun_with)


def roots(branches: int = 1) -> list[int]:
    """Return for each branch, which need not wait for each other, the number of its trained network: there is one."""
    check_positive("collect", branches=branches)
    return [0] * branches


def settings_of(model: nn.Module) -> dict[nn.Module, dict[str, Any]]:
    """Return plain attributes of all modules: a training changes some, as YOLOX's loss in the last epochs.

    A process that takes up the trained network has them as they were before, and so must one that goes on with it.
    """
    plain = (bool, int, float, str, type(None))
    return {
        module: {name: value for name, value in vars(module).items() if isinstance(value, plain)}
        for module in model.modules()
    }


def restore_settings(settings: Mapping[nn.Module, Mapping[str, Any]]) -> None:
    """Give modules the attributes of `settings_of` back."""
    for module, values in settings.items():
        vars(module).update(values)


def train_base(
    task: Task,
    seed: int,
    config: Config,
    library: Library,
    draws: str,
    folder: Path,
    device: torch.device,
    state: Mapping[str, Any] | None,
    enabled: bool = True,
    validate: bool = False,
) -> Iterator[Snapshot]:
    """Train the whole network as the config says; rest now and then.

    Args:
        task, seed, config, library, draws, folder, device: as for `snapshots`.
        state: that of the last rest.
        enabled: false takes the weights as they are, from a checkpoint say.
        validate: run the config's validation during the training.
    """
    if not enabled:
        return
    if state and state["done"]:
        task.model.load_state_dict(state["state_dict"])
        return
    loader, steps = base_training(task, seed, config, draws)
    done = state["iter"] if state else 0
    own = {
        "train_cfg": dict(config.train_cfg),
        "optim_wrapper": dict(config.optim_wrapper),
        "param_scheduler": config.get("param_scheduler") or [],
        "default_hooks": {**without(config.get("default_hooks", {}), "visualization"), "checkpoint": None},
        "log_processor": config.get("log_processor"),
        "resume": state is not None,  # hooks ask for it when they take up what they kept
    }
    validation = {key: config.get(key) for key in ("val_dataloader", "val_cfg", "val_evaluator") if validate}

    def program(emit: Emit) -> None:
        with progress("train", steps, done) as advance:
            rests = Rests(emit, state)
            custom = copy.deepcopy(config.get("custom_hooks") or [])  # mmengine takes their priorities out
            hooks = [*custom, SeedSteps(seed), ShowProgress(advance), rests]
            run(task.model, "train", library, config, device, folder, loader, {**own, **validation}, hooks, seed, {})
            task.model.load_state_dict(rests.weights)

    if steps > 0:
        yield from stream(program)


def base_training(task: Task, seed: int, config: Config, draws: str) -> tuple[DataLoader, int]:
    """Return the loader and the number of steps of the base training that the config describes."""
    for key in ("train_cfg", "optim_wrapper"):
        if not config.get(key):
            raise PdiffError(f"collect.train: the config has no {key}. Add it, or give collect.train.enabled=false.")
    epochs = config.train_cfg.get("by_epoch", config.train_cfg.get("type") == "EpochBasedTrainLoop")
    length = "max_epochs" if epochs else "max_iters"
    if length not in config.train_cfg:
        raise PdiffError(f"collect.train: the config's train_cfg has no {length}. Add it.")
    split = task.splits["train"]
    own_data = Split(copy.copy(split.dataset), split.loader)  # whose pipeline a hook may change
    loader = training_loader(own_data, derive_seed(seed, "train"), draws, endless=not epochs)
    return loader, config.train_cfg[length] * (len(loader) if epochs else 1)


def finetune_settings(
    model: nn.Module,
    names: Sequence[str],
    config: Config,
    steps: int = 300,
    every: int = 1,
    warmup: int = 0,
    optimizer: dict | None = None,
    mode: str = "eval",
) -> dict[str, Any]:
    """Return the settings of the fine-tuning, all of them checked before anything is trained.

    Args:
        model: the network.
        names: the selection.
        config: the library's.
        steps: optimiser steps behind the warm-up.
        every: steps between snapshots.
        warmup: optimiser steps at the beginning of each branch, without snapshots.
        optimizer: `{type: AdamW, lr: 1.0e-4, weight_decay: 5.0e-4}`, any of mmengine's; null takes the config's. Other
            settings of the config's `optim_wrapper`, clipping or mixed precision, stay; those by parameter do not.
        mode: `eval` keeps the running statistics of every normalisation as they are; `train` updates those of the
            selected ones, which then must be selected too.
    """
    check_positive("collect.finetune", steps=steps, every=every)
    if warmup < 0:
        raise PdiffError(f"collect.finetune.warmup: got {warmup}, expected an integer from 0 on.")
    if every > steps:
        raise PdiffError(f"collect.finetune.every: got {every}, expected at most {steps}, which steps are done.")
    check_training(model, names, config, optimizer, mode, "collect.finetune")
    return {"steps": steps, "every": every, "warmup": warmup, "optimizer": optimizer, "mode": mode}


def check_training(
    model: nn.Module, names: Sequence[str], config: Config, optimizer: dict | None, mode: str, where: str
) -> None:
    """Raise a `PdiffError` where a selection cannot be trained so; `where` is the section's place in the config."""
    if mode not in MODES:
        raise PdiffError(f"{where}.mode: got {mode!r}. {known(mode, MODES)}")
    if mode == "train":
        training_modules(model, names, is_norm)
    if not parameter_names(model) & set(names):
        raise PdiffError(f"{where}: no selected tensor is trained by gradients. Select a weight or a bias.")
    if optimizer is not None:
        check_section(optimizer, f"{where}.optimizer")
    constant_rate(config, optimizer, [nn.Parameter(torch.zeros(1))], where)


def finetune_selection(
    task: Task,
    names: Sequence[str],
    seed: int,
    config: Config,
    library: Library,
    draws: str,
    folder: Path,
    device: torch.device,
    branch: int,
    base: Mapping[str, Tensor],
    state: Mapping[str, Any] | None,
    steps: int,
    every: int,
    warmup: int,
    optimizer: dict | None,
    mode: str,
) -> Iterator[Snapshot]:
    """Fine-tune the selection from the trained network at a constant rate, a snapshot per `every` steps.

    An interruption during the warm-up, of which there is no snapshot, begins the branch anew.

    Args:
        task, seed, config, library, draws, folder, device: as for `snapshots`.
        names: the selection.
        branch: number of this fine-tuning.
        base: the selection of the trained network.
        state: that of the last snapshot of this branch.
        steps, every, warmup, optimizer, mode: see `finetune_settings`.
    """
    first, steps = state["step"] if state else 0, warmup + steps
    if first == steps:
        return
    tensors = task.model.state_dict()
    for name in names:
        tensors[name].copy_((state["selected"] if state else base)[name])
    part = derive_seed(seed, "finetune", branch)
    loader = training_loader(task.splits["train"], part, draws, endless=True, first=first)
    wrapper = constant_rate(config, optimizer, freeze_all_but(task.model, names, mode))
    own = {
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": steps - first},
        "optim_wrapper": wrapper,
        "param_scheduler": [],
        "default_hooks": {"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 50}},
        "log_processor": {"by_epoch": False},
    }
    place, keep = {"branch": branch}, {"base": dict(base)}
    start = (state["optimizer"], state["gradients"]) if state else (None, None)

    def program(emit: Emit) -> None:
        with progress(f"collect {branch}", steps, first) as advance:
            last = Snapshots(emit, names, place, keep, first, every, *start, warmup=warmup)
            hooks = [FreezeAllBut(names, mode), SeedSteps(part, first), ShowProgress(advance), last]
            described = {"optim_wrapper": wrapper_settings(config, optimizer)}
            run(task.model, f"finetune_{branch}", library, config, device, folder, loader, own, hooks, part, described)

    yield from stream(program)
    freeze_all_but(task.model, (), "eval")


def training_loader(split: Split, seed: int, draws: str, endless: bool, first: int = 0) -> DataLoader:
    """Return the loader of the training data, at its beginning or behind the first `first` batches."""
    if draws == "config":
        return split.batches()
    settings = without(split.loader, "sampler", "batch_sampler")
    numbers = Numbers(len(split.dataset), endless, first * settings["batch_size"])
    return Split(SeededDraws(Shared(split.dataset), seed), {**settings, "sampler": numbers}).batches()


def wrapper_settings(config: Config, optimizer: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings of the config's optimiser wrapper without those by parameter, around an optimiser."""
    settings = {"type": "OptimWrapper", **without(config.get("optim_wrapper") or {}, "constructor", "paramwise_cfg")}
    return {**settings, "optimizer": dict(optimizer or settings.get("optimizer") or {})}


def constant_rate(
    config: Config, optimizer: Mapping[str, Any] | None, tensors: Sequence[Tensor], where: str = "collect.finetune"
) -> Any:
    """Return the config's optimiser wrapper around an optimiser of these tensors; `where` is its place in the config.

    Raises:
        PdiffError: mmengine cannot build it.
    """
    from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS

    settings = wrapper_settings(config, optimizer)
    chosen = settings["optimizer"]
    try:
        inner = OPTIMIZERS.build({**copy.deepcopy(chosen), "params": list(tensors)})
        return OPTIM_WRAPPERS.build({**copy.deepcopy(settings), "optimizer": inner})
    except (AssertionError, KeyError, TypeError, ValueError) as error:  # the first: mixed precision without a GPU
        reason = " ".join(str(error).split())
        raise PdiffError(
            f"{where}.optimizer: got {chosen}, which mmengine cannot build ({reason}). "
            "Give one like {type: AdamW, lr: 1.0e-4}."
        ) from None


def run(
    model: nn.Module,
    name: str,
    library: Library,
    config: Config,
    device: torch.device,
    folder: Path,
    loader: DataLoader,
    own: Mapping[str, Any],
    hooks: Sequence[Any],
    seed: int,
    instead: Mapping[str, Any],
) -> None:
    """Train on mmengine's Runner, and say what of the config was replaced.

    cuDNN does not try which kernels are fastest, whatever the config says: they round differently, so that a training
    would not end with the same bytes twice.

    Args:
        model, name, library, config, device, folder, loader, own, hooks, seed: of the training.
        instead: how to describe objects among `own` in the config that is kept beside the log.
    """
    settings = {key: config[key] for key in SETTINGS if config.get(key) is not None}
    replaced = [key for key, value in own.items() if key in config and config[key] != value]
    if settings.get("env_cfg", {}).get("cudnn_benchmark"):
        settings["env_cfg"] = without(settings["env_cfg"], "cudnn_benchmark")
        replaced.append("env_cfg.cudnn_benchmark")
    described = Config({**config.to_dict(), **copy.deepcopy({**own, **instead})})
    words = f"pdiff sets {', '.join(['train_dataloader', *replaced])} of {config.filename}"
    logging.getLogger("pdiff").info("%s: %s", name, words)
    defaults = {"runtime_info": {"type": LateFigures}, **own["default_hooks"]}
    given = {
        "name": f"{library.name}_{name}",
        "described": described,
        "device": device,
        "model": model,
        "work_dir": str(folder / name),
        "train_dataloader": loader,
        "custom_hooks": list(hooks),
        "randomness": {"seed": seed % 2**31},
        "default_scope": library.name,
    }
    runner = None
    try:
        with environment_kept():
            runner = TaskRunner(**given, **settings, **{**own, "default_hooks": defaults})
            runner.train()
    except (PdiffError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if runner is not None and runner.stepped:
            raise
        begun = runner is not None and runner.begun
        line = "the first step of the training fails" if begun else "mmengine cannot build the training"
        advice = "pipeline, data_preprocessor, heads and losses" if begun else "hooks, loop, optimiser and schedule"
        line = f"collect.{name.partition('_')[0]}: {line} ({one_line(error)})."
        raise PdiffError(f"{line} Check {advice} in {config.filename}.") from None
    finally:
        if runner is not None:
            runner.close()
