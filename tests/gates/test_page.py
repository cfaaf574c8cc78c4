"""docs/gates.md says what is so: every check, every threshold."""

from pathlib import Path

import pytest

from pdiff.engine.schedule import MOST_SIGNAL
from pdiff.gates import candidates, codec, collapse, diffusion, population

PAGE = (Path(__file__).parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")
CHECKS = {
    "collect": ("finite", "copies", "basin", "runs", "rank"),
    "fit": ("canonical", "copies", "basin", "reconstruction", "decoded", "denoiser", "collapse", "schedule"),
    "generate": ("latents", "spread"),
    "evaluate": ("alive",),
}


def entry(name: str) -> str:
    """Return the line of the page about a check."""
    return next(line for line in PAGE.splitlines() if f"`{name}`" in line)


@pytest.mark.parametrize("name", [f"{stage}/{name}" for stage, names in CHECKS.items() for name in names])
def test_every_check_is_on_the_page(name):
    assert entry(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("collect/copies", f"more than {100 * population.MOST_COPIES:.0f} %"),
        ("collect/basin", f"more than {100 * population.HIGHEST_BARRIER:.0f} %"),
        ("collect/runs", f"more than {100 * population.MOST_BETWEEN:.0f} %"),
        ("collect/rank", f"below {population.LEAST_RANK}"),
        ("fit/reconstruction", f"less than {100 * codec.LEAST_KEPT:.0f} %"),
        ("fit/decoded", f"more than {100 * codec.LARGEST_LOSS:.0f} %"),
        ("fit/denoiser", f"above {diffusion.HIGHEST_RATIO} times"),
        ("fit/schedule", f"above {MOST_SIGNAL}"),
        ("fit/collapse", f"more than {collapse.MOST_MISSED}"),
        ("fit/collapse", f"less than {collapse.LEAST_SPREAD} times"),
        ("generate/spread", f"less than {diffusion.COLLAPSED} times"),
        ("generate/latents", "outside {} to {} times".format(*diffusion.NORMS)),
        ("generate/latents", f"more than {diffusion.LARGEST_OFFSET}"),
        ("generate/latents", f"or {100 * diffusion.MOST_OUTSIDE:.0f} points more"),
        ("evaluate/alive", f"when {100 * candidates.MOST_DEAD:.0f} % or more"),
    ],
)
def test_every_threshold_is_that_of_the_code(name, words):
    assert words in entry(name)
