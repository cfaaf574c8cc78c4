"""A drawing as PNG on white, and the figure of a page that holds it."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Okabe and Ito's colours, which readers with any colour vision can tell apart.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY, INK = "#8A8A8A", "black"
STYLE = {
    "font.size": 10,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.2,
    "grid.color": INK,
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Figure:
    """One figure of a page.

    Attributes:
        title: of a few words.
        caption: says how to read it.
        png: the picture's file.
    """

    title: str
    caption: str
    png: bytes

    @property
    def source(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def draw(
    function: Callable[..., None],
    *arguments: Any,
    height: float = 4.0,
    width: float = 6.0,
    panels: tuple[int, int] = (1, 1),
) -> bytes:
    """Return a drawing's PNG file.

    Args:
        function: draws into the axes that it gets first (with several panels, a flat list of them).
        arguments: what it gets after them.
        height, width: in inches; at 6 inches the letters can be read on a telephone and in two columns.
        panels: rows and columns.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(STYLE):
        canvas, png = Canvas(figsize=(width, height), layout="constrained"), io.BytesIO()
        axes = canvas.subplots(*panels)
        function(axes if panels == (1, 1) else list(axes.flat), *arguments)
        canvas.savefig(png, format="png", dpi=160, facecolor="white")
    return png.getvalue()
