"""Training passes of networks that differ in the selection, and in what are objects to them, on one batch."""

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from pdiff_plugins.openmmlab.conditions import copied, only
from pdiff_plugins.openmmlab.hooks import freeze_all_but
from torch import Tensor, nn
from torch.func import functional_call

from pdiff import Prefix, seed_all, spread

T = TypeVar("T")


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


def drawn() -> Callable[[], None]:
    """Return a function that gives the global generators the states back that they have now."""
    python, arrays, own = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None

    def give_back() -> None:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(own)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu)

    return give_back


class Passes:
    """Training passes of networks that differ in the selection on one batch after another: the prefix once.

    Args:
        model: the network; it stays as it is, but for its mode.
        names: the selection.
        mode: `eval` or `train`; see `network_settings`.
        background: the label of what is no object to a network; None of a detector.
        anew: whether the draws of a pass begin with the seed of the step, as those of the preprocessing do; else they
            go on behind these, as on mmengine's Runner.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str], mode: str, background: int | None = None, anew: bool = True
    ):
        self.model, self.names, self.mode, self.background, self.anew = model, names, mode, background, anew
        self.prefix, self.wearing = Prefix(model, names), Wearing(model)
        self.preprocess = copy.deepcopy(model.data_preprocessor)  # it may keep the size of its last images

    def begin(
        self,
        data: Mapping[str, Any],
        seed: int,
        step: int,
        steps: int,
        wrapper: OptimWrapper,
        alone: bool = False,
    ) -> None:
        """Take a batch, and compute what all networks share.

        Args:
            data: as the loader gives it.
            seed: of the step.
            step: its number.
            steps: of the training.
            wrapper: of an optimiser, whose precision counts.
            alone: whether one network is run on it; then there is nobody to compute anything for.
        """
        freeze_all_but(self.model.train(), self.names, self.mode)
        self.model.requires_grad_(False)
        hub = MessageHub.get_current_instance()  # where parts of a network ask for the number of the step
        for name, value in {"iter": step, "epoch": 0, "max_iters": steps}.items():
            hub.update_info(name, value)
        seed_all(seed)
        batch = self.preprocess(data, True)
        self.draw = partial(seed_all, seed) if self.anew else drawn()
        self.inputs, self.samples, self.alone = batch["inputs"], batch["data_samples"], alone
        if alone:
            return

        def whole(inputs: Tensor) -> dict[str, Tensor]:
            self.draw()
            return self.model(inputs, [copied(sample) for sample in self.samples], mode="loss")

        with wrapper.optim_context(self.model):
            self.prefix.begin(self.inputs, whole)

    def run(
        self,
        tensors: Mapping[str, Tensor],
        labels: Sequence[int] | None,
        wrapper: OptimWrapper,
        learn: Callable[[Tensor], None],
    ) -> dict[str, Tensor]:
        """Run a network on the batch, and return its losses by name, `loss` their sum.

        Args:
            tensors: its selection.
            labels: of the classes that are objects to it; None: all.
            wrapper: of an optimiser, whose precision counts.
            learn: what to do with the sum while the network still wears the tensors, which a backward pass needs
                where parts are computed anew.
        """

        def loss(inputs: Tensor) -> dict[str, Tensor]:
            own = [self.seen(sample, labels) for sample in self.samples]
            self.draw()
            return self.model(inputs, own, mode="loss")

        def step() -> dict[str, Tensor]:
            with wrapper.optim_context(self.model):
                found = loss(self.inputs.clone()) if self.alone else self.prefix(loss)
                total, figures = self.model.parse_losses(found)
            learn(total)
            return figures

        with torch.enable_grad():
            figures = self.wearing.put_on(tensors, step)
        return {name: value.detach() for name, value in figures.items()}

    def seen(self, sample: Any, labels: Sequence[int] | None) -> Any:
        """Return a copy of a training sample as a network sees it, for some heads write into it."""
        return copied(sample) if labels is None else only(sample, labels, self.background)

    def end(self) -> None:
        """Forget the batch, and give the network back as it is between trainings."""
        self.prefix.end()
        self.inputs = self.samples = None
        freeze_all_but(self.model.eval(), (), "eval")
