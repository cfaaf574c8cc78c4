"""Where networks are trained on: points of a space, of which each has a vector; only the points are trained."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pdiff.run.heldout import split_population
from pdiff.weights.gram import scaled_axes
from pdiff.weights.select import parameter_names

if TYPE_CHECKING:
    from pdiff.run.run import Run

SPACES = ("latent", "weights", "subspace")
Place = Callable[[Tensor], nn.Module]  # from vectors (n, P) to a module from numbers (B,) to vectors (B, P)


class Latents(nn.Module):
    """Vectors that move as those of their latents do; what a codec does not express of them stays.

    Args:
        vectors: where they begin `(n, P)`.
        latents: theirs `(n, L)`.
        decode: from latents `(B, L)` to vectors `(B, P)`; it is not trained.
    """

    def __init__(self, vectors: Tensor, latents: Tensor, decode: Callable[[Tensor], Tensor]):
        super().__init__()
        self.points = nn.Parameter(latents.clone())
        self.decode = partial(decode)  # a module in it would be a part of every training state
        with torch.no_grad():
            self.register_buffer("rest", vectors - decode(latents), persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of numbers `(B,)`."""
        return self.decode(self.points[numbers]) + self.rest[numbers]


class Weights(nn.Module):
    """The vectors themselves, of which those coordinates move that a training of the network changes.

    Args:
        vectors: where they begin `(n, P)`.
        learnt: the coordinates that move `(P,)`; the others stay, whatever the weight decay.
    """

    def __init__(self, vectors: Tensor, learnt: Tensor):
        super().__init__()
        self.points = nn.Parameter(vectors.clone())
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("learnt", learnt, persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of numbers `(B,)`."""
        return torch.where(self.learnt, self.points[numbers], self.vectors[numbers])


class Subspace(nn.Module):
    """Vectors that move along some axes; a step of 1 is the length of an axis.

    Args:
        vectors: where they begin `(n, P)`.
        axes: `(K, P)`.
    """

    def __init__(self, vectors: Tensor, axes: Tensor):
        super().__init__()
        self.points = nn.Parameter(vectors.new_zeros(len(vectors), len(axes)))
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("axes", axes, persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of numbers `(B,)`."""
        return self.vectors[numbers] + self.points[numbers] @ self.axes


def learnt_places(run: "Run") -> Tensor:
    """Return which coordinates of a vector a training of the network changes `(P,)`."""
    names, learnt = parameter_names(run.built.model), torch.zeros(run.layout.size, dtype=torch.bool)
    for entry in run.layout:
        learnt[entry.slice] = entry.name in names
    return learnt


def open_space(run: "Run", space: str, axes: int) -> Place:
    """Return what gives vectors their points, on the device of the run.

    Args:
        run: the run.
        space: `latent`, the vectors moved as what the engine decodes moves with its latent; `weights`, the vectors
            themselves; or `subspace`, the vectors moved along principal axes of what the engine was fitted to, each as
            long as the standard deviation along it.
        axes: how many of these, at most.
    """
    device = run.device
    if space == "weights":
        learnt = learnt_places(run).to(device)
        return lambda vectors: Weights(vectors.to(device), learnt)
    if space == "subspace":
        found = scaled_axes(split_population(run)[0], axes).to(device)
        return lambda vectors: Subspace(vectors.to(device), found)
    decoding = run.engine.decoding().eval().requires_grad_(False).to(device)
    return lambda vectors: Latents(vectors.to(device), run.engine.encode(vectors).to(device), decoding)
