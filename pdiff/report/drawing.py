"""A drawing, written twice: as PNG on white, and as SVG whose text and axes take the colour of the page around it."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdiff.runtime.storage import write_bytes

# Okabe and Ito's colours, which readers with any colour vision can tell apart, those that show on white and on black.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
GREY = "#8A8A8A"
INK = "#010203"  # in the PNG as good as black, in the SVG replaced by `currentColor`
MANY_POINTS = 800  # of so many on, points become an image inside the SVG, which else would be megabytes
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pdiff",  # the same drawing gets the same ids
    "font.size": 10,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.2,
    "axes.axisbelow": True,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "legend.labelcolor": INK,
}


@dataclass(frozen=True)
class Figure:
    """One figure of a page.

    Attributes:
        name: of its PNG file, and of what the page calls it.
        title: of a few words.
        caption: one sentence that says how to read it.
        svg: to stand inside a page.
    """

    name: str
    title: str
    caption: str
    svg: str


def draw(
    folder: Path | None,
    name: str,
    title: str,
    caption: str,
    function: Callable[..., None],
    *arguments: Any,
    height: float = 4.0,
    width: float = 6.0,
    panels: tuple[int, int] = (1, 1),
) -> Figure:
    """Draw a figure, write `folder/<name>.png` and return the figure with its SVG.

    Args:
        folder: where to; None for the SVG alone.
        name, title, caption: of the figure.
        function: draws into the axes that it gets first (with several panels, a flat list of them).
        arguments: what it gets after them.
        height, width: in inches; at 6 inches the letters can be read on a telephone and in two columns.
        panels: rows and columns.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(width, height), layout="constrained")
        axes = canvas.subplots(*panels)
        function(axes if panels == (1, 1) else list(axes.flat), *arguments)
        rasterise(canvas)
        png, svg = io.BytesIO(), io.StringIO()
        if folder:
            canvas.savefig(png, format="png", dpi=120, facecolor="white")
            canvas.set_layout_engine("none")  # the places are found; to find them again costs as much as to draw
            write_bytes(folder / f"{name}.png", png.getvalue())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(svg, format="svg", dpi=200, transparent=True, metadata=nothing)
    return Figure(name, title, caption, inline(svg.getvalue(), name))


def rasterise(canvas: Any) -> None:
    """Let the points of a figure with many of them be an image inside the SVG."""
    from matplotlib.collections import PathCollection

    clouds = [c for axes in canvas.axes for c in axes.collections if isinstance(c, PathCollection)]
    if sum(len(cloud.get_offsets()) for cloud in clouds) < MANY_POINTS:
        return
    for cloud in clouds:
        cloud.set_rasterized(len(cloud.get_offsets()) > 1)


def inline(svg: str, name: str) -> str:
    """Return matplotlib's SVG as a part of a page: no prolog, no size, the page's ink, ids that are the figure's own.

    Args:
        svg: the file.
        name: of the figure; the page has its title and caption in elements `<name>-title` and `<name>-caption`.
    """
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    box = re.search(r'viewBox="[^"]+"', svg).group()
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-caption" {box} xmlns="http://www.w3.org/2000/svg"'
    head += ' xmlns:xlink="http://www.w3.org/1999/xlink">'
    return re.sub(r"^<svg.*?>", head, svg, count=1, flags=re.DOTALL)
