"""What draws latents: it learns the white latents of a population, and what each was made for, and gives new ones."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pdiff.engine.process import Process
from pdiff.runtime.errors import PdiffError, check_section

# Names of what an engine saves beside its generator, and of losses in its history.
TAKEN = ("scaling", "autoencoder", "whitening", "conditioning", "decoder", "watched")


class Generator(nn.Module, ABC):
    """Learns rows `(N, L + C)`, white latents with scaled conditions behind them, and draws new latents.

    A registered one is built with its settings and those of these arguments that it takes: `size`, L; `condition`, C,
    which one for conditions must take; `process`, what `process_of` has returned; `config`, the engine section.

    Attributes:
        part: what its training and its weights on disk are called.
        remedy: what to do where it draws something else than the latents that it learnt.
        watchable: whether its objective has a `watched_loss`, by which its training can end in time.
        guided: whether it can draw with more or less weight on a condition than that has (`guidance`).
        process: between latents and noise, for one that denoises; None for one that draws in one pass.
    """

    part: ClassVar[str] = "generator"
    remedy: ClassVar[str] = "Raise engine.generator_training.steps, or its lr"
    watchable: ClassVar[bool] = False
    guided: ClassVar[bool] = False
    process: Process | None = None

    @classmethod
    def process_of(cls, config: Mapping[str, Any]) -> Process | None:
        """Return the process of one that denoises, from an engine section; None for one that draws in one pass.

        Raises:
            PdiffError: a setting cannot be.
        """
        return None

    @property
    def weights(self) -> nn.Module:
        """What is written to disk."""
        return self

    def fit(self, rows: Tensor) -> None:
        """Fit in closed form what can be to rows `(N, L + C)`; before the training by gradients."""

    def objective(self, seed: int, dropout: float) -> nn.Module | None:
        """Return what the training by gradients minimises; None where there is nothing to train.

        Args:
            seed: of what it draws.
            dropout: the share of conditions that is left out, so that it learns without them too.

        Returns:
            An mmengine `BaseModel` that takes rows `(B, L + C)` and a step and returns its loss; of one that is
            `watchable` with `watched_loss` of rows `(W, L + C)`, for `generator_training.patience`.
        """
        return None

    @abstractmethod
    def draw(
        self,
        shape: torch.Size,
        rng: torch.Generator,
        c: Tensor | None = None,
        guidance: float = 1.0,
        sampler: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, after each step, white latents of this shape `(B, L)`, and what they are on the way to.

        Args:
            shape: `(B, L)`.
            rng: what is drawn from, on the device of the weights.
            c: scaled conditions `(B, C)`; None without.
            guidance: the weight of the condition, where it is `guided`.
            sampler: a section that says how, for one that denoises.
        """


def check_generator(kind: str, found: Any) -> None:
    """Raise a `PdiffError` for what is no generator, or would be saved under the name of another part.

    Args:
        kind: its type.
        found: what that means.
    """
    if not (isinstance(found, type) and issubclass(found, Generator)):
        line = f"got {kind!r}, expected a subclass of pdiff.Generator"
        raise PdiffError(f"engine.generator.type: {line}. Derive it from that.")
    if found.part in TAKEN:
        line = f"the part of {kind!r} is called {found.part!r}, as another part of the engine"
        raise PdiffError(f"engine.generator.type: {line}. Give its class another `part`.")


def check_drawing(
    kind: str,
    guided: bool,
    process: Process | None,
    sampler: Any,
    guidance: float = 1.0,
    where: str = "engine.sampler",
) -> None:
    """Raise a `PdiffError` for a sampler, or a weight of the condition, that a generator cannot draw with.

    Args:
        kind: its type.
        guided: see `Generator`.
        process: see `Generator`.
        sampler: the section that says how to draw; None for none.
        guidance: the weight of the condition.
        where: the sampler's place in the config.
    """
    if sampler is not None:
        check_section(sampler, where)
    if process is None and sampler is not None:
        said = {key: value for key, value in sampler.items() if value is not None}
        line = f"got {said}, but the generator {kind!r} draws in one pass"
        raise PdiffError(f"{where}: {line}. Set {where} to null.")
    if process is not None and sampler is None:
        raise PdiffError(f"{where}: got null, but the generator {kind!r} draws step by step. Set its type.")
    if not guided and guidance != 1:
        line = f"got {guidance}, but the generator {kind!r} draws for a condition as it was learnt"
        raise PdiffError(f"generate.guidance: {line}. Set it to 1.")


def check_watching(kind: str, watchable: bool, patience: int) -> None:
    """Raise a `PdiffError` for a generator whose training is to end in time, but cannot be watched.

    Args:
        kind: its type.
        watchable: see `Generator`.
        patience: looks without a new best; 0 for none.
    """
    if patience and not watchable:
        line = f"got {patience}, but no loss on vectors that it does not see says how well {kind!r} draws"
        raise PdiffError(f"engine.generator_training.patience: {line}, expected 0. Leave it out.")
