"""The comparison of runs as a table, as a page and as a picture."""

import os
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from pdiff.report.cells import number, percent, signed
from pdiff.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION, Figure, draw
from pdiff.report.page import TONES, render
from pdiff.report.table import console
from pdiff.run.comparison import Compared
from pdiff.run.directory import RunDirectory
from pdiff.run.stage import STAGES
from pdiff.runtime.storage import write_bytes, write_text

WIDTH = 132  # where no terminal says how wide it is
TITLES = (
    "run", "metric", "trained", "generated", "over trained", "95 %", "verdict", "strongest", "over it", "similarity",
    "seconds",
)  # fmt: skip
WORDS = (0, 1, 6, 7)  # columns that hold words
STAGE_COLOURS = (BLUE, ORANGE, GREEN, SKY, PURPLE)
CAPTION = (
    "Gains of generated over trained, and over the baseline that is strongest on select, relative to the mean of "
    "trained; above 0 where generated are better. Similarity: largest to a fitted checkpoint, mean over generated."
)


def gain_text(value: float) -> str:
    """Return a gain's text."""
    return signed(percent(value, 2))


def ends_text(ends: tuple[float, float] | None) -> str:
    """Return the text of a gain's interval; nothing for one that does not exist."""
    return f"{signed(number(100 * ends[0], 2))} to {gain_text(ends[1])}" if ends else ""


def cells(run: Compared) -> list[str]:
    """Return one run's row."""
    metric, sources = run.summary["metric"], run.summary["sources"]
    return [
        run.name,
        f"{metric['name']} {'↑' if metric['higher_is_better'] else '↓'}",
        number(sources["trained"]["mean"]),
        number(sources["generated"]["mean"]),
        gain_text(run.gain.value),
        ends_text(run.gain.ends),
        run.summary["verdict_kind"],
        run.hardest.source if run.hardest else "",
        gain_text(run.hardest.value) if run.hardest else "",
        number(sources["generated"]["similarity"]),
        f"{run.seconds:.0f}",
    ]


def print_comparison(runs: Sequence[Compared]) -> None:
    """Print a row per run, and each run's verdict."""
    print_rows(TITLES, WORDS, map(cells, runs), CAPTION, [f"{run.name}: {run.summary['verdict']}" for run in runs])


def print_rows(
    titles: Sequence[str], words: Sequence[int], rows: Iterable[Sequence[str]], caption: str, lines: Sequence[str]
) -> None:
    """Print a table, columns that hold words at the left, and lines below it."""
    from rich.table import Table

    out = console(WIDTH)
    table = Table(caption=caption)
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if place in words else "right")
    for row in rows:
        table.add_row(*row)
    out.print(table)
    for line in lines:
        out.print(line, highlight=False)


def write_comparison(runs: Sequence[Compared], output: Path) -> Path:
    """Write the page `output` and a picture of the same figures beside it, and return the picture's path."""
    height, picture = 1.1 + 0.4 * len(runs), output.with_suffix(".png")
    write_bytes(picture, draw(draw_side_by_side, runs, height=0.4 + height, width=13.0, panels=(1, 3)))
    figures = [Figure(title, caption, draw(function, runs, height=height)) for function, title, caption in FIGURES]
    page = render(
        "comparison.html",
        runs=runs,
        rows=[cells(run) for run in runs],
        titles=TITLES,
        words=WORDS,
        caption=CAPTION,
        tones=TONES,
        notes={},
        dense=False,
        links=links(runs, output.parent),
        figures=figures,
    )
    write_text(output, page)
    return picture


def links(runs: Sequence[Any], folder: Path) -> dict[str, str | None]:
    """Return the way from `folder` to each run's own page, by the run's name; None where it has none."""
    return {run.name: link(run.path, folder) for run in runs}


def link(path: Path, folder: Path) -> str | None:
    """Return the way from `folder` to the page of a run's directory; None when it has none."""
    page = RunDirectory(path).folder("compare") / "report.html"
    return quote(Path(os.path.relpath(page, folder.resolve())).as_posix()) if page.is_file() else None


def draw_gains(axes: Any, runs: Sequence[Compared]) -> None:
    """Draw what generated gain over trained and over the strongest baseline."""
    pairs = [(-0.13, VERMILION, "over trained", [run.gain for run in runs])]
    pairs += [(0.13, GREY, "over the strongest baseline", [run.hardest for run in runs])]
    for shift, colour, label, gains in pairs:
        known = [(row + shift, gain) for row, gain in enumerate(gains) if gain]
        for place, gain in known:
            if gain.ends:
                axes.plot([100 * end for end in gain.ends], [place, place], color=colour, linewidth=2)
        values, places = [100 * gain.value for _, gain in known], [place for place, _ in known]
        axes.plot(values, places, "o", color=colour, label=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    finish(axes, runs, "relative gain of generated, %")


def draw_similarities(axes: Any, runs: Sequence[Compared]) -> None:
    """Draw how much each source resembles the trained ones."""
    marks = {"baselines": (GREY, 4), "trained": (BLUE, 7), "generated": (VERMILION, 7)}
    for row, run in enumerate(runs):
        for name, figures in run.summary["sources"].items():
            colour, size = marks.get(name, marks["baselines"])
            if figures["similarity"] is not None:
                axes.plot(figures["similarity"], row, "o", color=colour, markersize=size, zorder=size)
    for name, (colour, size) in marks.items():
        axes.plot([], [], "o", color=colour, markersize=size, label=name)
    finish(axes, runs, "largest similarity to a fitted checkpoint")


def draw_costs(axes: Any, runs: Sequence[Compared]) -> None:
    """Draw the seconds of every stage."""
    left = np.zeros(len(runs))
    for colour, stage in zip(cycle(STAGE_COLOURS), STAGES, strict=False):
        seconds = np.array([run.summary["seconds"].get(stage, 0.0) for run in runs])
        axes.barh(range(len(runs)), seconds, left=left, height=0.55, color=colour, label=stage)
        left += seconds
    finish(axes, runs, "seconds")


def finish(axes: Any, runs: Sequence[Compared], label: str) -> None:
    """Give axes with a row per run their labels."""
    axes.set_yticks(range(len(runs)), [run.name for run in runs])
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.grid(axis="x")
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 5, "borderaxespad": 0}
    axes.legend(**above, columnspacing=0.8, handletextpad=0.3, handlelength=1)


def draw_side_by_side(panels: Sequence[Any], runs: Sequence[Compared]) -> None:
    """Draw all three beside each other, the runs' names at the left alone."""
    for axes, (function, _, _) in zip(panels, FIGURES, strict=True):
        function(axes, runs)
    for axes in panels[1:]:
        axes.set_yticklabels([])


FIGURES = (
    (
        draw_gains, "What generated parameters gain",
        "Right of the line generated are better on average than the trained ones, or than the baseline that is best in "
        "its run, in per cent of the trained ones' mean; a bar is the 95 % interval.",
    ),
    (
        draw_similarities, "How new they are",
        "Further left is newer: generated should lie left of the trained ones, and of the baselines that are as good.",
    ),
    (
        draw_costs, "What they cost",
        "A bar is the time of one run, stage by stage.",
    ),
)  # fmt: skip
