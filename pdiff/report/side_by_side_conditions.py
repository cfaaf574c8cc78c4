"""The comparison of runs over conditions as a table, as a page and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdiff.analysis.standards import FEW, GENERATED, ORACLE
from pdiff.report.cells import number, percent
from pdiff.report.charts import make_logarithmic
from pdiff.report.conditional_charts import in_sight, span
from pdiff.report.conditional_table import BEST, ordered
from pdiff.report.drawing import BLUE, GREEN, GREY, SKY, VERMILION, Figure, draw
from pdiff.report.group_columns import Table, added_titles, counted, mean_gain, mean_of, stacked, with_shared
from pdiff.report.page import TONES_OVER_CONDITIONS
from pdiff.report.point_names import name_points
from pdiff.report.side_by_side import ends_text, gain_text, print_rows, write_page
from pdiff.run.conditional_comparison import ComparedOverConditions
from pdiff.run.grouping import Group
from pdiff.runtime.storage import write_bytes

TITLES = (
    "run", "metric", "unseen", "oracle", f"best {BEST}", "its mean", "to oracle", "95 %", "time", "generated", "rank",
    "base to oracle", "gain reached", "verdict",
)  # fmt: skip
WORDS = (0, 1, 4, 13)  # columns that hold words
OF_BASE = (11, 12)  # those that only runs with a base fill
# Columns that stand below one another in a terminal, for which all beside one another are too wide.
STACKED = ((0, 1), (2,), (3,), (4, 5), (6, 7), (8,), (9, 10), (11, 12), (13,))
TENTH = 0.1  # of the oracle's seconds; less is told as a fraction
PANELS = 2  # beside one another in the picture
CAPTION = (
    "unseen: conditions, and their groups where these are fewer; oracle: mean of the networks trained for them; "
    f"{BEST}: best on the select conditions; to oracle: gain over the oracle, relative to its mean, above 0 where "
    "better, and its 95 % interval over conditions; time: seconds of one network over those of the oracle, the "
    "fit of a generator not counted; generated: their mean; rank: by the mean, among the sources that give networks "
    "for new conditions"
)
CAPTION_OF_BASE = (
    "; base to oracle: the same gain of what every network was fine-tuned from; gain reached: how much of the oracle's "
    f"gain over the base {BEST} has"
)
READING = (
    "Further left is cheaper, further up is better: a point is a source's mean over the unseen conditions as a share "
    "of the oracle's, against what one network costs as a share of a training. A triangle lies beyond the edge; a "
    "source without a living network, or a known cost, has no point."
)


def time_text(share: float | None) -> str:
    """Return the text of a share of the oracle's seconds: per cent, a small one as a fraction."""
    if share is None or share >= TENTH:
        return percent(share)
    return f"1/{float(f'{1 / share:.2g}'):,.0f}" if share > 0 else "0 %"


def metric_text(run: ComparedOverConditions) -> str:
    """Return the metric's name, and which way is better."""
    metric = run.summary["metric"]
    return f"{metric['name']} {'↑' if metric['higher_is_better'] else '↓'}"


def unseen_text(run: ComparedOverConditions) -> str:
    """Return how many unseen conditions there are, and groups of them where these are fewer."""
    count = run.summary["conditions"]["unseen"]
    return str(count) if run.groups == count else f"{count} / {run.groups}"


def rank_text(runs: Sequence[ComparedOverConditions]) -> str:
    """Return the generated's place among the sources that give networks, of several runs the mean of their places."""
    ranks = [run.rank for run in runs if run.rank]
    if len(ranks) < len(runs):
        return ""
    places, sources = ([rank[part] for rank in ranks] for part in (0, 1))
    return " of ".join(f"{sum(found) / len(found):.{int(len(set(found)) > 1)}f}" for found in (places, sources))


