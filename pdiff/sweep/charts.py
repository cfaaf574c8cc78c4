"""A picture for each varied key: its values, and the metric of what was generated, with that of other sources."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from pdiff.analysis.repetition import interval_over_runs
from pdiff.analysis.standards import GENERATED, ORACLE
from pdiff.report.drawing import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, draw
from pdiff.run.grouping import short_names, value_texts
from pdiff.runtime.storage import write_bytes
from pdiff.sweep.record import pictures_of
from pdiff.sweep.results import Result
from pdiff.sweep.setting import as_text

LINES = 6  # combinations of the other keys that are drawn
COLOURS = (VERMILION, BLUE, GREEN, ORANGE, PURPLE, SKY)
OTHERS = (BLUE, GREEN, ORANGE, PURPLE, SKY)
WIDE = 10  # the largest value, or gap, over the smallest from which an axis cannot be linear
FIXED = ("trained", ORACLE)  # what a sweep of generators does not change

Means = Mapping[float, Sequence[float]]  # by place on the axis, one of each run


def write_charts(folder: Path, keys: Sequence[str], results: Sequence[Result]) -> list[Path]:
    """Write a picture for each varied key that has more than one value, and return their paths.

    Args:
        folder: of the sweep.
        keys: that are varied.
        results: those of finished runs.
    """
    written = []
    for key, picture in pictures_of(folder, keys).items():
        own = results_that_vary(key, results)
        if own:
            write_bytes(picture, draw(draw_key, key, keys, own, height=4.6, width=8.0))
            written.append(picture)
    return written


def results_that_vary(key: str, results: Sequence[Result]) -> list[Result]:
    """Return the results of the ablations that vary a key: those in which it has more than one value."""
    seen: dict[int, set[str]] = {}
    having = [result for result in results if key in result.setting.values]
    for result in having:
        for number in result.setting.ablations:
            seen.setdefault(number, set()).add(held(result, key))
    varied = {number for number, values in seen.items() if len(values) > 1}
    return [result for result in having if result.setting.ablations & varied]


def held(result: Result, key: str) -> str:
    """Return the value that a run has of a varied key, as a text that tells it apart."""
    return as_text(result.setting.values.get(key))


def draw_key(axes: Any, key: str, keys: Sequence[str], results: Sequence[Result]) -> None:
    """Draw the metric over the values of one key, a line for each combination of the others."""
    values = list({held(result, key): result.setting.values[key] for result in results}.values())
    numbers = all_numbers(values)
    values = sorted(values) if numbers else values
    places = {as_text(value): place for place, value in zip(positions(values), values, strict=True)}
    lines = lines_of(key, keys, results)
    shown = dict(list(lines.items())[:LINES])
    means = {name: by_place(own, key, places, GENERATED) for name, own in shown.items()}
    for colour, (name, own) in zip(COLOURS, means.items(), strict=False):
        label = f"{GENERATED}, {name}" if name else GENERATED
        draw_line(axes, own, label, color=colour, marker="o", zorder=4, linestyle="-" if numbers else "")
    drawn = [result for own in shown.values() for result in own]
    draw_others(axes, drawn, key, places, len(shown) == 1, "--" if numbers else "")
    cut = draw_intervals(axes, list(means.values()))
    metric = results[0].metric
    axes.set_ylabel(f"{metric['name']} {'↑' if metric['higher_is_better'] else '↓'}")
    axes.set_xlabel(key)
    if numbers and is_wide(values):
        axes.set_xscale("log")
        axes.minorticks_off()
    labels = value_texts(values)
    axes.set_xticks(list(places.values()), labels, rotation=30 if len(" ".join(labels)) > 60 else 0)
    axes.grid(axis="y")
    dead = any(len(means[name]) < len({held(result, key) for result in own}) for name, own in shown.items())
    axes.set_title(caption(list(means.values()), len(lines), cut, dead), fontsize=8, color=GREY, loc="left", pad=4)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0)


def lines_of(key: str, keys: Sequence[str], results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results of each combination of the other keys, by its name, from those that differ among them."""
    others = [other for other in keys if other != key and len({held(result, other) for result in results}) > 1]
    names: list[list[str]] = [[] for _ in results]
    for other, short in short_names(others).items():
        having = [place for place, result in enumerate(results) if other in result.setting.values]
        texts = value_texts([results[place].setting.values[other] for place in having])
        for place, text in zip(having, texts, strict=True):
            names[place].append(f"{short}={text}")
    lines: dict[str, list[Result]] = {}
    for name, result in zip(names, results, strict=True):
        lines.setdefault(", ".join(name), []).append(result)
    return lines


