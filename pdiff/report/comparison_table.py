"""The table of a comparison, with conditions or without, as text for whoever prints or writes it."""

from collections.abc import Sequence
from types import ModuleType

from pdiff.report import side_by_side, side_by_side_conditions
from pdiff.report.group_columns import Table
from pdiff.run.grouping import Group


def kind(groups: Sequence[Group]) -> ModuleType:
    """Return the module that compares such runs: `table`, `print_comparison`, `write_comparison`."""
    return side_by_side_conditions if groups[0].runs[0].summary.get("conditional") else side_by_side


def table(groups: Sequence[Group]) -> Table:
    """Return the table with a row per group."""
    return kind(groups).table(groups)


def markdown_rows(table: Table) -> str:
    """Return a table as Markdown, its caption below it."""
    dashes = ["---" if place in table.words else "---:" for place in range(len(table.titles))]
    lines = [[cell.replace("|", "\\|") for cell in row] for row in (table.titles, dashes, *table.rows)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{body}\n\n{table.caption}\n"
