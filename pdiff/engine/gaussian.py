"""A Gaussian of the latents, in closed form: what mean and covariance say, and of a condition what a line says.

The baseline of a generator: one that draws no better has learnt nothing else.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pdiff.engine.generator import Generator
from pdiff.engine.registries import GENERATORS
from pdiff.runtime.seeding import normal

ROUNDING = 1e-9  # scaled conditions have variance 1; what has less than this is no direction of theirs


def root(covariance: Tensor) -> Tensor:
    """Return R `(L, L)` with R R^T = `covariance` `(L, L)`, which may lack directions."""
    variances, axes = torch.linalg.eigh(covariance)
    return axes * variances.clamp(min=0).sqrt()


@GENERATORS.register_module(name="gaussian")
class LatentGaussian(Generator):
    """The joint Gaussian of latents and conditions: the marginal without a condition, the conditional one for one.

    With S the covariance, the conditional mean is m_z + S_zc S_cc^+ (c - m_c), linear in the condition, and the
    covariance about it the Schur complement S_zz - S_zc S_cc^+ S_cz, the same for all conditions.

    Args:
        size: L.
        condition: C; 0 for none.
    """

    part = "gaussian"

    def __init__(self, size: int, condition: int = 0):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size + condition))
        self.register_buffer("root", torch.eye(size))
        self.register_buffer("slope", torch.zeros(size, condition))
        self.register_buffer("root_about", torch.eye(size) if condition else torch.zeros(0, 0))

    def fit(self, rows: Tensor) -> None:
        """Fit to rows `(N, L + C)`."""
        size, mean = len(self.slope), rows.double().mean(0)
        centred = rows.double() - mean
        covariance = centred.T @ centred / (len(rows) - 1)
        of_z, of_both, of_c = covariance[:size, :size], covariance[:size, size:], covariance[size:, size:]
        self.mean, self.root = mean.float(), root(of_z).float().contiguous()
        if of_c.numel():
            slope = of_both @ torch.linalg.pinv(of_c, atol=ROUNDING, rtol=0.0, hermitian=True)
            self.slope, self.root_about = slope.float(), root(of_z - slope @ of_both.T).float().contiguous()

    def draw(
        self,
        shape: torch.Size,
        rng: torch.Generator,
        c: Tensor | None = None,
        guidance: float = 1.0,
        sampler: Mapping[str, Any] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield draws `(B, L)`, twice, for they are made in one pass."""
        white, size = normal(shape, rng), len(self.slope)
        if c is None:
            z = self.mean[:size] + white @ self.root.T
        else:
            z = self.mean[:size] + (c - self.mean[size:]) @ self.slope.T + white @ self.root_about.T
        yield z, z
