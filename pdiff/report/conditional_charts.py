"""What the figures of a run over conditions draw into their axes; None stands for what could not be measured."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdiff.report.charts import BASELINES, Styles, legend_below, make_logarithmic, window
from pdiff.report.conditional_table import BEST, ORACLE
from pdiff.report.drawing import BLUE, GREY, INK, VERMILION
from pdiff.report.point_names import name_points

FAR = 10  # so many times a small difference; an axis that reaches further would press small ones together
SPARSE = 60  # points of a source that can be drawn large
FEW = 8  # distances whose points can stand beside each other

Row = Mapping[str, Any]
Points = Mapping[str, NDArray]  # by source, in the order in which they are drawn


def conditional_styles(sources: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each source; the oracle and the generated look the same in every report."""
    fixed = {ORACLE: (BLUE, "D"), "generated": (VERMILION, "o"), "generated_permuted": (VERMILION, "x")}
    baselines = [name for name in sources if name not in fixed]
    return {**fixed, **{name: BASELINES[place % len(BASELINES)] for place, name in enumerate(baselines)}}


def in_sight(points: Points, loud: Sequence[str] = ()) -> list[str]:
    """Return the sources between which an axis has to tell: those that are loud, and those that are not far worse.

    Far is more than twice as far from the first source as three quarters of them are.
    """
    middles = {name: values[np.isfinite(values)].mean() for name, values in points.items() if np.isfinite(values).any()}
    far = {name: abs(middle - next(iter(middles.values()))) for name, middle in middles.items()}
    reach = 2 * np.percentile(list(far.values()), 75) if far else 0.0
    return [name for name in far if far[name] <= reach or name in loud]


def span(values: Sequence[NDArray], share: float) -> tuple[float, float]:
    """Return the range of all that is finite, and a share of it more to both sides."""
    joined = np.concatenate([*values, np.empty(0)])
    joined = joined[np.isfinite(joined)]
    if len(joined) == 0:
        return 0.0, 1.0
    low, high = joined.min(), joined.max()
    margin = share * (high - low) or 0.01 * abs(low) or 0.01
    return float(low - margin), float(high + margin)


def marks(count: int) -> dict[str, Any]:
    """Return how so many points of one source are drawn: the fewer, the larger."""
    size, alpha = (12, 0.6) if count <= SPARSE else (5, 0.35)
    return {"s": size, "alpha": alpha, "linewidths": 0}


def name_rows(axes: Any, names: Sequence[str], best: str | None) -> None:
    """Name a row per source, the best one in bold."""
    axes.set_yticks(range(len(names)), [f"{name} {BEST}" if name == best else name for name in names])
    for name, label in zip(names, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if name == best else "normal")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")


def beside(axes: Any, row: int, text: str) -> None:
    """Write a figure at the right end of a row."""
    axes.text(1.01, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)


def at_edge(axes: Any, row: int, value: float, low: float, high: float) -> bool:
    """Say whether a value lies beyond the axis, and point there."""
    if low <= value <= high:
        return False
    place, side, sign = (0.01, "left", "◂") if value < low else (0.99, "right", "▸")
    axes.text(place, row, sign, transform=axes.get_yaxis_transform(), ha=side, va="center", fontsize=9)
    return True


def networks(axes: Any, points: Points, rows: Mapping[str, Row], styles: Styles, label: str, best: str | None) -> None:
    """Draw a row of points for every source, its mean with its interval, and the oracle's mean through all rows."""
    low, high = window([points[name] for name in in_sight(points)] or [np.empty(0)])
    for row, (name, values) in enumerate(points.items()):
        colour, mean, ends = styles[name][0], rows[name]["mean"], rows[name]["ci"]
        jitter = np.random.default_rng(row).uniform(-0.27, 0.27, len(values))
        shown = (values >= low) & (values <= high)
        axes.scatter(values[shown], (row + jitter)[shown], color=colour, **marks(len(values)))
        if mean is None:
            beside(axes, row, "dead")
            continue
        beside(axes, row, f"{mean:.4f}")
        if at_edge(axes, row, mean, low, high):
            continue
        if ends:
            axes.plot(ends, [row, row], color=INK, linewidth=2.2, solid_capstyle="butt")
        axes.plot([mean] * 2, [row - 0.36, row + 0.36], color=INK, linewidth=1.3)
    if ORACLE in points and rows[ORACLE]["mean"] is not None:
        axes.axvline(rows[ORACLE]["mean"], color=BLUE, linewidth=0.9, linestyle="--", zorder=0)
    axes.set_xlim(low, high)
    axes.set_xlabel(label)
    name_rows(axes, list(points), best)


