"""The figures of a report: how good, how new, and where it went well or wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdiff.analysis.novel import GRID
from pdiff.report import charts
from pdiff.report.drawing import Figure, draw
from pdiff.report.evidence import Evidence
from pdiff.runtime.storage import write_bytes

MOST_TENSORS = 12  # bars that can be read in one figure
MOST_COORDINATES = 6


@dataclass(frozen=True)
class Plan:
    """What a figure shows, and how.

    Attributes:
        name: of its PNG file.
        title, caption: of the figure; the caption is one sentence that says how to read it.
        shown: what it shows; where that is empty, the figure is left out.
        chart: draws it.
        arguments: what the chart gets after the axes.
        height: in inches.
        panels: rows and columns.
    """

    name: str
    title: str
    caption: str
    shown: Any
    chart: Callable[..., None]
    arguments: tuple[Any, ...]
    height: float = 4.0
    panels: tuple[int, int] = (1, 1)


def rows_height(rows: int) -> float:
    """Return the height in inches of a figure with so many rows."""
    return max(2.2, 1.0 + 0.28 * rows)


def draw_plans(folder: Path, plans: Sequence[Plan]) -> list[Figure]:
    """Write the figures that show something as PNG files into `folder`, and return them in their order."""
    figures = []
    for plan in plans:
        if plan.shown:
            png = draw(plan.chart, *plan.arguments, height=plan.height, panels=plan.panels)
            write_bytes(folder / f"{plan.name}.png", png)
            figures.append(Figure(plan.title, plan.caption, png))
    return figures


def plans(summary: Mapping[str, Any], evidence: Evidence) -> list[Plan]:
    """Return the table of all figures, in the order in which they are read."""
    metric, higher = summary["metric"]["name"], summary["metric"]["higher_is_better"]
    better, turned = ("right", "") if higher else ("left", " (the axis is turned round)")
    sources, label, far = summary["sources"], f"{metric} on the test split", "distance to the nearest trained vector"
    styles, best = charts.source_styles(sources), {name: row["best_index"] for name, row in sources.items()}
    trained = sources["trained"]["mean"] if "trained" in sources else None
    known = {name: found for name, found in summary["comparisons"].items() if found["difference"] is not None}
    few, errors = dict(list(evidence.coordinates.items())[:MOST_COORDINATES]), evidence.codec_errors
    planes = {name: plane for name, plane in (("vectors", evidence.vectors), ("latents", evidence.latents)) if plane}
    worst = sorted(errors.items(), key=lambda pair: -pair[1])[:MOST_TENSORS]
    curves, lines = {name: losses for name, losses in evidence.losses.items() if losses}, -(-len(few) // 2)
    return [
        Plan(
            "distribution", f"Every candidate: {metric}",
            "One point is one candidate, the line is a source's mean, the diamond is the candidate that the select "
            f"split chose, and {better} is better.",
            evidence.tests, charts.strips, (evidence.tests, styles, label, best), rows_height(len(evidence.tests)),
        ),
        Plan(
            "differences", "Generated against each other source",
            "A point right of the line says that the generated are better on average; thick is its 95 % interval "
            "alone, thin that of all comparisons at once, which decides and fills the point; dotted is the margin of "
            "as good, and the figure at the right is the probability that a generated candidate beats one of the "
            "source.",
            known, charts.differences, (known, styles, metric, summary["margin"]), rows_height(len(known)),
        ),
        Plan(
            "similarity", f"Novelty: {metric} against similarity",
            f"Further up{turned} is better and further left is newer; what lies above the stepped line beats every "
            "baseline that is as new.",
            evidence.similarities, charts.novelty, (evidence, styles, label, higher), 4.8,
        ),
        Plan(
            "novel", "New and good at once",
            "A line is the share of a source's candidates that are as good as the trained, less the margin, and keep "
            "at least so much from every trained network, in units of how far these are from each other; further up "
            "and right is better.",
            evidence.novel, charts.new_and_good, (GRID, evidence.novel, styles), 4.4,
        ),
        Plan(
            "distance", "Distance to the trained",
            "One point is one candidate, and further right is further from every trained vector; a source left of the "
            "trained one is nearer to the trained vectors than they are to each other.",
            evidence.distances, charts.strips, (evidence.distances, styles, f"Euclidean {far}", {}, True),
            rows_height(len(evidence.distances)),
        ),
        Plan(
            "coordinates", "Single parameters",
            "One panel is one parameter over a source's candidates: copies follow the trained ones in every panel, "
            "averages are a spike.",
            few, charts.densities, (few, styles), 0.7 + 1.4 * lines, (lines, 2),
        ),
        Plan(
            "projection", "Where the candidates lie",
            "On the two axes along which the trained ones differ most, generated points should lie among the trained "
            "ones without sitting on them.",
            planes, charts.projection, (planes, styles), 3.9, (1, len(planes)),
        ),
        Plan(
            "path", f"From noise to networks: {metric} on the way",
            "A thin line is one sample, decoded on its way from noise; the thick line is the samples' mean and the "
            "dashed line that of the trained.",
            evidence.path is not None, charts.path, (evidence.path_steps, evidence.path, trained, label),
        ),
        Plan(
            "codec", "What the codec loses",
            "A bar is the share of the held-out checkpoints' variation that is gone after encoding and decoding: 0 is "
            "lossless, 1 no better than the checkpoints' mean.",
            worst, charts.bars, (worst, len(errors)), rows_height(len(worst)),
        ),
        Plan(
            "choice", "Choosing by the training data",
            "The closer the points are to a rising line, the better the training data tell which candidate does well "
            "on the test split.",
            evidence.trains, charts.choice, (evidence.trains, evidence.tests, styles, metric), 4.4,
        ),
        Plan(
            "training", "Loss of the trainings",
            "Thin is the loss of every step, thick its running mean; a curve that still falls at its end wants more "
            "steps; dots are looks at what the generator's training leaves out, the lowest of which is kept.",
            curves, charts.training, (curves,),
        ),
    ]  # fmt: skip


def draw_figures(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> list[Figure]:
    """Write the figures as PNG files and return them in the order in which they are read.

    Args:
        folder: where to.
        summary: of the run, as in `summary.json`.
        evidence: the arrays; a figure whose arrays are missing is left out.
    """
    return draw_plans(folder, plans(summary, evidence))
