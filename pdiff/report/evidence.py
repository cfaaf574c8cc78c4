"""The arrays behind the figures of a report."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from numpy.typing import NDArray

BySource = Mapping[str, NDArray]  # in the order of the summary's sources; a source without such figures is absent


@dataclass(frozen=True)
class Evidence:
    """What the figures show beyond the summary. What is None or empty is not drawn.

    M is a source's number of candidates, and differs from source to source. A dead candidate's metric may be infinite.

    Attributes:
        tests: the metric on `test` `(M,)`.
        trains: the metric on the training data `(M,)`, of the sources for which it was measured.
        similarities: the largest similarity to a fitted checkpoint `(M,)`; of a trained one, to one of another branch.
        front: True `(M,)` for the baselines' candidates that no other baseline's beats in metric and in novelty.
        distances: the Euclidean distance to the nearest trained vector `(M,)`; a trained one leaves itself out.
        coordinates: values `(M,)` of the coordinates worth drawing, by the coordinate's name and by source.
        vectors: the vectors `(M, 2)` on the first two principal axes of the trained ones.
        latents: the latents `(M, 2)` on the first two principal axes of those of the trained ones.
        path: the metric on `test` `(T, K)` of K samples after each of T stretches of the way from noise.
        path_steps: how many of the sampler's steps were done then `(T,)`.
        codec_errors: the share of the held-out checkpoints' variation that the codec loses, by tensor.
        losses: the loss of every step, by training; empty for one that was solved in closed form.
        novel: of a zoo, the share of candidates that are new and good `(K,)` at K multiples of its own nearest
            distance; see `pdiff.analysis.novel.GRID`.
    """

    tests: BySource
    trains: BySource = field(default_factory=dict)
    similarities: BySource = field(default_factory=dict)
    front: BySource = field(default_factory=dict)
    distances: BySource = field(default_factory=dict)
    coordinates: Mapping[str, BySource] = field(default_factory=dict)
    vectors: BySource = field(default_factory=dict)
    latents: BySource = field(default_factory=dict)
    path: NDArray | None = None
    path_steps: NDArray | None = None
    codec_errors: Mapping[str, float] = field(default_factory=dict)
    losses: Mapping[str, list[float]] = field(default_factory=dict)
    novel: BySource = field(default_factory=dict)
