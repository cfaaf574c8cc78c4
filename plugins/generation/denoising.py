"""What the network is trained for, and how well it does that on images that it was not trained on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pdiff_plugins.images.data import Split
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import mse_loss

from pdiff import generator, spread


def target_of(noise_schedule: Any, images: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return what the network has to predict `(B, C, H, W)`: the noise, the images, or the velocity of both."""
    kind = noise_schedule.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "sample":
        return images
    return noise_schedule.get_velocity(images, noise, t)


def objective(noise_schedule: Any, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return the mean squared error of one prediction per image, at a random time step each.

    Args:
        noise_schedule: diffusers' DDPMScheduler.
        model: the UNet.
        images: `(B, C, H, W)`, in [-1, 1].
        labels: not looked at.
    """
    return denoising_loss(model, with_noise(noise_schedule, images)), {}


@dataclass(frozen=True)
class Noisy:
    """Real images, each with a noise and a time step.

    Attributes:
        noisy: `(B, C, H, W)`.
        t: `(B,)`.
        target: what the network has to predict `(B, C, H, W)`.
    """

    noisy: Tensor
    t: Tensor
    target: Tensor

    def take(self, rows: Tensor) -> "Noisy":
        """Return some of them, in the order of `rows`."""
        return Noisy(self.noisy[rows], self.t[rows], self.target[rows])


def denoising_loss(model: nn.Module, batch: Noisy, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return the mean squared error `()` of the predictions of a UNet, with tensors in the place of some of its own."""
    inputs = batch.noisy, batch.t
    found = model(*inputs) if tensors is None else functional_call(model, spread(model, tensors), inputs)
    return mse_loss(found.sample, batch.target)


def with_noise(noise_schedule: Any, images: Tensor) -> Noisy:
    """Return images with a noise and a time step each, which torch's own generator draws."""
    noise = torch.randn_like(images)
    t = torch.randint(noise_schedule.config.num_train_timesteps, (len(images),), device=images.device)
    return Noisy(noise_schedule.add_noise(images, noise, t), t, target_of(noise_schedule, images, noise, t))


def held_out(noise_schedule: Any, split: Split, count: int, seed: int) -> Noisy:
    """Return (at most) the first `count` images of a split, at time steps that cover the schedule evenly."""
    images = split.resized(split.pixels(slice(0, count)))
    rng = generator(seed)
    noise = torch.randn(images.shape, generator=rng).to(images.device)
    steps = noise_schedule.config.num_train_timesteps
    places = torch.randperm(len(images), generator=rng)
    t = ((places + 0.5) / len(images) * steps).long().to(images.device)
    return Noisy(noise_schedule.add_noise(images, noise, t), t, target_of(noise_schedule, images, noise, t))


def noisy_batches(noise_schedule: Any, split: Split, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images of each batch with noise `(B, C, H, W)`, and the time steps of that `(B,)`; always the same."""
    for number, (_, images, _) in enumerate(split.batches()):
        rng = generator(seed, "inputs", number)
        noise = torch.randn(images.shape, generator=rng).to(images.device)
        t = torch.randint(noise_schedule.config.num_train_timesteps, (len(images),), generator=rng).to(images.device)
        yield noise_schedule.add_noise(images, noise, t), t
