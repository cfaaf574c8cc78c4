"""What the table of a run over conditions shows: a row per source, its networks for conditions that nobody trained."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from pdiff.report.cells import WIDTH, Column, Row, interval, number, short, signed

ORACLE = "oracle"
BEST = "★"  # stands behind the name of the source that is best on the select conditions
QUICK = 0.001  # seconds; less is told as less


def ordered(summary: Mapping[str, Any]) -> list[str]:
    """Return the names of the sources: the oracle, then from best to worst, those without a living network last."""
    sources, sign = summary["sources"], -1 if summary["metric"]["higher_is_better"] else 1

    def place(name: str) -> tuple[bool, bool, float]:
        mean = sources[name]["mean"]
        return name != ORACLE, mean is None, 0.0 if mean is None else sign * mean

    return sorted(sources, key=place)


def subject(summary: Mapping[str, Any]) -> str | None:
    """Return the source that is best on the select conditions; None where nothing could be chosen."""
    return summary["best_source"]


def labels(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return what each source is called in its row, in the order of the rows."""
    return {name: f"{name} {BEST}" if name == subject(summary) else name for name in ordered(summary)}


def obeys(row: Row) -> float | None:
    """Return the mean slope of what was measured against what was asked for; None where nothing was measured."""
    slopes = [figures["slope"] for figures in row["obeys"].values() if figures["slope"] is not None]
    return fmean(slopes) if slopes else None


def seconds(value: float | None) -> str:
    """Return the text of a time; nothing for one that does not exist."""
    return f"< {QUICK:g}" if value is not None and value < QUICK else short(value)


def columns(summary: Mapping[str, Any]) -> list[Column]:
    """Return the columns behind the source's name, without those that would be empty; the dead only where any are."""
    unit = "groups of conditions" if grouped(summary) else "conditions"
    found = [
        Column(
            "n / groups" if grouped(summary) else "n", 100,
            lambda row: f"{row['n']} / {row['units']}" if grouped(summary) else str(row["n"]),
            "networks" + (" in so many groups of conditions, each of which counts once" if grouped(summary) else ""),
        ),
        Column("dead", 80, lambda row: str(row["dead"]), "networks hardly better than chance, or without a metric"),
        Column("mean", 0, lambda row: number(row["mean"]), "over unseen conditions, on the data split test"),
        Column("mean, 95 %", 100, lambda row: interval(row["ci"]), f"its interval over {unit}"),
        Column(
            "to oracle", 0, lambda row: signed(number(row["to_oracle"] and row["to_oracle"]["difference"])),
            "difference to the networks trained for the same conditions, above 0 where better",
        ),
        Column(
            "to oracle, 95 %", 145, lambda row: interval(row["to_oracle"] and row["to_oracle"]["ci"]), "its interval",
        ),
        Column("select", 75, lambda row: number(row["select"]), "mean over select conditions, which alone choose"),
        Column("worst", 145, lambda row: number(row["worst"]), "of all unseen conditions"),
        Column(
            "obeys", 75, lambda row: number(obeys(row), 2),
            "slope of what was measured against what was asked for: 0 ignores the condition",
        ),
        Column(
            "agreement", WIDTH, lambda row: number(row["agreement"], 2),
            "how much it gets wrong what the oracle of the same condition gets wrong",
        ),
        Column("distance", 145, lambda row: number(row["distance"], 2), "to the nearest seen vector"),
        Column("spread", 145, lambda row: number(row["spread"], 2), "of the vectors over conditions, oracle = 1"),
        Column(
            "dispersion", 160, lambda row: number(row["dispersion"], 2),
            "of draws for one condition, where the oracles over conditions are 1",
        ),
        Column(
            "seconds", 0, lambda row: seconds(row["seconds"]),
            "for one more network: a share of a regression's fit is in it, none of the engine's",
        ),
    ]  # fmt: skip
    alive = all(row["dead"] == 0 for row in summary["sources"].values())
    return [column for column in found if not is_empty(summary, column) and not (alive and column.title == "dead")]


def grouped(summary: Mapping[str, Any]) -> bool:
    """Say whether some unseen conditions count as one."""
    return any(row["units"] != row["n"] for row in summary["sources"].values())


def is_empty(summary: Mapping[str, Any], column: Column) -> bool:
    """Say whether a column has nothing to show for any source."""
    return not any(column.cell(row) for row in summary["sources"].values())


def head(summary: Mapping[str, Any]) -> str:
    """Return what the figures are, and what the mark behind a name says."""
    metric = summary["metric"]
    direction = "higher" if metric["higher_is_better"] else "lower"
    return f"{metric['name']}, {direction} is better; {BEST}: best on the select conditions, and what an export takes"


def caption(summary: Mapping[str, Any]) -> str:
    """Return what the columns mean, and the task's facts that are texts."""
    facts = [f"{name}: {fact}" for name, fact in summary["task"].items() if isinstance(fact, str)]
    meanings = [f"{column.title}: {column.meaning}" for column in columns(summary)]
    return "; ".join([head(summary), *meanings, *facts])


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return what stands below the verdict: how the conditions were split, what to know; a line each."""
    return [*summary["conditions"]["lines"], *(f"note: {note}" for note in summary["notes"])]