def by_place(results: Sequence[Result], key: str, places: Mapping[str, float], source: str) -> dict[float, list[float]]:
    """Return a source's means at each place of the axis, one of each run.

    A place where one of the runs has none is left out: the mean over the others would be of those that went well.
    """
    found: dict[float, list[float]] = {}
    for result in results:
        mean = result.means.get(source)
        found.setdefault(places[held(result, key)], []).append(math.nan if mean is None else mean)
    return {place: means for place, means in sorted(found.items()) if np.isfinite(means).all()}


def draw_line(axes: Any, means: Means, label: str, **look: Any) -> None:
    """Draw the means over runs at their places."""
    if means:
        axes.plot(list(means), [np.mean(values) for values in means.values()], label=label, linewidth=1.4, **look)


def draw_intervals(axes: Any, lines: Sequence[Means]) -> bool:
    """Draw a bar for the 95 % interval over runs at each place of the lines, and say whether one is cut off.

    Those of two runs can be so long that nothing else would be seen: the axis reaches beyond what is drawn already by
    its own length at most.
    """
    low, high = axes.get_ylim()
    bars = [
        (colour, place, bar)
        for colour, means in zip(COLOURS, lines, strict=False)
        for place, values in means.items()
        if (bar := interval_over_runs(values))
    ]
    for colour, place, bar in bars:
        axes.plot([place, place], bar, color=colour, linewidth=1.2, zorder=4)
    room, margin = high - low, 0.03 * (high - low)
    least = min([low, *(bar[0] - margin for _, _, bar in bars)])
    most = max([high, *(bar[1] + margin for _, _, bar in bars)])
    axes.set_ylim(max(least, low - room), min(most, high + room))
    return least < low - room or most > high + room


def draw_others(
    axes: Any, results: Sequence[Result], key: str, places: Mapping[str, float], single: bool, linestyle: str
) -> None:
    """Draw the other compared sources, where they are of a single combination; else what no setting changes alone."""
    sources = list(dict.fromkeys(name for result in results for name in result.means if name != GENERATED))
    colours = cycle(OTHERS)
    for source in sources:
        fixed = source in FIXED
        if not fixed and not single:
            continue
        look = {"color": GREY, "linestyle": "-"} if fixed else {"color": next(colours), "linestyle": linestyle}
        means = by_place(results, key, places, source)
        draw_line(axes, means, source, marker="" if fixed and len(means) > 1 else ".", zorder=3, **look)


def all_numbers(values: Sequence[Any]) -> bool:
    """Say whether all values are numbers, true and false not counted."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def is_wide(values: Sequence[float]) -> bool:
    """Say whether numbers lie so far apart that an axis must be logarithmic."""
    return min(values) > 0 and max(values) / min(values) >= WIDE


def positions(values: Sequence[Any]) -> list[float]:
    """Return where values stand on the axis: numbers where they are, words one after another.

    So do numbers for which no axis has room: of `0, 0.001, 0.1` the first two would be one.
    """
    if all_numbers(values) and (is_wide(values) or not is_crowded(values)):
        return [float(value) for value in values]
    return [float(place) for place in range(len(values))]


def is_crowded(values: Sequence[float]) -> bool:
    """Say whether some of ascending numbers would lie on one another where others are far apart."""
    gaps = np.diff(values)
    return len(gaps) > 1 and bool(gaps.max() >= WIDE * gaps.min())


def caption(shown: Sequence[Means], lines: int, cut: bool, dead: bool) -> str:
    """Return what a reader of the picture has to know.

    Args:
        shown: the lines that are drawn.
        lines: how many there are.
        cut: whether a bar leaves the picture.
        dead: whether a place has no point.
    """
    counts = sorted({len(values) for means in shown for values in means.values()}) or [1]
    words = "one run each"
    if counts[-1] > 1:
        least = f"{counts[0]} to " if counts[0] < counts[-1] else ""
        words = f"means over {least}{counts[-1]} runs, bars: 95 % interval"
    if cut:
        words += "; some end beyond the picture"
    if dead:
        words += "; no point where a run has no living network"
    if lines > LINES:
        words += f"; the first {LINES} of {lines} combinations of the other keys"
    return f"{words}; other sources are not drawn" if lines > 1 else words
