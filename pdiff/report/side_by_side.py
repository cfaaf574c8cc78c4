"""The comparison of runs as a table, as a page and as a picture."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from pdiff.report.cells import number, percent, signed
from pdiff.report.drawing import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION, Figure, draw
from pdiff.report.group_columns import (
    Table,
    added_titles,
    counted,
    mean_gain,
    mean_of,
    stacked,
    verdict_kinds,
    with_shared,
)  # fmt: skip
from pdiff.report.page import TONES, render
from pdiff.report.table import console
from pdiff.run.directory import RunDirectory
from pdiff.run.grouping import Group
from pdiff.run.stage import STAGES
from pdiff.runtime.storage import write_bytes, write_text

WIDTH = 132  # where no terminal says how wide it is
FRAME = 3  # letters around a cell
TITLES = (
    "run", "metric", "trained", "generated", "over trained", "95 %", "verdict", "strongest", "over it", "similarity",
    "seconds",
)  # fmt: skip
WORDS = (0, 1, 6, 7)  # columns that hold words
# Columns that stand below one another in a terminal where others are added.
STACKED = ((0, 1), (2, 3), (4, 5), (7, 8), (9, 10), (6,))
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


def mean_figure(group: Group, source: str, figure: str) -> float | None:
    """Return the mean over a group's runs of a source's figure; None where one of them has none."""
    return mean_of([run.summary["sources"].get(source, {}).get(figure) for run in group.runs])


def cells(group: Group) -> list[str]:
    """Return one group's row."""
    runs, metric = group.runs, group.runs[0].summary["metric"]
    gain, hardest = mean_gain([run.gain for run in runs]), mean_gain([run.hardest for run in runs])
    return [
        group.name,
        f"{metric['name']} {'↑' if metric['higher_is_better'] else '↓'}",
        number(mean_figure(group, "trained", "mean")),
        number(mean_figure(group, "generated", "mean")),
        gain_text(gain.value),
        ends_text(gain.ends),
        counted([run.summary["verdict_kind"] for run in runs]),
        hardest.source if hardest else "",
        gain_text(hardest.value) if hardest else "",
        number(mean_figure(group, "generated", "similarity")),
        f"{mean_of([run.seconds for run in runs]):.0f}",
    ]


def table(groups: Sequence[Group]) -> Table:
    """Return the table with a row per group."""
    return with_shared(groups, Table(list(TITLES), list(WORDS), [cells(group) for group in groups], CAPTION))


def for_terminal(groups: Sequence[Group]) -> Table:
    """Return the table as a terminal has room for it."""
    added = len(added_titles(groups))
    return stacked(table(groups), STACKED, added) if added else table(groups)


def print_comparison(groups: Sequence[Group]) -> None:
    """Print a row per group, and each run's verdict."""
    lines = [f"{run.name}: {run.summary['verdict']}" for group in groups for run in group.runs]
    print_rows(*for_terminal(groups), lines, whole=bool(added_titles(groups)))


def print_rows(
    titles: Sequence[str],
    words: Sequence[int],
    rows: Iterable[Sequence[str]],
    caption: str,
    lines: Sequence[str],
    whole: bool = False,
) -> None:
    """Print a table, columns that hold words at the left, and lines below it.

    Where a terminal has no room for all columns, several tables follow one another, each with the first column.

    Args:
        titles, words, rows, caption: as those of `Table`.
        lines: what stands below.
        whole: whether no line is to be broken, where not all fits.
    """
    from rich.table import Table as Printed
    from rich.text import Text

    out, rows = console(WIDTH), list(rows)
    parts = parts_that_fit(titles, rows, out.width, whole)
    for part in parts:
        printed = Printed(caption=Text(caption) if part is parts[-1] else None)  # as it stands: brackets are no markup
        for place in part:
            printed.add_column(Text(titles[place]), justify="left" if place in words else "right", overflow="fold")
        for row in rows:
            printed.add_row(*(Text(row[place]) for place in part))
        out.print(printed)
    for line in lines:
        out.print(line, highlight=False, markup=False)


def parts_that_fit(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int, whole: bool) -> list[list[int]]:
    """Return the places of columns table by table, the first in each, so that all fit into a width as far as can be.

    Args:
        titles, rows: of the table.
        width: of the terminal.
        whole: whether no line is to be broken; else they may be, between words, if that makes one table of it.
    """
    columns = [[title, *cells] for title, *cells in zip(titles, *rows, strict=True)]
    if not whole and 1 + sum(longest(cells, str.split) + FRAME for cells in columns) <= width:
        return [list(range(len(columns)))]
    needed = [longest(cells, str.splitlines) + FRAME for cells in columns]
    parts: list[list[int]] = [[0]]
    for place in range(1, len(columns)):
        if len(parts[-1]) > 1 and 1 + sum(needed[column] for column in (*parts[-1], place)) > width:
            parts.append([0])
        parts[-1].append(place)
    return parts


