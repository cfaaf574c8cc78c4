"""The figures: distribution of the metric per source, metric against similarity, training curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pdiff.storage import explain_write_errors
from pdiff.task import Metric

# Okabe and Ito's colours, which readers with any colour vision can tell apart; grey for what is beyond them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")


def draw_figures(
    folder: Path,
    metric: Metric,
    tests: Mapping[str, np.ndarray],
    similarities: Mapping[str, np.ndarray],
    history: Mapping[str, list[float]],
) -> None:
    """Write the figures as PNG files.

    Args:
        folder: where to.
        metric: name and direction.
        tests: the metric on the test split `(M,)` of each source.
        similarities: the largest similarity to a trained one `(M,)` of each source.
        history: the loss of every step, of each training.
    """
    _save(folder / "distribution.png", _distribution, metric, tests)
    _save(folder / "similarity.png", _similarity, metric, tests, similarities)
    curves = {name: losses for name, losses in history.items() if losses}
    if curves:
        _save(folder / "training.png", _training, curves)


def _save(path: Path, draw: Any, *arguments: Any) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    draw(figure.subplots(), *arguments)
    with explain_write_errors(path):
        figure.savefig(path, dpi=120)


def _colour(index: int) -> str:
    return COLOURS[min(index, len(COLOURS) - 1)]


def _distribution(axes: Any, metric: Metric, tests: Mapping[str, np.ndarray]) -> None:
    for row, (_, values) in enumerate(tests.items()):
        jitter = np.random.default_rng(row).uniform(-0.25, 0.25, len(values))
        axes.scatter(values, row + jitter, s=6, color=_colour(row), alpha=0.5, linewidths=0)
        axes.plot([values.mean()] * 2, [row - 0.38, row + 0.38], color="black", linewidth=1.5)
    axes.set_yticks(range(len(tests)), [f"{name} ({len(values)})" for name, values in tests.items()])
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric.name} on the test split (one point per candidate, line: mean)")
    axes.grid(axis="x", alpha=0.3)


def _similarity(
    axes: Any, metric: Metric, tests: Mapping[str, np.ndarray], similarities: Mapping[str, np.ndarray]
) -> None:
    for row, (name, values) in enumerate(tests.items()):
        style = {"s": 90, "marker": "*", "edgecolors": "black"} if len(values) == 1 else {"s": 12, "linewidths": 0}
        # The first sources, trained and generated, are drawn over the baselines.
        order = 3 + len(tests) - row if len(values) > 1 else 20
        axes.scatter(similarities[name], values, color=_colour(row), alpha=0.7, label=name, zorder=order, **style)
    axes.set_xlabel("largest similarity to a trained one (1: wrong on the same samples)")
    axes.set_ylabel(f"{metric.name} on the test split")
    axes.figure.legend(markerscale=1.5, loc="outside right upper")
    axes.grid(alpha=0.3)


def _training(axes: Any, curves: Mapping[str, list[float]]) -> None:
    for row, (name, losses) in enumerate(curves.items()):
        steps = np.arange(1, len(losses) + 1)
        axes.plot(steps, losses, color=_colour(row), alpha=0.25, linewidth=0.8)
        axes.plot(steps, _smoothed(np.array(losses)), color=_colour(row), linewidth=1.8, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (thin: each step, thick: running mean)")
    axes.legend()
    axes.grid(alpha=0.3)


def _smoothed(losses: np.ndarray) -> np.ndarray:
    window = max(1, len(losses) // 30)
    sums = np.cumsum(np.insert(losses, 0, 0.0))
    start = np.maximum(np.arange(1, len(losses) + 1) - window, 0)
    end = np.arange(1, len(losses) + 1)
    return (sums[end] - sums[start]) / (end - start)
