"""The table of sources, for the terminal and as Markdown."""

from typing import Any

COLUMNS = ("source", "n", "best", "95 % interval", "mean", "std", "median", "worst", "similarity", "distance", "spread")

NARROW = ("source", "n", "best", "95 % interval", "mean", "similarity", "spread")  # for terminals under FULL_WIDTH
FULL_WIDTH = 118


def cells(name: str, row: dict[str, Any]) -> list[str]:
    """Return one source's cells."""
    interval = row["best_ci"]
    return [
        name,
        str(row["n"]),
        _number(row["best"]),
        f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "",
        *(_number(row[key]) for key in ("mean", "std", "median", "worst", "similarity")),
        *(_number(row[key], 2) for key in ("distance", "spread")),
    ]


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def caption(summary: dict[str, Any]) -> str:
    """Return what the columns mean, and the task's facts that are texts."""
    metric = summary["metric"]
    direction = "higher" if metric["higher_is_better"] else "lower"
    facts = [f"; {name}: {fact}" for name, fact in summary.get("task", {}).items() if isinstance(fact, str)]
    return (
        f"{metric['name']} on the test split, {direction} is better; best: of n, chosen on the select split; "
        "similarity: largest to a trained one; distance: to the nearest trained vector; spread: trained = 1"
        + "".join(facts)
    )


def markdown_table(summary: dict[str, Any]) -> str:
    """Return the table as Markdown, with verdict and caption."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(cells(name, row) for name, row in summary["sources"].items())]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{summary['verdict']}\n\n{table}\n\n{caption(summary)}\n"


def print_table(summary: dict[str, Any]) -> None:
    """Print the table to the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=FULL_WIDTH)
    shown = COLUMNS if console.width >= FULL_WIDTH else NARROW
    table = Table(caption=caption(summary))
    for column in shown:
        table.add_column(column, justify="left" if column == "source" else "right", no_wrap=True)
    for name, row in summary["sources"].items():
        table.add_row(*(cell for column, cell in zip(COLUMNS, cells(name, row), strict=True) if column in shown))
    console.print(table)
    console.print(summary["verdict"], highlight=False)
