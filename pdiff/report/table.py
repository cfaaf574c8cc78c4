"""The table of sources, for the terminal, as Markdown and for the page."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pdiff.report import candidate_table, conditional_table
from pdiff.report.cells import WIDTH, Column


def kind(summary: Mapping[str, Any]) -> ModuleType:
    """Return the module that says what the table of such a run shows: subject, labels, columns, caption, remarks."""
    return conditional_table if summary.get("conditional") else candidate_table


def rows(summary: Mapping[str, Any], shown: list[Column]) -> list[list[str]]:
    """Return the cells of every source, what it is called first."""
    labels, sources = kind(summary).labels(summary), summary["sources"]
    return [[label, *(column.cell(sources[name]) for column in shown)] for name, label in labels.items()]


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with verdict and caption."""
    parts = kind(summary)
    shown = parts.columns(summary)
    titles = ["source", *(column.title for column in shown)]
    body = [titles, ["---"] * len(titles), *rows(summary, shown)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in body)
    lines = "\n".join(f"- {line}" for line in parts.remarks(summary))
    return f"{summary['verdict']}\n\n{lines}\n\n{table}\n\n{parts.caption(summary)}\n"


def console(width: int) -> Any:
    """Return rich's console; `width` is its width where no terminal says how wide it is."""
    from rich.console import Console

    out = Console()
    return out if out.is_terminal else Console(width=width)


def print_table(summary: Mapping[str, Any]) -> None:
    """Print the table to the terminal."""
    from rich.table import Table

    out, parts = console(WIDTH), kind(summary)
    shown = [column for column in parts.columns(summary) if column.least <= out.width]
    table = Table(caption=parts.caption(summary))
    table.add_column("source", no_wrap=True)
    for column in shown:
        table.add_column(column.title, justify="right", no_wrap=" " not in column.title)
    for cells in rows(summary, shown):
        table.add_row(*cells)
    out.print(table)
    for line in (summary["verdict"], *parts.remarks(summary)):
        out.print(line, highlight=False, markup=False)
