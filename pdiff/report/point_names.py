"""Names of points beside them, so placed that they cover neither points nor one another where that can be."""

from collections.abc import Mapping
from typing import Any

from pdiff.report.drawing import GREY

SIZE = 8  # of the letters, in points
ROOM = 14  # that a point takes, in pixels
MANY = 1000  # points and names that a name would rather cover than reach out of the axes
# Where a name may stand beside its point: shift in points, alignment; the first are tried first.
PLACES = [
    (7, 0, "left"), (-7, 0, "right"), (0, 10, "center"), (0, -10, "center"),
    *((dx, dy, side) for dy in (12, -12, 20, -20, 28, -28) for dx, side in ((12, "left"), (-12, "right"))),
]  # fmt: skip
SHARES = {"left": 0.0, "center": 0.5, "right": 1.0}  # of its width, by which a text of that alignment reaches left


def inside(box: Any, frame: Any) -> bool:
    """Say whether a box lies within a frame."""
    return frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1


def name_points(axes: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each point's name beside it, at the place where it covers fewest points and names."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # from here on the axes stay where they are
    pixels, frame = axes.figure.dpi / 72, axes.bbox
    centres = {name: axes.transData.transform(point) for name, point in points.items()}
    taken = [Bbox.from_bounds(x - ROOM / 2, y - ROOM / 2, ROOM, ROOM) for x, y in centres.values()]
    leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3}
    for name, (x, y) in centres.items():
        sketch = axes.text(0, 0, name, fontsize=SIZE)
        size = sketch.get_window_extent()
        sketch.remove()
        boxes = [
            Bbox.from_bounds(x + dx * pixels - SHARES[side] * size.width, y + dy * pixels - size.height / 2,
                             size.width, size.height)
            for dx, dy, side in PLACES
        ]  # fmt: skip
        covered = [box.count_overlaps(taken) + MANY * (not inside(box, frame)) for box in boxes]
        chosen = covered.index(min(covered))
        dx, dy, side = PLACES[chosen]
        text = axes.annotate(name, points[name], (dx, dy), textcoords="offset points", ha=side, va="center",
                             fontsize=SIZE, zorder=6, arrowprops=leader if dx and dy else None)  # fmt: skip
        text.set_in_layout(False)
        taken.append(boxes[chosen])