def longest(cells: Sequence[str], split: Callable[[str], list[str]]) -> int:
    """Return the length of the longest part of a column's cells."""
    return max((len(part) for cell in cells for part in split(cell)), default=0)


def write_comparison(groups: Sequence[Group], output: Path) -> Path:
    """Write the page `output` and a picture of the same figures beside it, and return the picture's path."""
    height, picture = 1.1 + 0.4 * len(groups), output.with_suffix(".png")
    write_bytes(picture, draw(draw_side_by_side, groups, height=0.4 + height, width=13.0, panels=(1, 3)))
    figures = [Figure(title, caption, draw(function, groups, height=height)) for function, title, caption in FIGURES]
    write_page(groups, output, table(groups), figures, TONES, dense=bool(added_titles(groups)))
    return picture


def write_page(
    groups: Sequence[Group],
    output: Path,
    table: Table,
    figures: Sequence[Figure],
    tones: Mapping[str, str],
    notes: Mapping[str, Sequence[str]] | None = None,
    dense: bool = False,
) -> None:
    """Write the page of a comparison.

    Args:
        groups: in their order.
        output: the file.
        table: with a row per group.
        figures: in their order.
        tones: of the kinds of verdicts.
        notes: what weakens a run's figures, by its name.
        dense: whether the table is too wide for its usual letters.
    """
    page = render(
        "comparison.html",
        groups=groups,
        count=sum(len(group.runs) for group in groups),
        kinds={group.name: verdict_kinds(group) for group in groups},
        table=table,
        tones=tones,
        notes=notes or {},
        dense=dense,
        links=links([run for group in groups for run in group.runs], output.parent),
        figures=figures,
    )
    write_text(output, page)


def links(runs: Sequence[Any], folder: Path) -> dict[str, str | None]:
    """Return the way from `folder` to each run's own page, by the run's name; None where it has none."""
    return {run.name: link(run.path, folder) for run in runs}


def link(path: Path, folder: Path) -> str | None:
    """Return the way from `folder` to the page of a run's directory; None when it has none."""
    page = RunDirectory(path).folder("compare") / "report.html"
    return quote(Path(os.path.relpath(page, folder.resolve())).as_posix()) if page.is_file() else None


def draw_gains(axes: Any, groups: Sequence[Group]) -> None:
    """Draw what generated gain over trained and over the strongest baseline."""
    hardest = [mean_gain([run.hardest for run in group.runs]) for group in groups]
    pairs = [(-0.13, VERMILION, "over trained", [mean_gain([run.gain for run in group.runs]) for group in groups])]
    pairs += [(0.13, GREY, "over the strongest baseline", hardest)]
    for shift, colour, label, gains in pairs:
        known = [(row + shift, gain) for row, gain in enumerate(gains) if gain]
        for place, gain in known:
            if gain.ends:
                axes.plot([100 * end for end in gain.ends], [place, place], color=colour, linewidth=2)
        values, places = [100 * gain.value for _, gain in known], [place for place, _ in known]
        axes.plot(values, places, "o", color=colour, label=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    finish(axes, groups, "relative gain of generated, %")


def draw_similarities(axes: Any, groups: Sequence[Group]) -> None:
    """Draw how much each source resembles the trained ones."""
    marks = {"baselines": (GREY, 4), "trained": (BLUE, 7), "generated": (VERMILION, 7)}
    for row, group in enumerate(groups):
        for name in group.runs[0].summary["sources"]:
            colour, size = marks.get(name, marks["baselines"])
            similarity = mean_figure(group, name, "similarity")
            if similarity is not None:
                axes.plot(similarity, row, "o", color=colour, markersize=size, zorder=size)
    for name, (colour, size) in marks.items():
        axes.plot([], [], "o", color=colour, markersize=size, label=name)
    finish(axes, groups, "largest similarity to a fitted checkpoint")


def draw_costs(axes: Any, groups: Sequence[Group]) -> None:
    """Draw the seconds of every stage."""
    left = np.zeros(len(groups))
    for colour, stage in zip(cycle(STAGE_COLOURS), STAGES, strict=False):
        seconds = np.array(
            [np.mean([run.summary["seconds"].get(stage, 0.0) for run in group.runs]) for group in groups]
        )
        axes.barh(range(len(groups)), seconds, left=left, height=0.55, color=colour, label=stage)
        left += seconds
    finish(axes, groups, "seconds")


def finish(axes: Any, groups: Sequence[Group], label: str) -> None:
    """Give axes with a row per group their labels."""
    axes.set_yticks(range(len(groups)), [group.name for group in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.grid(axis="x")
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 5, "borderaxespad": 0}
    axes.legend(**above, columnspacing=0.8, handletextpad=0.3, handlelength=1)


def draw_side_by_side(panels: Sequence[Any], groups: Sequence[Group]) -> None:
    """Draw all three beside each other, the groups' names at the left alone."""
    for axes, (function, _, _) in zip(panels, FIGURES, strict=True):
        function(axes, groups)
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
