"""What one run shows in the pictures of a sweep."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdiff.sweep.setting import Setting


@dataclass(frozen=True)
class Point:
    """What one finished run of a sweep has of each source.

    Attributes:
        setting: of the run.
        metric: its name, and whether higher is better.
        means: of the compared sources, by name; None for one without a living network.
    """

    setting: Setting
    metric: Mapping[str, Any]
    means: Mapping[str, float | None]