def cells(group: Group) -> list[str]:
    """Return one group's row."""
    runs = group.runs
    best, base = (mean_gain([run.to_oracle(name(run)) for run in runs]) for name in (best_of, base_of))
    return [
        group.name,
        metric_text(runs[0]),
        ", ".join(dict.fromkeys(map(unseen_text, runs))),
        number(mean_of([run.oracle["mean"] for run in runs])),
        counted([run.best or "" for run in runs]),
        number(mean_of([run.sources[run.best]["mean"] if run.best else None for run in runs])),
        gain_text(best.value) if best else "",
        ends_text(best.ends) if best else "",
        time_text(mean_of([run.share(run.best) if run.best else None for run in runs])),
        number(mean_of([run.sources[GENERATED]["mean"] for run in runs])),
        rank_text(runs),
        gain_text(base.value) if base else "",
        percent(mean_of([run.reached for run in runs])),
        counted([run.summary["verdict_kind"] for run in runs]),
    ]


def best_of(run: ComparedOverConditions) -> str | None:
    """Return a run's best source."""
    return run.best


def base_of(run: ComparedOverConditions) -> str | None:
    """Return what a run's networks were fine-tuned from."""
    return run.base


def table(groups: Sequence[Group]) -> Table:
    """Return the table with a row per group and the columns that some run fills."""
    own = Table(list(TITLES), list(WORDS), [cells(group) for group in groups], caption(runs_of(groups)))
    return with_shared(groups, own.select(shown(runs_of(groups))))


def for_terminal(groups: Sequence[Group]) -> Table:
    """Return the table as a terminal has room for it."""
    own = shown(runs_of(groups))
    stacks = [[own.index(column) for column in stack] for stack in STACKED if stack[0] in own]
    return stacked(table(groups), stacks, len(added_titles(groups)))


def runs_of(groups: Sequence[Group]) -> list[ComparedOverConditions]:
    """Return the runs of all groups."""
    return [run for group in groups for run in group.runs]


def shown(runs: Sequence[ComparedOverConditions]) -> list[int]:
    """Return the columns that some run fills."""
    based = any(run.base for run in runs)
    return [place for place in range(len(TITLES)) if based or place not in OF_BASE]


def caption(runs: Sequence[ComparedOverConditions]) -> str:
    """Return what the columns mean."""
    return f"{CAPTION}{CAPTION_OF_BASE if any(run.base for run in runs) else ''}."


def notes(run: ComparedOverConditions) -> list[str]:
    """Return what weakens a run's figures, a line each."""
    few = f"its intervals are over {run.groups} groups of conditions: too few to say much"
    return [few] if run.groups < FEW else []


def failed(run: ComparedOverConditions) -> list[str]:
    """Return the line on checks that failed and were ignored, where there are any."""
    names = [gate["name"] for gate in run.summary["gates"] if not gate["passed"]]
    return [f"failed checks, which were ignored: {', '.join(names)}"] if names else []


def print_comparison(groups: Sequence[Group]) -> None:
    """Print a row per group, and each run's verdict and notes."""
    lines = []
    for run in runs_of(groups):
        lines += [f"{run.name}: {run.summary['verdict']}"]
        lines += [f"{run.name}: note: {note}" for note in (*failed(run), *notes(run))]
    print_rows(*for_terminal(groups), lines, whole=bool(added_titles(groups)))


