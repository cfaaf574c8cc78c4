"""The figures of a run over conditions: how good, how far from what was seen, whether it obeys, what it costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdiff.report import conditional_charts as charts
from pdiff.report.conditional_table import ORACLE, ordered
from pdiff.report.drawing import Figure
from pdiff.report.figures import Plan, draw_plans, rows_height

MOST_NUMBERS = 16  # rows that can be read in one figure


def draw_conditional_figures(folder: Path, summary: Mapping[str, Any]) -> list[Figure]:
    """Write the figures as PNG files and return them in the order in which they are read.

    Args:
        folder: where to.
        summary: of the run, as in `summary.json`; a figure for which it has no numbers is left out.
    """
    return draw_plans(folder, plans(summary))


def plans(summary: Mapping[str, Any]) -> list[Plan]:
    """Return the table of all figures, in the order in which they are read."""
    metric, best, order = summary["metric"]["name"], summary["best_source"], ordered(summary)
    better = "right" if summary["metric"]["higher_is_better"] else "left"
    sources, points = {name: summary["sources"][name] for name in order}, summary["points"]
    styles, label = charts.conditional_styles(sources), f"{metric} on the test split"
    metrics = {name: np.array(points["metric"][name], dtype=float) for name in order if name in points["metric"]}
    differences = {name: row["to_oracle"] for name, row in sources.items() if row["to_oracle"]}
    near = {name: row["near"] for name, row in sources.items() if row["near"]}
    distances = {found["distance"] for bins in near.values() for found in bins}
    timed = {name: row for name, row in sources.items() if row["seconds"] and row["mean"] is not None}
    costs = {name: (row["seconds"], row["mean"]) for name, row in timed.items()}
    loud = [name for name in dict.fromkeys((ORACLE, best, "generated", "generated_permuted")) if name in sources]
    obeying = {name: sources[name]["obeys"] for name in loud if sources[name]["obeys"]}
    followed = list(dict.fromkeys(number for obeys in obeying.values() for number in obeys))
    names = least_obeyed(list(obeying.values()), followed)
    slopes = {name: [slope(obeys, number) for number in names] for name, obeys in obeying.items()}
    asked = {name: in_one_range(points, name) for name in loud if points["measured"].get(name)}
    some = f", the {len(names)} that are obeyed least" if len(names) < len(followed) else ""
    lines, unit = -(-len(asked) // 2), summary["conditions"]["distance"]["unit"]
    return [
        Plan(
            "networks", f"Every unseen condition: {metric}",
            "A point is one network for a condition that no source has seen, the cross is their mean with its 95 % "
            f"interval, the dashed line is the oracle's mean, and {better} is better.",
            metrics, charts.networks, (metrics, sources, styles, label, best), rows_height(len(metrics)),
        ),
        Plan(
            "differences", "Against the oracle",
            "A point is a source's mean difference to the networks trained for the same conditions, the bar its 95 % "
            "interval, and the point is filled where the difference is sure among so many.",
            differences, charts.differences, (differences, styles, metric, best), rows_height(len(differences)),
        ),
        Plan(
            "near", f"Far from what was seen: {metric}",
            "A point is a source's mean over the unseen conditions at that distance from the nearest seen one: a line "
            "that falls away from the oracle's says that the source needs a neighbour.",
            len(distances) > 1, charts.by_distance, (near, styles, label, unit, loud[:3]), 4.8,
        ),
        Plan(
            "costs", f"What it costs: {metric} against seconds",
            "Further left is quicker: the time for one more network, which of the oracle is a training; a share of a "
            "regression's fit is in it, none of the engine's.",
            costs, charts.costs, (costs, styles, label, best), 4.4,
        ),
        Plan(
            "obeys", f"Does it obey, number by number{some}",
            "A row is one number of the condition: a source that obeys stands where the oracle stands, and one that "
            "ignores the condition at 0.",
            slopes, charts.slopes, (slopes, names, styles), 1.0 + max(2.2, 0.34 * len(names)),
        ),
        Plan(
            "requested", "Does it obey, network by network",
            "What a network does against what was asked of it, all numbers of all conditions together; on the dotted "
            "line it does exactly that.",
            asked, charts.obedience, (asked, styles), 0.6 + 2.4 * lines, (lines, 2),
        ),
    ]  # fmt: skip


def slope(obeys: Mapping[str, Any], number: str) -> float | None:
    """Return how a source follows a number of the condition; None where that was not measured."""
    return obeys[number]["slope"] if number in obeys else None


def least_obeyed(obeying: list[Mapping[str, Any]], names: list[str]) -> list[str]:
    """Return the numbers of a condition whose slopes can be drawn: all, or those that the sources obey least."""

    def obeyed(name: str) -> float:
        return sum(slope(obeys, name) or 0.0 for obeys in obeying)

    drawn = sorted(names, key=obeyed)[:MOST_NUMBERS]
    return [name for name in names if name in drawn]


def in_one_range(points: Mapping[str, Any], source: str) -> tuple[NDArray, NDArray]:
    """Return what was asked for and what was measured, all numbers of all conditions, 0 to 1 being a number's range."""
    pairs = []
    for name, values in points["measured"][source].items():
        requested, measured = (np.array(found, dtype=float) for found in (points["requested"][source][name], values))
        low, reach, known = requested.min(), np.ptp(requested), np.isfinite(measured)
        if reach > 0:
            pairs.append(((requested[known] - low) / reach, (measured[known] - low) / reach))
    requested, measured = zip(*pairs, strict=True)
    return np.concatenate(requested), np.concatenate(measured)
