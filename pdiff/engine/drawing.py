"""From white noise to white latents: the sampler's way, with the denoiser's predictions guided by a condition."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pdiff.runtime.seeding import normal

if TYPE_CHECKING:
    from pdiff.engine.denoiser import Denoiser
    from pdiff.engine.process import Process


def predict(denoiser: "Denoiser", z: Tensor, t: Tensor, c: Tensor | None = None, guidance: float = 1.0) -> Tensor:
    """Return the prediction `(B, L)`: (1 - w) without the condition plus w with it (Ho and Salimans, 2022, eq. 6).

    Args:
        denoiser: a trained one.
        z: noisy latents `(B, L)`.
        t: their timesteps `(B,)`.
        c: scaled conditions `(B, C)`; None for the prediction without.
        guidance: w, in the paper 1 + w; 1 costs one pass, any other two.
    """
    if c is None:
        return denoiser(z, t)
    if guidance == 1:
        return denoiser(z, t, c)
    return (1 - guidance) * denoiser(z, t) + guidance * denoiser(z, t, c)


class Way(Iterator):
    """Steps of a sampler, each the white latents `(B, L)` and the estimate of the clean ones that they lead to.

    Args:
        steps: the latents after each, and what computes the estimate; `end` asks for none.
    """

    def __init__(self, steps: Iterator[tuple[Tensor, Callable[[], Tensor]]]):
        self.steps = steps

    def __next__(self) -> tuple[Tensor, Tensor]:
        z, estimate = next(self.steps)
        return z, estimate()


def end(way: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the latents `(B, L)` after the last step of a way, none of the others kept."""
    return deque(way.steps if isinstance(way, Way) else way, maxlen=1)[0][0]


def denoise(
    denoiser: "Denoiser",
    process: "Process",
    sampler: Any,
    shape: torch.Size,
    rng: torch.Generator,
    c: Tensor | None = None,
    guidance: float = 1.0,
) -> Way:
    """Return the way of a sampler from white noise, of which nothing is computed before it is asked for.

    The timesteps stay on the CPU, and nothing comes back to it: no step waits for a GPU.

    Args:
        denoiser: a trained one.
        process: that of its training.
        sampler: a scheduler of diffusers that was made for it, its timesteps set, whole numbers or not.
        shape: `(B, L)`.
        rng: what the noise is drawn from, on the denoiser's device.
        c: scaled conditions `(B, C)`; None without.
        guidance: see `predict`.
    """
    return Way(_steps(denoiser, process, sampler, shape, rng, c, guidance))


def _steps(
    denoiser: "Denoiser",
    process: "Process",
    sampler: Any,
    shape: torch.Size,
    rng: torch.Generator,
    c: Tensor | None,
    guidance: float,
) -> Iterator[tuple[Tensor, Callable[[], Tensor]]]:
    z = process.start(normal(shape, rng), sampler)
    noise = {"generator": rng} if "generator" in signature(sampler.step).parameters else {}  # some draw none
    for t in sampler.timesteps:
        times = torch.full(shape[:1], t.item(), device=rng.device)
        z_t = process.shown(z, t, sampler)
        prediction = predict(denoiser, z_t, times, c, guidance)
        z = sampler.step(prediction, t, z, **noise).prev_sample
        yield z, partial(process.clean, z_t, prediction, times)
