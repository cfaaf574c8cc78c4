"""The table of sources, for the terminal, as Markdown and for the page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

WIDTH = 118  # where no terminal says how wide it is

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of the table of sources.

    Attributes:
        title: its head.
        least: the narrowest terminal that shows it, in characters.
        cell: from a source's figures to its text.
    """

    title: str
    least: int
    cell: Callable[[Row], str]


def number(value: float | None, digits: int = 4) -> str:
    """Return a figure's text; nothing for one that does not exist."""
    return "" if value is None else f"{value:.{digits}f}"


def short(value: float | None) -> str:
    """Return a figure's text to three digits; nothing for one that does not exist."""
    return "" if value is None else f"{value:.3g}"


def percent(value: float | None, digits: int = 0) -> str:
    """Return a share's text; nothing for one that does not exist."""
    return "" if value is None else f"{100 * value:.{digits}f} %"


def signed(text: str) -> str:
    """Return a figure's text with its sign."""
    return text if text.startswith("-") or not text else f"+{text}"


def interval(ends: tuple[float, float] | None) -> str:
    """Return the text of an interval; nothing for one that does not exist."""
    return f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""


def columns(summary: Mapping[str, Any]) -> list[Column]:
    """Return the columns behind the source's name; that of the dead only where a candidate is dead."""
    dead = [Column("dead", 75, lambda row: str(row["dead"]))]
    return [
        Column("n", 75, lambda row: str(row["n"])),
        Column("worth", WIDTH, lambda row: number(row["effective_n"], 0)),
        *(dead if any(row["dead"] for row in summary["sources"].values()) else []),
        Column("best", 0, lambda row: number(row["best"])),
        Column("best, 95 %", 160, lambda row: interval(row["best_ci"])),
        Column(f"best of {summary['budget']}", 75, lambda row: number(row["best_of"])),
        Column("mean", 0, lambda row: number(row["mean"])),
        Column("mean, 95 %", WIDTH, lambda row: interval(row["mean_ci"])),
        Column("std", 160, lambda row: number(row["std"])),
        Column("median", 160, lambda row: number(row["median"])),
        Column("worst", 160, lambda row: number(row["worst"])),
        Column("similarity", 0, lambda row: number(row["similarity"])),
        Column("distance", 100, lambda row: number(row["distance"], 2)),
        Column("spread", 100, lambda row: number(row["spread"], 2)),
    ]


def rows(summary: Mapping[str, Any], shown: list[Column]) -> list[list[str]]:
    """Return the cells of every source, its name first."""
    return [[name, *(column.cell(row) for column in shown)] for name, row in summary["sources"].items()]


def caption(summary: Mapping[str, Any]) -> str:
    """Return what the columns mean, and the task's facts that are texts."""
    metric = summary["metric"]
    direction = "higher" if metric["higher_is_better"] else "lower"
    facts = [f"; {name}: {fact}" for name, fact in summary.get("task", {}).items() if isinstance(fact, str)]
    return (
        f"{metric['name']} on the test split, {direction} is better; worth: so many independent candidates; "
        "best: of n, chosen on the select split; "
        f"best of {summary['budget']}: what choosing among so many gives, in expectation; "
        "similarity: largest to a fitted checkpoint, of the trained to one of another branch; "
        "distance: to the nearest trained vector; spread: trained = 1"
        + "".join(facts)
    )


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return what stands below the verdict: baselines, copying, what is new, what could not be tested; a line each."""
    good = f"but for that {summary['quality']}" if summary["quality"] else None
    copying = summary["copying"]["line"] if summary["copying"]["power"] and not summary["copying"]["copies"] else None
    found = [good, summary["baselines"], copying, summary["novelty"]["line"]]
    lines = [*found, *(f"note: {note}" for note in summary["notes"])]
    return [line for line in lines if line]


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with verdict and caption."""
    shown = columns(summary)
    titles = ["source", *(column.title for column in shown)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in [titles, ["---"] * len(titles), *rows(summary, shown)])
    lines = "\n".join(f"- {line}" for line in remarks(summary))
    return f"{summary['verdict']}\n\n{lines}\n\n{table}\n\n{caption(summary)}\n"


def console(width: int) -> Any:
    """Return rich's console; `width` is its width where no terminal says how wide it is."""
    from rich.console import Console

    out = Console()
    return out if out.is_terminal else Console(width=width)


def print_table(summary: Mapping[str, Any]) -> None:
    """Print the table to the terminal."""
    from rich.table import Table

    out = console(WIDTH)
    shown = [column for column in columns(summary) if column.least <= out.width]
    table = Table(caption=caption(summary))
    table.add_column("source", no_wrap=True)
    for column in shown:
        table.add_column(column.title, justify="right", no_wrap=" " not in column.title)
    for cells in rows(summary, shown):
        table.add_row(*cells)
    out.print(table)
    for line in (summary["verdict"], *remarks(summary)):
        out.print(line, highlight=False, markup=False)
