"""What a figure draws into its axes: rows of points, clouds, intervals, histograms, bars and curves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdiff.analysis.novel import MULTIPLES
from pdiff.engine.watching import LOOK
from pdiff.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION
from pdiff.report.evidence import BySource, Evidence

BASELINES = [(colour, marker) for marker in ("o", "^", "s") for colour in (GREEN, PURPLE, ORANGE, SKY, GREY)]

Styles = Mapping[str, tuple[str, str]]


def source_styles(sources: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each source; trained and generated look the same in every report."""
    baselines = [name for name in sources if name not in ("trained", "generated")]
    others = {name: BASELINES[place % len(BASELINES)] for place, name in enumerate(baselines)}
    return {"trained": (BLUE, "o"), "generated": (VERMILION, "o"), **others}


def window(values: Sequence[NDArray]) -> tuple[float, float]:
    """Return the range that an axis shows: all that is finite, without what lies far beyond the middle four fifths."""
    joined = np.concatenate(list(values))
    joined = joined[np.isfinite(joined)]
    if len(joined) == 0:
        return 0.0, 1.0
    low, high = np.percentile(joined, (10, 90))
    reach = 2 * (high - low) or np.inf
    first, last = max(joined.min(), low - reach), min(joined.max(), high + reach)
    margin = 0.04 * (last - first) or 0.01 * abs(last) or 0.01
    return float(first - margin), float(last + margin)


def arrow(sign: str, beyond: NDArray) -> str:
    """Return how many candidates lie beyond an edge of the axes, with a sign that points there; nothing for none."""
    return f"{sign} {beyond.sum()}" if beyond.any() else ""


def strips(
    axes: Any, values: BySource, styles: Styles, label: str, best: Mapping[str, int], logarithmic: bool = False
) -> None:
    """Draw a row of points for every source; what lies beyond the axis is counted at its edge."""
    if logarithmic:
        low, high = np.exp(window([np.log(v[v > 0]) for v in values.values()]))
        make_logarithmic(axes, low, high)
    else:
        low, high = window(list(values.values()))
    for row, (name, points) in enumerate(values.items()):
        colour = styles[name][0]
        inside = (points >= low) & (points <= high)
        jitter = np.random.default_rng(row).uniform(-0.25, 0.25, len(points)) * (len(points) > 1)
        size, alpha = (7, 0.55) if len(points) > 1 else (22, 1.0)
        axes.scatter(points[inside], (row + jitter)[inside], s=size, color=colour, alpha=alpha, linewidths=0)
        living = points[np.isfinite(points)]
        if len(living) > 1:
            axes.plot([living.mean()] * 2, [row - 0.36, row + 0.36], color=INK, linewidth=1.3)
        if name in best and len(points) > 1:
            axes.plot(points[best[name]], row, "D", markersize=4.5, markerfacecolor=colour, markeredgecolor=INK)
        beyond = [text for text in (arrow("◂", points < low), arrow("▸", points > high)) if text]
        axes.text(1.01, row, " ".join(beyond), transform=axes.get_yaxis_transform(), va="center", fontsize=7)
    axes.set_xlim(low, high)
    axes.set_yticks(range(len(values)), [f"{name} ({len(points)})" for name, points in values.items()])
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.grid(axis="x")