def write_comparison(groups: Sequence[Group], output: Path) -> Path:
    """Write the page `output` and a picture of the same figures beside it, and return the picture's path."""
    picture, wide = output.with_suffix(".png"), min(len(groups), PANELS)
    high = -(-len(groups) // PANELS)
    write_bytes(picture, draw(draw_panels, groups, height=4.2 * high, width=6.5 * wide, panels=(high, wide)))
    figures = [Figure(group.name, READING, draw(draw_trade, group, height=4.2)) for group in groups]
    noted = {run.name: notes(run) for run in runs_of(groups)}
    write_page(groups, output, table(groups), figures, TONES_OVER_CONDITIONS, noted, dense=True)
    return picture


def draw_panels(panels: Any, groups: Sequence[Group]) -> None:
    """Draw a panel per group, the names when no panel moves any more."""
    flat, texts = list(np.atleast_1d(panels)), []
    for axes in flat[len(groups) :]:
        axes.set_visible(False)
    for axes, group in zip(flat, groups, strict=False):
        axes.set_title(group.name, fontsize=10, fontweight="bold")
        texts.append(draw_points(axes, group))
    for axes, names in zip(flat, texts, strict=False):
        write_names(axes, names)


def trade(group: Group) -> dict[str, tuple[float, float]]:
    """Return what one network of a source costs, and its mean in per cent of the oracle's, the oracle first.

    Both are means over the group's runs. Sources that lack one of them in a run are left out.
    """
    found = [trade_of_run(run) for run in group.runs]
    whole = [name for name in found[0] if all(name in points for points in found)]
    return {name: tuple(np.mean([points[name] for points in found], axis=0).tolist()) for name in whole}


def trade_of_run(run: ComparedOverConditions) -> dict[str, tuple[float, float]]:
    """Return what one network of a source costs, and its mean in per cent of the oracle's, the oracle first.

    The cost is a share of the oracle's seconds, and seconds where nobody knows those. Sources without a living network,
    or whose cost is not known, are left out.
    """
    found, whole = {}, run.oracle["seconds"] or 1.0
    for name in ordered(run.summary):
        row = run.sources[name]
        if (name == ORACLE or name in run.given) and row["mean"] is not None and row["seconds"]:
            found[name] = (row["seconds"] / whole, 100 * row["mean"] / run.oracle["mean"])
    return found


def best_label(group: Group, name: str) -> str:
    """Return a source's name, and in how many of a group's runs it is best where it is in some."""
    count = sum(run.best == name for run in group.runs)
    times = f" {count} of {len(group.runs)}" if count < len(group.runs) else ""
    return f"{name} {BEST}{times}" if count else name


def style(group: Group, name: str) -> dict[str, Any]:
    """Return how a source's point looks: those that are compared are large, the others small and above them."""
    best = any(run.best == name for run in group.runs)
    large = {ORACLE: (BLUE, "D", 8), GENERATED: (VERMILION, "o", 8), group.runs[0].base: (GREY, "s", 8)}
    colour, marker, size = large.get(name, (GREEN if best else SKY, "o", 5))
    if best:
        marker, size = "*", 13
    face = "none" if name == ORACLE else colour
    return {"color": colour, "marker": marker, "markersize": size, "markerfacecolor": face, "zorder": 5 - size / 13}


def draw_trade(axes: Any, group: Group) -> None:
    """Draw the mean of every source against what one of its networks costs; upwards is better."""
    write_names(axes, draw_points(axes, group))


def draw_points(axes: Any, group: Group) -> dict[str, tuple[float, float]]:
    """Draw a point for every source and return where each stands, by its text."""
    points, run = trade(group), group.runs[0]
    loud = (*(run.best for run in group.runs), GENERATED)
    alone = {name: np.array([y]) for name, y in ((ORACLE, 100.0), *((name, y) for name, (_, y) in points.items()))}
    low, high = span([alone[name] for name in in_sight(alone, loud)], 0.06)
    margin, turned = 0.06 * (high - low), run.summary["metric"]["higher_is_better"] != (run.oracle["mean"] > 0)
    ends = (low - margin, high + margin)
    axes.set_ylim(ends[::-1] if turned else ends)
    axes.axhline(100, color=BLUE, linewidth=0.9, linestyle="--", zorder=0)
    texts = {}
    for name, (x, y) in points.items():
        shown, look = min(max(y, low), high), style(group, name)
        if shown != y:
            look |= {"marker": "^" if (y > high) != turned else "v", "markersize": 7}
        axes.plot(x, shown, **look)
        label = best_label(group, name)
        texts[label if shown == y else f"{label}, {y:.0f} %"] = (x, shown)
    finish(axes, group, [x for x, _ in points.values()], turned)
    return texts


def write_names(axes: Any, texts: Mapping[str, tuple[float, float]]) -> None:
    """Write a text beside each point, legible above lines."""
    name_points(axes, texts)
    for text in axes.texts:
        text.set_bbox({"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5})


def finish(axes: Any, group: Group, costs: Sequence[float], turned: bool) -> None:
    """Give axes of costs and means their labels."""
    ends = min(costs, default=1.0) / 4, max(costs, default=1.0) * 4
    make_logarithmic(axes, *ends)
    axes.set_xlim(ends)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("seconds of one network")
    if all(run.oracle["seconds"] for run in group.runs):
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:g}" if share >= 1 else f"1/{1 / share:,.0f}")
        axes.set_xlabel("seconds of one network, as a share of the oracle's")
    axes.set_ylabel(f"{metric_text(group.runs[0])}, % of the oracle's{' (up is better)' if turned else ''}")
    axes.grid()
