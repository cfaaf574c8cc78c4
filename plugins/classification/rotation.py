"""Conditions that are angles: the images of every network are turned by its own.

Turned are the images as they are stored, noise included, bilinearly; what comes in from outside is black.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pdiff_plugins.classification.conditions import CONDITIONS, Kind
from pdiff_plugins.images.data import Split, sent
from torch import Tensor
from torch.nn.functional import grid_sample

from pdiff import Conditions, PdiffError, check_positive, generator

FITTED = 2000  # training images that the principal axes are of, at most
Pair = Sequence[float]


def turned(images: Tensor, degrees: Tensor, outside: Tensor) -> Tensor:
    """Return images turned counter-clockwise by each of n angles `(n, B, C, H, W)`.

    Args:
        images: `(B, C, H, W)`.
        degrees: the angles `(n,)`.
        outside: value of each channel beyond the border `(C,)`.
    """
    (batch, channels, height, width), count = images.shape, len(degrees)
    y, x = ((2 * torch.arange(size, device=images.device) + 1 - size) / 2 for size in (height, width))
    cosine, sine = (f(degrees.to(images.device).deg2rad())[:, None, None] for f in (torch.cos, torch.sin))
    y, x = torch.meshgrid(y, x, indexing="ij")
    source = torch.stack([(cosine * x - sine * y) * 2 / width, (sine * x + cosine * y) * 2 / height], -1)
    shifted = (images - outside[:, None, None]).reshape(1, batch * channels, height, width)
    moved = grid_sample(shifted.expand(count, -1, -1, -1), source, align_corners=False)
    return moved.view(count, *images.shape) + outside[:, None, None]


def principal_axes(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean `(D,)` and the leading principal axes `(D, count)` of rows `(S, D)`.

    The largest weight of an axis is positive, so that its sign does not hang on the way it was computed.
    """
    average = rows.mean(0)
    axes = torch.linalg.svd(rows - average, full_matrices=False).Vh[:count].T
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return average, axes * largest.sign()


def check_pair(where: str, pair: Any) -> tuple[float, float]:
    """Return two numbers, the second above the first; raise a `PdiffError` for anything else."""
    try:
        low, high = map(float, pair)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not low < high or not math.isfinite(high - low):
        raise PdiffError(f"task.conditions.{where}: got {pair!r}, expected two angles, the second above the first.")
    return low, high


@CONDITIONS.register_module(name="rotation")
class Rotation(Kind):
    """Angles by which images are turned counter-clockwise, each given as its sine and cosine.

    Angles inside a gap or outside `seen` are wanted, but never seen: for `fit.split: {type: given}` their rows say
    `select` (every third one, from the second on) or `unseen`, all others `seen`.

    Args:
        angles: the first, the last, and how many, in degrees.
        gaps: stretches `[from, to]` inside the range that are not seen.
        seen: the stretch `[from, to]` beyond which nothing is seen; default: the whole range.
    """

    same_images = False

    def __init__(self, angles: Sequence[float], gaps: Sequence[Pair] = (), seen: Pair | None = None):
        if not isinstance(angles, Sequence) or isinstance(angles, str) or len(angles) != 3:
            raise PdiffError(f"task.conditions.angles: got {angles!r}, expected [first, last, how many].")
        check_positive("task.conditions", angles=angles[2])
        low, high = check_pair("angles", angles[:2])
        self.degrees = torch.linspace(low, high, angles[2], dtype=torch.float64)
        low, high = (low, high) if seen is None else check_pair("seen", seen)
        hidden = (self.degrees < low) | (self.degrees > high)
        for gap in gaps:
            low, high = check_pair("gaps", gap)
            hidden |= (self.degrees >= low) & (self.degrees <= high)
        order = torch.cumsum(hidden, 0)
        self.splits = [
            "seen" if not away else "select" if place % 3 == 2 else "unseen"
            for away, place in zip(hidden.tolist(), order.tolist(), strict=True)
        ]

    def __len__(self) -> int:
        return len(self.degrees)

    def table(self, train: Split) -> Conditions:
        """Return sine and cosine of each angle."""
        radians = self.degrees.deg2rad()
        return Conditions(["sine", "cosine"], torch.stack([radians.sin(), radians.cos()], 1).float())

    def provenance(self, number: int) -> Mapping[str, Any]:
        """Return the angle, and whether networks of it are seen."""
        return {"angle": round(self.degrees[number].item(), 6), "split": self.splits[number]}

    def facts(self, table: Conditions) -> Mapping[str, Any]:
        """Say what a condition does to the images."""
        return {"images": "turned by the angle of the condition, in training and evaluation alike"}

    def angles(self, conditions: Tensor, table: Conditions) -> Tensor:
        """Return the angles `(n,)` in degrees that conditions `(n, C)` stand for."""
        return torch.atan2(conditions[:, 0], conditions[:, 1]).rad2deg()

    def images(self, data: Split, images: Tensor, conditions: Tensor, table: Conditions) -> Tensor:
        """Return images turned by each angle `(n, B, channels, H, W)`."""
        return self.turn(data, images, self.angles(conditions, table))

    def turn(self, data: Split, images: Tensor, degrees: Tensor) -> Tensor:
        """Return normalised images `(B, channels, H, W)` of a split turned by n angles; outside is black."""
        return turned(images, degrees, (-data.mean / data.std).to(images.device))


