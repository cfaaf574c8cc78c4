"""Scaling of vectors before the autoencoder. Coordinates that never change are restored exactly."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from pdiff.engine.registries import SCALINGS
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Rows, along_columns, parts

EVERY = slice(None)
DOMINANT = 0.9  # of the scaled variance
FEW = 0.01  # of the coordinates that change; a single one counts as few among at least 10


class Scaling(nn.Module, ABC):
    """An affine map per coordinate, fitted to a population.

    Args:
        size: P, the length of a vector.
    """

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("constant", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("value", torch.zeros(size))

    def fit(self, vectors: Tensor | Rows, layout: Layout) -> None:
        """Fit to the population `(N, P)`, of which a part at a time is in memory."""
        device = self.mean.device
        self.constant = along_columns(lambda block: block.amin(0) == block.amax(0), vectors).to(device)
        self.value = vectors[0].to(device, copy=True)
        mean, std = (moment.to(device) for moment in self.moments(vectors, layout))
        self.mean, self.std = mean, torch.where(std > 0, std, 1.0)

    @abstractmethod
    def moments(self, vectors: Tensor | Rows, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation to scale by, each `(P,)`."""

    def forward(self, vectors: Tensor, place: slice = EVERY) -> Tensor:
        """Return scaled vectors `(B, P)`, or some columns of them; coordinates that never change become 0."""
        return torch.where(self.constant[place], 0.0, (vectors - self.mean[place]) / self.std[place])

    def inverse(self, scaled: Tensor) -> Tensor:
        """Return the vectors `(B, P)` of scaled ones."""
        return torch.where(self.constant, self.value, scaled * self.std + self.mean)


@SCALINGS.register_module(name="per_tensor")
class PerTensor(Scaling):
    """One scalar mean and standard deviation per tensor, averaged over the checkpoints, as in the paper.

    The component that all checkpoints share stays in the vector and dominates it. Deviation: coordinates that
    never change are set to 0 here and restored exactly.
    """

    def moments(self, vectors: Tensor | Rows, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return each tensor's scalar moments, repeated over its coordinates."""
        total, means, deviations = torch.zeros(len(layout.entries), dtype=torch.float64), [], []
        for part in parts(vectors):
            blocks = [part[:, entry.slice] for entry in layout]
            total += torch.stack([block.mean() for block in blocks]).cpu().double() * len(part)
            means.append(torch.stack([block.mean(1) for block in blocks]))
            deviations.append(torch.stack([block.std(1, correction=0) for block in blocks]))
        means, within = torch.cat(means, 1), torch.stack([row.mean() for row in torch.cat(deviations, 1)])
        # A tensor of one value has no deviation within; its scale is that over the checkpoints.
        std = torch.where(within > 0, within, means.std(1, correction=0))
        sizes = torch.tensor([entry.size for entry in layout])
        mean, std = (x.cpu().float().repeat_interleave(sizes) for x in (total / len(vectors), std))
        return mean, std


@SCALINGS.register_module(name="per_coordinate")
class PerCoordinate(Scaling):
    """A mean and a standard deviation for each coordinate."""

    def moments(self, vectors: Tensor | Rows, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return the moments over the checkpoints."""
        return along_columns(lambda block: block.mean(0), vectors), along_columns(lambda block: block.std(0), vectors)


def dominated(scaling: Scaling, deviation: Tensor, layout: Layout) -> str | None:
    """Return words for a few coordinates that carry all but a tenth of the scaled variance; None without such.

    Beside them the others look like noise to an autoencoder, and are lost.

    Args:
        scaling: a fitted one.
        deviation: the standard deviation of each coordinate of the population `(P,)`.
        layout: to name the coordinate that varies most.
    """
    variance = (deviation.to(scaling.std.device) / scaling.std).double().square()
    changing, total = int((variance > 0).sum()), variance.sum()
    reached = variance.topk(min(max(int(FEW * changing), 1), len(variance))).values.cumsum(0) > DOMINANT * total
    if changing < 10 or not reached.any():
        return None
    few = int(reached.byte().argmax()) + 1
    place = int(variance.argmax())
    entry = next(entry for entry in layout if entry.slice.start <= place < entry.slice.stop)
    which = f"{entry.name}[{place - entry.offset}]"
    words = f"{which} alone carries" if few == 1 else f"{few} coordinates ({which}, for one) alone carry"
    return f"{words} more than {DOMINANT:.0%} of the scaled variance of {changing} that change"


class Scaled:
    """The scaled vectors `(N, P)` of a population, of which only what is asked for is computed.

    Args:
        vectors: the population; indexed by rows and columns, as this is.
        scaling: fitted to it.
    """

    def __init__(self, vectors: Tensor | Rows, scaling: Scaling):
        self.vectors, self.scaling = vectors, scaling
        self.shape = vectors.shape

    @property
    def device(self) -> torch.device:
        """Where the scaled vectors are."""
        return self.scaling.mean.device

    @property
    def stored(self) -> torch.device:
        """Where the vectors lie that they are computed from, and with these whatever numbers rows."""
        return self.vectors.vectors.device if isinstance(self.vectors, Rows) else self.vectors.device

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, place) -> Tensor:
        rows, columns = place if isinstance(place, tuple) else (place, EVERY)
        return self.scaling(self.vectors[rows, columns].to(self.device), columns)