def make_logarithmic(axes: Any, low: float, high: float) -> None:
    """Make an axis logarithmic, with labels so few that they do not touch."""
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def differences(
    axes: Any, comparisons: Mapping[str, Mapping[str, Any]], styles: Styles, metric: str, margin: float
) -> None:
    """Draw the difference of generated to every other source with its intervals; far ones are numbers at the edge."""
    ends = (end for figures in comparisons.values() for end in figures["ci_simultaneous"] or [figures["difference"]])
    low, high = window([np.array([0.0, *ends])])
    beside = axes.get_yaxis_transform()
    for row, (name, figures) in enumerate(comparisons.items()):
        colour, value = styles[name][0], figures["difference"]
        axes.text(1.01, row, f"{figures['superiority']:.0%}", transform=beside, va="center", fontsize=8)
        if not low <= value <= high:
            place, side, text = (0, "left", f"◂ {value:.3g}") if value < low else (1, "right", f"{value:.3g} ▸")
            axes.text(place, row, text, transform=beside, ha=side, va="center", fontsize=8)
            continue
        for key, width in (("ci_simultaneous", 1), ("ci", 3)):
            if figures[key]:
                axes.plot(figures[key], [row, row], color=colour, linewidth=width, solid_capstyle="butt")
        known = figures["p_adjusted"] is not None
        face = colour if known and figures["p_adjusted"] < 0.05 else "none"
        axes.plot(value, row, "o", markersize=6, markerfacecolor=face, markeredgecolor=colour)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.axvline(-margin, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(low, high)
    axes.set_yticks(range(len(comparisons)), list(comparisons))
    axes.set_ylim(len(comparisons) - 0.5, -0.5)
    axes.set_xlabel(f"◂ the source is better · {metric} · generated is better ▸")
    axes.grid(axis="x")


def novelty(axes: Any, evidence: Evidence, styles: Styles, label: str, higher_is_better: bool) -> None:
    """Draw metric against similarity, and the front of the baselines."""
    shown = {name: evidence.tests[name] for name in evidence.similarities}
    low, high = window(list(shown.values()))
    scatter(axes, {name: (evidence.similarities[name], tests) for name, tests in shown.items()}, styles)
    draw_front(axes, evidence, higher_is_better)
    beyond = sum(int(((tests < low) | (tests > high)).sum()) for tests in shown.values())
    if beyond:
        corner = {"xycoords": "axes fraction", "ha": "right", "va": "bottom", "fontsize": 7}
        axes.annotate(f"{beyond} beyond the edge", (1, 0), **corner)
    axes.set_ylim((low, high) if higher_is_better else (high, low))
    axes.set_xlabel("largest similarity to a fitted checkpoint (1: wrong on the same samples)")
    axes.set_ylabel(label)


def draw_front(axes: Any, evidence: Evidence, higher_is_better: bool) -> None:
    """Draw, for each similarity, the best metric of a baseline that resembles the trained ones no more than that."""
    on = [name for name in evidence.front if evidence.front[name].any()]
    if not on:
        return
    x = np.concatenate([evidence.similarities[name][evidence.front[name]] for name in on])
    y = np.concatenate([evidence.tests[name][evidence.front[name]] for name in on])
    order = np.argsort(x)
    x, y = np.append(x[order], max(x.max(), axes.get_xlim()[1])), y[order]
    y = np.maximum.accumulate(y) if higher_is_better else np.minimum.accumulate(y)
    axes.plot(x, np.append(y, y[-1]), drawstyle="steps-post", color=INK, linewidth=1.2, zorder=30)


def scatter(axes: Any, points: Mapping[str, tuple[NDArray, NDArray]], styles: Styles, legend: bool = True) -> None:
    """Draw clouds, the first sources (trained, generated) over the baselines, single candidates over all."""
    for row, (name, (x, y)) in enumerate(points.items()):
        colour, marker = styles[name]
        if len(x) == 1:
            axes.scatter(x, y, s=80, marker="*", color=colour, edgecolors=INK, linewidths=0.8, label=name, zorder=25)
            continue
        alpha = 0.6 if name in ("trained", "generated") else 0.45
        order = 3 + len(points) - row
        axes.scatter(x, y, s=10, marker=marker, color=colour, alpha=alpha, linewidths=0, label=name, zorder=order)
    axes.grid()
    if legend:
        legend_below(axes)


def legend_below(axes: Any) -> None:
    """Put a legend under the whole figure, where a telephone has room for it, with marks of one size and no alpha."""
    from matplotlib.collections import PathCollection

    handles, names = axes.get_legend_handles_labels()
    legend = axes.figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))
    for handle in legend.legend_handles:
        handle.set_alpha(1)
        if isinstance(handle, PathCollection):
            handle.set_sizes([26])


def projection(panels: Any, planes: Mapping[str, BySource], styles: Styles) -> None:
    """Draw each plane into its panel."""
    for axes, (name, plane) in zip(np.atleast_1d(panels), planes.items(), strict=True):
        scatter(axes, {source: tuple(points.T) for source, points in plane.items()}, styles, legend=False)
        axes.set_xlim(window([points[:, 0] for points in plane.values()]))
        axes.set_ylim(window([points[:, 1] for points in plane.values()]))
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("first axis")
        axes.set_ylabel("second axis")
    legend_below(np.atleast_1d(panels)[0])