@CONDITIONS.register_module(name="rotation_prompt")
class RotationPrompt(Rotation):
    """Angles by which images are turned, each given by a few images without labels that are turned by it.

    A condition is the mean pixel of some training images, drawn anew for every angle and turned by it, and the means of
    their leading principal scores, on axes of the training images as they are.

    The angle cannot be read from such numbers: a network is measured on images that are turned by the angle of the
    nearest condition of the task's own, in standard deviations of each number. For one of these that is its own angle.

    Args:
        seed: of the run.
        angles: the first, the last, and how many, in degrees.
        gaps: stretches `[from, to]` inside the range that are not seen.
        seen: the stretch `[from, to]` beyond which nothing is seen; default: the whole range.
        images: how many training images a condition is made of.
        scores: how many principal scores.
    """

    def __init__(
        self,
        seed: int,
        angles: Sequence[float],
        gaps: Sequence[Pair] = (),
        seen: Pair | None = None,
        images: int = 32,
        scores: int = 6,
    ):
        super().__init__(angles, gaps, seen)
        check_positive("task.conditions", images=images, scores=scores)
        self.seed, self.count, self.scores = seed, images, scores

    def table(self, train: Split) -> Conditions:
        """Return the mean pixel and the mean scores of each angle's images."""
        pixels = train.pixels(slice(0, FITTED))
        most = min(len(pixels), pixels[0].numel())
        if max(self.count, self.scores) > most:
            words = f"got {max(self.count, self.scores)}, expected at most {most}, which the training images have"
            raise PdiffError(f"task.conditions: {words}. Lower images and scores.")
        average, axes = principal_axes(pixels.flatten(1), self.scores)
        rows = []
        for number, angle in enumerate(self.degrees.float()):
            drawn = torch.randperm(len(pixels), generator=generator(self.seed, "prompt", number))[: self.count]
            prompt = self.turn(train, pixels[drawn], angle[None])[0].flatten(1)
            rows.append(torch.cat([prompt.mean()[None], ((prompt - average) @ axes).mean(0)]))
        return Conditions(["mean", *(f"score{place}" for place in range(self.scores))], torch.stack(rows).cpu())

    def angles(self, conditions: Tensor, table: Conditions) -> Tensor:
        """Return the angles `(n,)` in degrees of the nearest conditions of the table."""
        known = sent(table.values, conditions.device)
        scale = known.std(0)
        scale = torch.where(scale > 0, scale, 1.0)
        return sent(self.degrees.float(), known.device)[torch.cdist(conditions / scale, known / scale).argmin(1)]
