"""What the table of a run without conditions shows: a row per source, how good and how new its candidates are."""

from collections.abc import Mapping
from typing import Any

from pdiff.analysis.novel import words_for_novel
from pdiff.report.cells import WIDTH, Column, interval, number, percent


def subject(summary: Mapping[str, Any]) -> str:
    """Return the source that the table is about."""
    return "generated"


def labels(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return what each source is called in its row, in the order of the rows."""
    return {name: name for name in summary["sources"]}


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
        *([Column("new and good", 160, lambda row: percent(row["novel"]))] if summary.get("novel") else []),
    ]


def caption(summary: Mapping[str, Any]) -> str:
    """Return what the columns mean, and the task's facts that are texts."""
    metric = summary["metric"]
    direction = "higher" if metric["higher_is_better"] else "lower"
    facts = [f"; {name}: {fact}" for name, fact in summary.get("task", {}).items() if isinstance(fact, str)]
    zoo = "; new and good: within the margin of the trained, and as far from every trained network as these are from "
    zoo += "each other, the median of the nearest"
    orders = ", in whichever order of its units" if summary.get("canonical") else ""
    return (
        f"{metric['name']} on the test split, {direction} is better; worth: so many independent candidates; "
        "best: of n, chosen on the select split; "
        f"best of {summary['budget']}: what choosing among so many gives, in expectation; "
        "similarity: largest to a fitted checkpoint, of the trained to one of another training; "
        f"distance: to the nearest trained vector{orders}; spread: trained = 1"
        + (zoo if summary.get("novel") else "")
        + "".join(facts)
    )


def words_for_target(target: Mapping[str, Any], metric: Mapping[str, Any]) -> str:
    """Return what was asked of the generated, and what they have; of a share as it was given, not rounded."""
    each = zip(target["names"], target["wanted"], target["measured"], strict=True)
    said = [f"{n} {number(w)}{f' (they have {number(m)} on select)' if m is not None else ''}" for n, w, m in each]
    down = metric["name"] in target["names"] and not metric["higher_is_better"]
    side = f", of {metric['name']} from the highest down" if down else ""
    quantile = f"the {100 * target['quantile']:g} % quantile of the fitted{side}"
    return f"asked of the generated: {', '.join(said)}, {quantile}"


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return what stands below the verdict: baselines, copying, what is new, what could not be tested; a line each."""
    good = f"but for that {summary['quality']}" if summary["quality"] else None
    copying = summary["copying"]["line"] if summary["copying"]["power"] and not summary["copying"]["copies"] else None
    novel, target = summary.get("novel"), summary.get("target")
    zoo = words_for_novel(novel["sources"]["generated"]["shares"]) if novel else None
    asked = words_for_target(target, summary["metric"]) if target else None
    found = [good, asked, summary["baselines"], copying, summary["novelty"]["line"], zoo]
    lines = [*found, *(f"note: {note}" for note in summary["notes"])]
    return [line for line in lines if line]
