"""From noise to images in a few steps, by any scheduler of diffusers."""

import inspect
from typing import Any

import torch
from pdiff_plugins.images.data import Split
from torch import Tensor, nn

from pdiff.errors import PdiffError, check_keys, check_positive, known
from pdiff.seeding import generator


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

    def __call__(self, model: nn.Module, noise: Tensor, batch: int = 0) -> Tensor:
        """Return images `(B, C, H, W)` in about [-1, 1].

        Args:
            model: the UNet, in eval mode.
            noise: `(B, C, H, W)`, standard normal.
            batch: number of the batch, so that a stochastic scheduler draws for each anew.
        """
        scheduler = self.kind.from_config(self.config)  # a scheduler remembers earlier steps: a new one for each pass
        scheduler.set_timesteps(self.steps, device=noise.device)
        drawn = {"generator": generator(self.seed, "sampler", batch, device=noise.device)} if self.stochastic else {}
        x = noise * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x = scheduler.step(model(scheduler.scale_model_input(x, t), t).sample, t, x, **drawn).prev_sample
        return x


@torch.no_grad()
def check_sampling(sampler: Sampler, model: nn.Module, split: Split) -> None:
    """Raise a `PdiffError` unless sampler and network make an image of the split's size and channels."""
    pixels = split.resized(split.pixels(slice(0, 1)))
    try:
        sampler(model.eval(), torch.zeros_like(pixels))
    except Exception as error:  # the network's layers and the schedulers raise many kinds
        raise PdiffError(
            f"task: no image of {split.size} pixels can be made by {sampler.description} "
            f"({type(error).__name__}: {' '.join(str(error).split())}). Change task.data.size, network or sampler."
        ) from None
