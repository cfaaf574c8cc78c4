"""What a candidate's images are held against: real images of a split, all of them or those of some classes."""

from collections.abc import Callable, Sequence
from functools import cached_property

from pdiff_plugins.generation.denoising import Noisy
from pdiff_plugins.generation.fid import Distance
from pdiff_plugins.generation.jackknife import Jackknife
from pdiff_plugins.images.data import Split
from torch import Tensor


class Reference:
    """Real images, and the distances to them; what these need is computed when it is first asked for.

    Args:
        real: features of the real images `(R, F)`.
        split: these images.
        hold: from a split to those of its images that the denoising loss takes.
        images: that each candidate makes.
        groups: of the jackknife.
        seed: of what the distances draw.
        labels: of the classes whose images these are; None: all images, whatever they show.
    """

    def __init__(
        self,
        real: Tensor,
        split: Split,
        hold: Callable[[Split], Noisy],
        images: int,
        groups: int,
        seed: int,
        labels: Sequence[int] | None = None,
    ):
        self.real, self.split, self.hold, self.labels = real, split, hold, labels
        self.images, self.groups, self.seed = images, groups, seed

    def held_out(self) -> Noisy:
        """Return the images of the denoising loss; always the same."""
        return self.hold(self.split)

    @cached_property
    def distance(self) -> Distance:
        """What compares features with those of the real images."""
        return Distance(self.real, min(len(self.real), self.images), self.seed)

    @cached_property
    def jackknife(self) -> Jackknife:
        """What gives the FID its pseudo-values."""
        return Jackknife(self.real, self.groups, self.seed)
