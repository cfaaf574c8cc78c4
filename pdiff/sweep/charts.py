"""A picture for each varied key: its values, and the metric of what was generated, with that of other sources."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from pdiff.analysis.standards import GENERATED, ORACLE
from pdiff.analysis.statistics import Values, mean_interval
from pdiff.report.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, draw
from pdiff.run.grouping import setting_name, short_names, value_text
from pdiff.runtime.storage import write_bytes
from pdiff.sweep.point import Point
from pdiff.sweep.setting import as_text

LINES = 6  # combinations of the other keys that are drawn
COLOURS = (VERMILION, BLUE, GREEN, ORANGE, PURPLE, SKY)
OTHERS = (BLUE, GREEN, ORANGE, PURPLE, SKY)
WIDE = 10  # the largest value over the smallest, from which an axis is logarithmic
FIXED = ("trained", ORACLE)  # what a sweep of generators does not change


def write_charts(folder: Path, keys: Sequence[str], points: Sequence[Point]) -> list[Path]:
    """Write a picture for each varied key that has more than one value, and return their paths.

    Args:
        folder: of the sweep.
        keys: that are varied.
        points: of the finished runs.
    """
    pictures = []
    for key, name in short_names(keys).items():
        own = points_that_vary(key, points)
        if own:
            picture = folder / f"{name}.png"
            write_bytes(picture, draw(draw_key, key, keys, own, height=4.6, width=8.0))
            pictures.append(picture)
    return pictures


def points_that_vary(key: str, points: Sequence[Point]) -> list[Point]:
    """Return the points of the ablations that vary a key: those in which it has more than one value."""
    held: dict[int, list[str]] = {}
    for point in points:
        for number in point.setting.ablations if key in point.setting.values else ():
            held.setdefault(number, []).append(as_text(point.setting.values[key]))
    varied = {number for number, values in held.items() if len(set(values)) > 1}
    return [point for point in points if point.setting.ablations & varied and key in point.setting.values]


def draw_key(axes: Any, key: str, keys: Sequence[str], points: Sequence[Point]) -> None:
    """Draw the metric over the values of one key, a line for each combination of the others."""
    values = list({as_text(point.setting.values[key]): point.setting.values[key] for point in points}.values())
    values = sorted(values) if all_numbers(values) else values
    places = {as_text(value): place for place, value in zip(positions(values), values, strict=True)}
    lines = lines_of(key, keys, points)
    shown = dict(list(lines.items())[:LINES])
    for colour, (name, own) in zip(COLOURS, shown.items(), strict=False):
        label = f"{GENERATED}, {name}" if name else GENERATED
        draw_line(axes, by_place(own, key, places, GENERATED), label, color=colour, marker="o", zorder=4)
    drawn = [point for own in shown.values() for point in own]
    draw_others(axes, drawn, key, places, single=len(shown) == 1)
    metric = points[0].metric
    axes.set_ylabel(f"{metric['name']} {'↑' if metric['higher_is_better'] else '↓'}")
    axes.set_xlabel(key)
    if all_numbers(values) and is_wide(values):
        axes.set_xscale("log")
        axes.minorticks_off()
    labels = list(map(value_text, values))
    axes.set_xticks(list(places.values()), labels, rotation=30 if len(" ".join(labels)) > 60 else 0)
    axes.grid(axis="y")
    axes.set_title(caption(len(lines), points), fontsize=8, color=GREY, loc="left", pad=4)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0)


def lines_of(key: str, keys: Sequence[str], points: Sequence[Point]) -> dict[str, list[Point]]:
    """Return the points of each combination of the other keys, by its name, from those that differ among the points."""
    others = [other for other in keys if other != key]
    differing = [key for key in others if len({as_text(point.setting.values.get(key)) for point in points}) > 1]
    lines: dict[str, list[Point]] = {}
    for point in points:
        values = {key: point.setting.values[key] for key in differing if key in point.setting.values}
        lines.setdefault(setting_name(values), []).append(point)
    return lines


def by_place(
    points: Sequence[Point], key: str, places: Mapping[str, float], source: str
) -> dict[float, list[float]]:
    """Return a source's means at each place of the axis, one of each run; those that have none are left out."""
    found: dict[float, list[float]] = {}
    for point in points:
        mean = point.means.get(source)
        if mean is not None and math.isfinite(mean):
            found.setdefault(places[as_text(point.setting.values[key])], []).append(mean)
    return dict(sorted(found.items()))


def draw_line(axes: Any, means: Mapping[float, Sequence[float]], label: str, **look: Any) -> None:
    """Draw the means over runs at their places, and a bar for the 95 % interval where there are several runs."""
    if not means:
        return
    axes.plot(list(means), [np.mean(values) for values in means.values()], label=label, linewidth=1.4, **look)
    for place, values in means.items():
        if len(values) > 1:
            ends = mean_interval(Values("runs", np.array(values))) or (values[0], values[0])  # all are the same
            axes.plot([place, place], ends, color=look["color"], linewidth=1.2, zorder=look["zorder"])


def draw_others(axes: Any, points: Sequence[Point], key: str, places: Mapping[str, float], single: bool) -> None:
    """Draw the other compared sources, where they are of a single combination; else what no setting changes alone."""
    sources = list(dict.fromkeys(name for point in points for name in point.means if name != GENERATED))
    colours = cycle(OTHERS)
    for source in sources:
        fixed = source in FIXED
        if not fixed and not single:
            continue
        look = {"color": GREY, "linestyle": "-"} if fixed else {"color": next(colours), "linestyle": "--"}
        means = by_place(points, key, places, source)
        flat = {place: [float(np.mean(values))] for place, values in means.items()}
        draw_line(axes, flat, source, marker="" if fixed and len(flat) > 1 else ".", zorder=3, **look)


def all_numbers(values: Sequence[Any]) -> bool:
    """Say whether all values are numbers, true and false not counted."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def is_wide(values: Sequence[float]) -> bool:
    """Say whether numbers lie so far apart that an axis must be logarithmic."""
    return min(values) > 0 and max(values) / min(values) >= WIDE


def positions(values: Sequence[Any]) -> list[float]:
    """Return where values stand on the axis: numbers where they are, words one after another."""
    return [float(value) for value in values] if all_numbers(values) else [float(n) for n in range(len(values))]


def caption(lines: int, points: Sequence[Point]) -> str:
    """Return what a reader of the picture has to know."""
    seeds = len({point.setting.seed for point in points})
    words = f"means over {seeds} seeds, bars: 95 % interval" if seeds > 1 else "one run each"
    if lines > LINES:
        words += f"; the first {LINES} of {lines} combinations of the other keys"
    return f"{words}; other sources are not drawn" if lines > 1 else words