def densities(panels: Any, coordinates: Mapping[str, BySource], styles: Styles) -> None:
    """Draw a histogram of every coordinate, trained filled, the others as lines."""
    for axes in panels[len(coordinates) :]:
        axes.set_visible(False)
    for axes, (name, values) in zip(panels, coordinates.items(), strict=False):
        edges = np.linspace(*window(list(values.values())), 31)
        for source, points in values.items():
            counts = np.histogram(points, edges)[0] / len(points)
            filled = source == "trained"
            axes.stairs(counts, edges, fill=filled, color=styles[source][0], alpha=0.5 if filled else 1, label=source)
        axes.set_title(name, fontsize=8)
        axes.set_yticks([])
        axes.tick_params(axis="x", labelsize=7)
        axes.locator_params(axis="x", nbins=4)
    legend_below(panels[0])


def path(axes: Any, steps: NDArray, metrics: NDArray, trained: float | None, label: str) -> None:
    """Draw the metric of each sample after each stretch of its way from noise."""
    finite = np.where(np.isfinite(metrics), metrics, np.nan)
    axes.plot(steps, finite, color=VERMILION, alpha=0.3, linewidth=0.9, marker=".", markersize=3)
    some = np.isfinite(metrics).any(1)
    means = np.nanmean(finite[some], axis=1)
    axes.plot(steps[some], means, color=VERMILION, linewidth=2.2, label="mean of the samples")
    if trained is not None:
        axes.axhline(trained, color=BLUE, linestyle="--", linewidth=1.8, label="mean of the trained")
    axes.set_xlabel("times that the denoiser was asked")  # by Heun's method twice in a step
    axes.set_ylabel(label)
    axes.legend()
    axes.grid()


def bars(axes: Any, errors: Sequence[tuple[str, float]], total: int) -> None:
    """Draw the codec's error of the worst tensors."""
    axes.barh(range(len(errors)), [error for _, error in errors], color=SKY)
    axes.set_yticks(range(len(errors)), [name for name, _ in errors], fontsize=7)
    axes.invert_yaxis()
    some = f", the worst {len(errors)} of {total} tensors" if total > len(errors) else ""
    axes.set_xlabel(f"share of the variation that is lost{some}")
    axes.grid(axis="x")


def choice(axes: Any, trains: BySource, tests: BySource, styles: Styles, metric: str) -> None:
    """Draw the metric on the test split against that on the training data."""
    scatter(axes, {name: (values, tests[name]) for name, values in trains.items()}, styles)
    axes.set_xlim(window(list(trains.values())))
    axes.set_ylim(window([tests[name] for name in trains]))
    axes.set_xlabel(f"{metric} on the training data")
    axes.set_ylabel(f"{metric} on the test split")


def new_and_good(axes: Any, multiples: NDArray, shares: BySource, styles: Styles) -> None:
    """Draw, for each source, the share of candidates that are new and good against how new that means."""
    for row, (name, values) in enumerate(shares.items()):
        (colour, marker), width = styles[name], 2.2 if name in ("trained", "generated") else 1.2
        line = {"marker": marker, "markersize": 4, "markevery": (3 * row % 10, 10), "zorder": 30 - row}
        axes.plot(multiples, values, color=colour, linewidth=width, label=name, **line)
    for multiple in MULTIPLES:
        axes.axvline(multiple, color=INK, linewidth=0.6, linestyle=":")
    make_logarithmic(axes, multiples[0], multiples[-1])
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("distance to the nearest trained network (1: the median of the trained)")
    axes.set_ylabel("share of candidates as good as the trained")
    axes.grid()
    legend_below(axes)


def training(axes: Any, curves: Mapping[str, list[float]]) -> None:
    """Draw the loss of every step, and of every look at what the training before it leaves out."""
    trained = ""
    for colour, (name, losses) in zip((VERMILION, BLUE, GREEN, PURPLE), curves.items(), strict=False):
        steps = np.arange(1, len(losses) + 1)
        if name == "watched":
            steps = np.minimum(LOOK * steps, len(curves[trained]))
            axes.plot(steps, losses, color=colour, marker="o", markersize=3, linewidth=1.2, label=name)
            continue
        trained = name
        axes.plot(steps, losses, color=colour, alpha=0.3, linewidth=0.6)
        axes.plot(steps, smoothed(np.array(losses)), color=colour, linewidth=1.8, label=name)
    if all(min(losses) > 0 for losses in curves.values()):  # a bound on the likelihood may be of either sign
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend()
    axes.grid()


def smoothed(losses: NDArray) -> NDArray:
    """Return the running mean over a thirtieth of all steps."""
    window = max(1, len(losses) // 30)
    sums = np.cumsum(np.insert(losses, 0, 0.0))
    end = np.arange(1, len(losses) + 1)
    start = np.maximum(end - window, 0)
    return (sums[end] - sums[start]) / (end - start)
