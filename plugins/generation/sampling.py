"""From noise to images in a few steps, by any scheduler of diffusers."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from pdiff_plugins.images.data import Split, sent
from torch import Tensor, nn

from pdiff import PdiffError, check_keys, check_positive, generator, known


class Sampler:
    """Makes images of noise; equal noise and equal network make equal images.

    Args:
        noise_schedule: diffusers' DDPMScheduler that the network is trained for.
        seed: of what a stochastic scheduler draws: the same for each network.
        type: name of a scheduler in diffusers, `DDIMScheduler` for instance.
        steps: of the network per image.
        options: further arguments of the scheduler.
    """

    def __init__(self, noise_schedule: Any, seed: int, type: str, steps: int, options: dict | None = None):
        check_positive("task.sampler", steps=steps)
        kinds = {kind.__name__: kind for kind in noise_schedule.compatibles}
        if type not in kinds:
            raise PdiffError(f"task.sampler.type: got {type!r}. {known(type, kinds)}")
        kind, options = kinds[type], dict(options or {})
        check_keys(options, list(inspect.signature(kind).parameters), "task.sampler.options")
        self.config = {**noise_schedule.config, **options}
        self.kind, self.steps, self.seed = kind, steps, seed
        self.stochastic = "generator" in inspect.signature(kind.step).parameters
        self.description = f"{type}, {steps} steps"

    def __call__(self, model: Callable, noise: Tensor, batch: int = 0) -> Tensor:
        """Return images `(B, C, H, W)` in about [-1, 1].

        The scheduler's timesteps stay on the CPU, where it looks at them; the network gets them on its own device. So
        no step waits for a GPU.

        Args:
            model: the UNet, in eval mode.
            noise: `(B, C, H, W)`, standard normal.
            batch: number of the batch, so that a stochastic scheduler draws for each anew.
        """
        scheduler = self.kind.from_config(self.config)  # a scheduler remembers earlier steps: a new one for each pass
        scheduler.set_timesteps(self.steps)
        times = sent(scheduler.timesteps, noise.device)
        drawn = {"generator": generator(self.seed, "sampler", batch, device=noise.device)} if self.stochastic else {}
        x = noise * scheduler.init_noise_sigma
        for t, time in zip(scheduler.timesteps, times, strict=True):
            x = scheduler.step(model(scheduler.scale_model_input(x, t), time).sample, t, x, **drawn).prev_sample
        return x


@torch.no_grad()
def check_network(model: nn.Module, split: Split) -> None:
    """Raise a `PdiffError` unless the network takes images of the split's size."""
    try:
        model.eval()(split.resized(split.pixels(slice(0, 1))), 0)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        line = f"task.data.size: the network cannot take images of {split.size} pixels ({reason}). Change the size."
        raise PdiffError(line) from None


def check_sampler(sampler: Sampler) -> None:
    """Raise a `PdiffError` unless the scheduler takes its steps with its options, whatever the network says."""

    def network(x: Tensor, t: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=torch.zeros_like(x))

    try:
        sampler(network, torch.zeros(1, 1, 8, 8))
    except Exception as error:  # diffusers' schedulers raise many kinds
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise PdiffError(f"task.sampler: {sampler.description} fail ({reason}). Change steps or options.") from None
