"""The ways between latents and noise that a denoiser learns to go back: diffusion and flow, on one page.

At time t a latent z is mixed with noise eps ~ N(0, 1): z_t = a z + s eps, and the denoiser is to tell y = p z + q eps.
With a and s as p and q, eps or z alone is the prediction of noise or sample (Ho et al., 2020, arXiv 2006.11239), p = -s
and q = a that of the velocity v (Salimans and Ho, 2022, arXiv 2202.00512). A flow goes straight, a = 1 - u and s = u,
and tells the way's direction, p = -1 and q = 1 (Lipman et al., 2023, arXiv 2210.02747; Liu et al., 2023, arXiv
2209.03003).
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from pdiff.engine.schedule import MOST_SIGNAL, check_end
from pdiff.runtime.errors import PdiffError

LEAST_SIGNAL = 2**-24  # for none, the odds of which have no logarithm, as in the samplers of diffusers
FLOW_TIMES = 1000  # a flow's times run from 0 to this, so that a denoiser is told the same range as by a diffusion


def column(factor: Tensor) -> Tensor:
    """Return factors `(B,)` for the rows of latents `(B, L)`; a single one `()` as it is."""
    return factor[:, None] if factor.ndim else factor


class Process(ABC):
    """From latents `(B, L)` to noise; times are what the denoiser is told, whole numbers or not.

    Attributes:
        name: as `engine.generator.type` has it.
        offers: the argument by which a sampler for it takes it.
        steps: T, how many times there are; None where any number between two is one.
    """

    name: ClassVar[str]
    offers: ClassVar[str]
    steps: int | None = None

    @abstractmethod
    def signal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and s of z_t = a z + s eps at times `(B,)` or `()`, of the same shape."""

    @abstractmethod
    def target(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return p and q of y = p z + q eps at times `(B,)` or `()`, of the same shape."""

    @abstractmethod
    def determinant(self, t: Tensor) -> Tensor:
        """Return a q - s p, by which latents follow from z_t and y, of the same shape as times `(B,)` or `()`."""

    @abstractmethod
    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Return times `(count,)` as the training draws them, on the generator's device."""

    @abstractmethod
    def even(self, count: int, rng: torch.Generator, noisiest: float = 1.0) -> Tensor:
        """Return evenly spaced times `(count,)` in random order, of the last `noisiest` of all."""

    @abstractmethod
    def at_end(self) -> float:
        """Return the share of the signal, a^2 / (a^2 + s^2), at the time where sampling begins."""

    def words_for_end(self) -> str | None:
        """Return what is wrong where the signal is not gone when sampling begins; None where it is."""
        return None

    @property
    def predicts_noise(self) -> bool:
        """Whether the denoiser is to tell noise alone, of which nothing is left to tell where there is only noise."""
        return False

    @abstractmethod
    def offered(self) -> Any:
        """Return what a sampler for it is made from."""

    @abstractmethod
    def start(self, eps: Tensor, sampler: Any) -> Tensor:
        """Return where a sampler begins `(B, L)`, from noise of variance 1."""

    @abstractmethod
    def shown(self, z: Tensor, t: Tensor, sampler: Any) -> Tensor:
        """Return what the denoiser is shown of a sampler's `z` `(B, L)` at time `t` `()`."""

    def noisy(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return z_t `(B, L)` of latents and noise `(B, L)` at times `(B,)`."""
        a, s = self.signal(t)
        return column(a) * z + column(s) * eps

    def wanted(self, z: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return y `(B, L)`, what the denoiser is to tell, of latents and noise `(B, L)` at times `(B,)`."""
        p, q = self.target(t)
        return column(p) * z + column(q) * eps

    def clean(self, z_t: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Return the latents `(B, L)` that z_t and a denoiser's y `(B, L)` say, at times `(B,)` or `()`."""
        (_, s), (_, q) = self.signal(t), self.target(t)
        return (column(q) * z_t - column(s) * y) / column(self.determinant(t))


class Diffusion(Process):
    """The steps of a noise schedule, of variance a^2 + s^2 = 1.

    Args:
        schedule: a diffusers `DDPMScheduler`.
    """

    name, offers = "diffusion", "schedule"

    def __init__(self, schedule: Any):
        self.schedule = schedule
        self.steps = schedule.config.num_train_timesteps
        self.alpha_bar = schedule.alphas_cumprod

    def left(self, t: Tensor) -> Tensor:
        """Return alpha_bar, the share of the signal, at times; between two of them by the logarithm of its odds.

        So do the samplers of diffusers that take such times (Karras et al., 2022, arXiv 2206.00364).
        """
        self.alpha_bar = self.alpha_bar.to(t.device)  # once: no step of a training waits for a copy
        if not t.is_floating_point():
            return self.alpha_bar[t]
        low = t.floor().long().clamp(0, self.steps - 1)
        least = self.alpha_bar[max(self.steps - 2, 0)].clamp(max=LEAST_SIGNAL)
        odds = self.alpha_bar.clamp(min=least).logit()
        between = torch.lerp(odds[low], odds[(low + 1).clamp(max=self.steps - 1)], t.float() - low).sigmoid()
        return torch.where(t == low, self.alpha_bar[low], between)

    def signal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the square roots of alpha_bar and of 1 - alpha_bar."""
        alpha_bar = self.left(t)
        return alpha_bar**0.5, (1 - alpha_bar) ** 0.5

    def _by_prediction(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return p, q and a q - s p."""
        a, s = self.signal(t)
        one, none = torch.ones_like(a), torch.zeros_like(a)
        kinds = {"epsilon": (none, one, a), "v_prediction": (-s, a, one), "sample": (one, none, -s)}
        return kinds[self.schedule.config.prediction_type]

    def target(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return p and q of what the schedule says is to be predicted."""
        return self._by_prediction(t)[:2]

    def determinant(self, t: Tensor) -> Tensor:
        """Return a for the noise, 1 for the velocity, -s for the sample."""
        return self._by_prediction(t)[2]

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Return whole numbers from 0 to T - 1, each as likely."""
        return torch.randint(self.steps, (count,), generator=rng, device=rng.device)

    def even(self, count: int, rng: torch.Generator, noisiest: float = 1.0) -> Tensor:
        """Return whole numbers, one after another."""
        last = max(round(noisiest * self.steps), 1)
        return self.steps - last + torch.randperm(count, generator=rng, device=rng.device) * last // count

    def at_end(self) -> float:
        """Return alpha_bar_T."""
        return self.alpha_bar[-1].item()

    def words_for_end(self) -> str | None:
        """Return what is wrong where more than `MOST_SIGNAL` is left."""
        return check_end(self.schedule) if self.at_end() > MOST_SIGNAL else None

    @property
    def predicts_noise(self) -> bool:
        """Whether the schedule says `epsilon`."""
        return self.schedule.config.prediction_type == "epsilon"

    def offered(self) -> Any:
        """Return the schedule."""
        return self.schedule

    def start(self, eps: Tensor, sampler: Any) -> Tensor:
        """Return noise as wide as the sampler has it."""
        return eps * sampler.init_noise_sigma

    def shown(self, z: Tensor, t: Tensor, sampler: Any) -> Tensor:
        """Return `z` in the sampler's scale."""
        return sampler.scale_model_input(z, t)


class Flow(Process):
    """The straight way from a latent to noise: a = 1 - u, s = u n at u = t / 1000, with n the noise's width.

    Args:
        noise_scale: n, standard deviation of the noise that sampling begins from; latents have 1 where they are white.
    """

    name, offers = "flow", "flow"

    def __init__(self, noise_scale: float = 1.0):
        if not noise_scale > 0 or noise_scale == float("inf"):
            line = f"got {noise_scale}, expected a finite number above 0"
            raise PdiffError(f"engine.generator.noise_scale: {line}. 1 is the width of white latents.")
        self.noise_scale = noise_scale

    def signal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 - u and u n."""
        u = t / FLOW_TIMES
        return 1 - u, u * self.noise_scale

    def target(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return -1 and n: the direction from the latent to the noise."""
        one = torch.ones_like(t, dtype=torch.float32)
        return -one, self.noise_scale * one

    def determinant(self, t: Tensor) -> Tensor:
        """Return n."""
        return torch.full_like(t, self.noise_scale, dtype=torch.float32)

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Return times between 0 and 1000, each as likely."""
        return FLOW_TIMES * torch.rand(count, generator=rng, device=rng.device)

    def even(self, count: int, rng: torch.Generator, noisiest: float = 1.0) -> Tensor:
        """Return the middles of as many equal parts of the way."""
        middle = (torch.randperm(count, generator=rng, device=rng.device) + 0.5) / count
        return FLOW_TIMES * (1 - noisiest * middle)

    def at_end(self) -> float:
        """Return 0: where sampling begins there is noise alone."""
        return 0.0

    def offered(self) -> Any:
        """Return the flow itself."""
        return self

    def start(self, eps: Tensor, sampler: Any) -> Tensor:
        """Return noise of the flow's width."""
        return self.noise_scale * eps

    def shown(self, z: Tensor, t: Tensor, sampler: Any) -> Tensor:
        """Return `z` as it is."""
        return z