def differences(axes: Any, found: Mapping[str, Row], styles: Styles, metric: str, best: str | None) -> None:
    """Draw each source's difference to the oracle with its interval, on an axis that is logarithmic far from 0."""
    values = np.array([figures["difference"] for figures in found.values()])
    ends = np.concatenate([[0.0], values, *(figures["ci"] for figures in found.values() if figures["ci"])])
    for row, (name, figures) in enumerate(found.items()):
        colour, marker = styles[name]
        beside(axes, row, f"{figures['difference']:+.4f}")
        if figures["ci"]:
            axes.plot(figures["ci"], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
        sure = figures["p_adjusted"] is not None and figures["p_adjusted"] < 0.05
        face = colour if sure else "white"
        axes.plot(figures["difference"], row, marker, markersize=5, markerfacecolor=face, markeredgecolor=colour)
    axes.axvline(0, color=BLUE, linewidth=0.9, linestyle="--", zorder=0)
    widths = [np.ptp(figures["ci"]) / 2 for figures in found.values() if figures["ci"]]
    small = max(np.percentile(np.abs(values), 25), np.median(widths or [0.0]))
    scale = stretch_middle(axes, small, ends.min(), ends.max())
    axes.set_xlabel(f"◂ worse than the oracle · {metric} · better ▸{scale}")
    name_rows(axes, list(found), best)


def stretch_middle(axes: Any, linear: float, low: float, high: float) -> str:
    """Make an axis logarithmic beyond `linear` to both sides where it reaches far; return the words that say so."""
    if max(-low, high) < FAR * linear or linear == 0:
        return ""
    linear = float(f"{linear:.0e}")
    steps = linear * 10.0 ** np.arange(6)
    ticks = [tick for tick in (*-steps[::-1], 0.0, *steps) if 1.1 * low <= tick <= 1.1 * high or tick == 0]
    axes.set_xscale("symlog", linthresh=linear, linscale=1.5)
    axes.set_xlim(1.3 * low if low < 0 else -linear, 1.3 * high if high > 0 else 0.3 * linear)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    return f"\n(logarithmic beyond ±{linear:g})"


def by_distance(
    axes: Any, near: Mapping[str, Sequence[Row]], styles: Styles, label: str, unit: str, loud: Sequence[str]
) -> None:
    """Draw each source's mean over the conditions at each distance to the nearest seen one, some sources louder."""
    distances = sorted({found["distance"] for bins in near.values() for found in bins})
    step = min(np.diff(distances)) if len(distances) <= FEW else 0.0
    offsets = np.linspace(-0.12, 0.12, len(near)) * step
    means = {name: np.array([found["mean"] for found in bins], dtype=float) for name, bins in near.items()}
    sighted = in_sight(means, loud)
    for (name, bins), offset in zip(near.items(), offsets, strict=True):
        if name not in sighted:
            continue
        colour, marker = styles[name]
        x = np.array([found["distance"] for found in bins]) + offset
        width, alpha, order = (2.0, 1.0, 5) if name in loud else (0.8, 0.75, 3)
        style = {"marker": marker, "markersize": 5, "linewidth": width, "alpha": alpha, "zorder": order}
        axes.plot(x, means[name], color=colour, label=name, **style)
    counts = {found["distance"]: found["n"] for bins in near.values() for found in bins}
    if len(distances) <= FEW:
        axes.set_xticks(distances, [f"{distance:.3g}\n({counts[distance]})" for distance in distances])
    axes.set_ylim(span([means[name] for name in sighted], 0.06))
    axes.set_xlabel(f"distance to the nearest seen condition: {unit}")
    axes.set_ylabel(label)
    axes.grid(axis="y")
    if len(sighted) < len(near):
        beyond = ", ".join(name for name in near if name not in sighted)
        axes.set_title(f"beyond the axis: {beyond}", fontsize=8, loc="right")
    legend_below(axes)


def slopes(axes: Any, found: Mapping[str, Sequence[float | None]], names: Sequence[str], styles: Styles) -> None:
    """Draw a row per number of the condition, and in it each source's slope of measured against requested."""
    offsets = np.linspace(-0.24, 0.24, len(found))
    for (source, values), offset in zip(found.items(), offsets, strict=True):
        colour, marker = styles[source]
        x = np.array(values, dtype=float)
        axes.plot(x, np.arange(len(names)) + offset, marker, color=colour, markersize=5, label=source)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    for row in range(1, len(names)):
        axes.axhline(row - 0.5, color=GREY, linewidth=0.4, alpha=0.5)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("slope of measured against requested (0: ignores it, 1: follows it)")
    axes.grid(axis="x")
    legend_below(axes)


def obedience(panels: Any, found: Mapping[str, tuple[NDArray, NDArray]], styles: Styles) -> None:
    """Draw what was measured against what was asked for, a panel per source; all numbers of the condition together."""
    flat = list(np.atleast_1d(panels))
    low, high = window([values for pair in found.values() for values in pair])
    for axes in flat[len(found) :]:
        axes.set_visible(False)
    for axes, (name, (requested, measured)) in zip(flat, found.items(), strict=False):
        levels = np.unique(requested)
        jitter = np.random.default_rng(0).uniform(-0.05, 0.05, len(requested)) * (len(levels) <= FEW)
        axes.scatter(requested + jitter, measured, color=styles[name][0], **marks(len(requested)))
        if len(levels) <= FEW:
            middles = [np.nanmean(measured[requested == level]) for level in levels]
            axes.plot(levels, middles, "-", color=INK, linewidth=1.4, marker="_", markersize=16, markeredgewidth=2)
        axes.plot([low, high], [low, high], color=GREY, linewidth=0.9, linestyle=":")
        axes.set_xlim(low - 0.05, high + 0.05)
        axes.set_ylim(low, high)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        axes.label_outer()
        axes.set_title(name, fontsize=9)
        axes.grid()
    flat[0].figure.supxlabel("requested", fontsize=10)
    flat[0].figure.supylabel("measured", fontsize=10)


def costs(axes: Any, points: Mapping[str, tuple[float, float]], styles: Styles, label: str, best: str | None) -> None:
    """Draw the metric against the seconds for one more network, every point with its name."""
    seconds, metrics = np.array(list(points.values())).T
    alone = {name: np.array([metric]) for name, (_, metric) in points.items()}
    low, high = span([alone[name] for name in in_sight(alone)], 0.06)
    shown = np.clip(metrics, low, high)
    for name, x, y, metric in zip(points, seconds, shown, metrics, strict=True):
        colour, marker = styles[name]
        edge = "v" if metric < low else "^"
        axes.plot(x, y, marker if y == metric else edge, color=colour, markersize=7, zorder=4)
    ends, margin = (seconds.min() / 3, seconds.max() * 3), 0.1 * (high - low)
    make_logarithmic(axes, *ends)
    axes.set_xlim(ends)
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("seconds for one more network")
    axes.set_ylabel(label)
    axes.grid()
    texts = {
        name: (f"{name} {BEST}" if name == best else name) + ("" if y == metric else f", {metric:.3f}")
        for name, y, metric in zip(points, shown, metrics, strict=True)
    }
    name_points(axes, dict(zip(texts.values(), zip(seconds, shown, strict=True), strict=True)))
