"""The figures of a report: how good, how new, and where it went well or wrong."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdiff.report import charts
from pdiff.report.drawing import Figure, draw
from pdiff.report.evidence import Evidence

MOST_TENSORS = 12  # bars that can be read in one figure
MOST_COORDINATES = 6


def draw_figures(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> list[Figure]:
    """Write the figures as PNG files and return them in the order in which they are read.

    Args:
        folder: where to.
        summary: of the run, as in `summary.json`.
        evidence: the arrays; a figure whose arrays are missing is left out.
    """
    figures = (function(folder, summary, evidence) for function in FIGURES)
    return [figure for figure in figures if figure]


def rows_height(rows: int) -> float:
    """Return the height in inches of a figure with so many rows."""
    return max(2.2, 1.0 + 0.28 * rows)


def metric_label(summary: Mapping[str, Any]) -> str:
    """Return what an axis with the metric is called."""
    return f"{summary['metric']['name']} on the test split"


def distribution(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> Figure:
    """Show the metric of every candidate."""
    better = "right" if summary["metric"]["higher_is_better"] else "left"
    caption = (
        "One point is one candidate, the line is a source's mean, the diamond is the candidate that the select split "
        f"chose, and {better} is better."
    )
    best = {name: row["best_index"] for name, row in summary["sources"].items()}
    arguments = (evidence.tests, charts.source_styles(summary["sources"]), metric_label(summary), best)
    title, height = f"Every candidate: {summary['metric']['name']}", rows_height(len(evidence.tests))
    return draw(folder, "distribution", title, caption, charts.strips, *arguments, height=height)


def differences(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> Figure | None:
    """Show the difference of generated to every other source."""
    known = {name: figures for name, figures in summary["comparisons"].items() if figures["difference"] is not None}
    if not known:
        return None
    caption = (
        "A point right of the line says that the generated are better on average; its bar is the 95 % interval, it is "
        "filled where p < 0.05 after correction, and the figure at the right is the probability that a generated "
        "candidate beats one of the source."
    )
    styles = charts.source_styles(summary["sources"])
    arguments = (known, styles, summary["metric"]["name"])
    title, height = "Generated against each other source", rows_height(len(known))
    return draw(folder, "differences", title, caption, charts.differences, *arguments, height=height)


def similarity(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> Figure | None:
    """Show metric against similarity with the front of the baselines."""
    if not evidence.similarities:
        return None
    metric = summary["metric"]
    turned = "" if metric["higher_is_better"] else " (the axis is turned round)"
    caption = (
        f"Further up{turned} is better and further left is newer; what lies above the stepped line beats every "
        "baseline that is as new."
    )
    styles = charts.source_styles(summary["sources"])
    arguments = (evidence, styles, metric_label(summary), metric["higher_is_better"])
    title = f"Novelty: {metric['name']} against similarity"
    return draw(folder, "similarity", title, caption, charts.novelty, *arguments, height=4.8)


def distance(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> Figure | None:
    """Show the distance of every candidate to the nearest trained vector."""
    if not evidence.distances:
        return None
    caption = (
        "One point is one candidate, and further right is further from every trained vector; a source left of the "
        "trained one is nearer to the trained vectors than they are to each other."
    )
    styles, label = charts.source_styles(summary["sources"]), "Euclidean distance to the nearest trained vector"
    arguments = (evidence.distances, styles, label, {}, True)
    title, height = "Distance to the trained", rows_height(len(evidence.distances))
    return draw(folder, "distance", title, caption, charts.strips, *arguments, height=height)


def projection(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> Figure | None:
    """Show vectors and latents on two axes."""
    planes = {"vectors": evidence.vectors, "latents": evidence.latents}
    planes = {name: plane for name, plane in planes.items() if plane}
    if not planes:
        return None
    caption = (
        "On the two axes along which the trained ones differ most, generated points should lie among the trained ones "
        "without sitting on them."
    )
    arguments, panels = (planes, charts.source_styles(summary["sources"])), (1, len(planes))
    title = "Where the candidates lie"
    return draw(folder, "projection", title, caption, charts.projection, *arguments, height=3.9, panels=panels)


def coordinates(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> Figure | None:
    """Show the distribution of a few parameters."""
    shown = dict(list(evidence.coordinates.items())[:MOST_COORDINATES])
    if not shown:
        return None
    caption = (
        "One panel is one parameter over a source's candidates: copies follow the trained ones in every panel, "
        "averages are a spike."
    )
    arguments, lines = (shown, charts.source_styles(summary["sources"])), -(-len(shown) // 2)
    given = {"height": 0.7 + 1.4 * lines, "panels": (lines, 2)}
    return draw(folder, "coordinates", "Single parameters", caption, charts.densities, *arguments, **given)


def path(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> Figure | None:
    """Show the metric along the reverse diffusion."""
    if evidence.path is None:
        return None
    caption = (
        "A thin line is one sample, decoded on its way from noise; the thick line is the samples' mean and the dashed "
        "line that of the trained."
    )
    trained = summary["sources"]["trained"]["mean"] if "trained" in summary["sources"] else None
    arguments = (evidence.path_steps, evidence.path, trained, metric_label(summary))
    title = f"Reverse diffusion: {summary['metric']['name']} on the way"
    return draw(folder, "path", title, caption, charts.path, *arguments)


def codec(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> Figure | None:
    """Show what the codec loses of each tensor."""
    if not evidence.codec_errors:
        return None
    caption = (
        "A bar is the share of the held-out checkpoints' variation that is gone after encoding and decoding: 0 is "
        "lossless, 1 no better than the checkpoints' mean."
    )
    worst = sorted(evidence.codec_errors.items(), key=lambda pair: -pair[1])[:MOST_TENSORS]
    arguments, height = (worst, len(evidence.codec_errors)), rows_height(len(worst))
    return draw(folder, "codec", "What the codec loses", caption, charts.bars, *arguments, height=height)


def choice(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> Figure | None:
    """Show the metric on the test split against that on the training data."""
    if not evidence.trains:
        return None
    caption = (
        "The closer the points are to a rising line, the better the training data tell which candidate does well on "
        "the test split."
    )
    styles, metric = charts.source_styles(summary["sources"]), summary["metric"]["name"]
    arguments = (evidence.trains, evidence.tests, styles, metric)
    return draw(folder, "choice", "Choosing by the training data", caption, charts.choice, *arguments, height=4.4)


def training(folder: Path, summary: Mapping[str, Any], evidence: Evidence) -> Figure | None:
    """Show the losses of the engine's trainings."""
    curves = {name: losses for name, losses in evidence.losses.items() if losses}
    if not curves:
        return None
    caption = (
        "Thin is the loss of every step, thick its running mean; a curve that still falls at its end wants more steps."
    )
    return draw(folder, "training", "Loss of the trainings", caption, charts.training, curves)


FIGURES = (
    distribution, differences, similarity, distance, coordinates, projection, path, codec, choice, training
)  # fmt: skip
