"""The columns that tables of groups share, and the figures of several runs as one cell."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pdiff.analysis.repetition import interval_over_runs
from pdiff.run.grouping import Group, share_population, short_names, value_texts
from pdiff.run.summaries import Gain

HEIGHT = 3  # added columns below one another
OF_SEVERAL = (
    "seeds: runs that differ in nothing but their seeds; of several, figures are means over them, and intervals "
    "Student's t over them, none where all have the same"
)
OF_ONE_POPULATION = "of fitting and drawing alone, on one population"
OF_GATES = "gates: those that failed, and in how many runs where not in all"


class Table(NamedTuple):
    """What a table shows.

    Attributes:
        titles: of its columns.
        words: places of the columns that hold words.
        rows: their cells.
        caption: what the columns mean.
    """

    titles: list[str]
    words: list[int]
    rows: list[list[str]]
    caption: str

    def select(self, places: Sequence[int]) -> "Table":
        """Return the table with these columns alone."""
        words = [new for new, place in enumerate(places) if place in self.words]
        titles, *rows = [[row[place] for place in places] for row in (self.titles, *self.rows)]
        return Table(titles, words, rows, self.caption)


def counted(words: Sequence[str]) -> str:
    """Return words of several runs as one: what all have, or each with how many have it, the most frequent first."""
    found = Counter(words).most_common()
    return found[0][0] if len(found) == 1 else ", ".join(f"{count} {word}" for word, count in found if word)


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean over runs; None where one of them has no such figure."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def mean_gain(gains: Sequence[Gain | None]) -> Gain | None:
    """Return a single run's gain as it is, the mean of several with the interval over runs; None where one has none."""
    known = [gain for gain in gains if gain is not None]
    if len(known) < len(gains):
        return None
    if len(known) == 1:
        return known[0]
    values = [gain.value for gain in known]
    return Gain(counted([gain.source for gain in known]), float(np.mean(values)), interval_over_runs(values))


def failed_gates(group: Group) -> str:
    """Return the gates that failed, with the number of runs where that is not all; nothing where all passed."""
    of_runs = [
        list(dict.fromkeys(gate["name"] for gate in run.summary["gates"] if not gate["passed"])) for run in group.runs
    ]
    counts, whole = Counter(name for names in of_runs for name in names), len(group.runs)
    return ", ".join(name if count == whole else f"{name} ({count} of {whole})" for name, count in counts.items())


def added_titles(groups: Sequence[Group]) -> list[str]:
    """Return the titles after the name: the number of runs, where a group has several, and the keys that differ."""
    several = any(len(group.runs) > 1 for group in groups)
    return [*(["seeds"] if several else []), *short_names(list(groups[0].values)).values()]


def with_shared(groups: Sequence[Group], table: Table) -> Table:
    """Return a table of groups, whose first column is their name, with the columns that they share.

    After the name come those of `added_titles`; at the end the gates, where one failed or others are added.
    """
    added, failed = added_titles(groups), [failed_gates(group) for group in groups]
    gated = bool(added or any(failed))
    columns = [value_texts([group.values[key] for group in groups]) for key in groups[0].values]
    rows = []
    for place, (group, row, gates) in enumerate(zip(groups, table.rows, failed, strict=True)):
        numbers, values = [str(len(group.runs))], [column[place] for column in columns]
        front = [*numbers, *values][-len(added) :] if added else []
        rows.append([row[0], *front, *row[1:], *([gates or "passed"] if gated else [])])
    titles = [table.titles[0], *added, *table.titles[1:], *(["gates"] if gated else [])]
    words = [place + len(added) if place else 0 for place in table.words] + ([len(titles) - 1] if gated else [])
    return Table(titles, words, rows, full_caption(groups, table.caption, any(failed)))


def stacked(table: Table, stacks: Sequence[Sequence[int]], added: int) -> Table:
    """Return a table with columns below one another, for a terminal that has no room for all side by side.

    Args:
        table: of `with_shared`.
        stacks: places of all columns before others were added; the gates come below the last.
        added: how many came after the name.
    """
    moved = [[place + added if place else 0 for place in stack] for stack in stacks]
    moved[-1] += range(added + sum(map(len, stacks)), len(table.titles))
    fresh = [range(at, min(at + HEIGHT, added + 1)) for at in range(1, added + 1, HEIGHT)]
    chosen = [moved[0], *fresh, *moved[1:]]
    words = [place for place, stack in enumerate(chosen) if stack[0] in table.words]
    titles, *rows = [
        ["\n".join(row[place] for place in stack) for stack in chosen] for row in (table.titles, *table.rows)
    ]
    if added:  # a line for each of several words, for which a column of others has no room
        rows = [[cell.replace(", ", ",\n") for cell in row] for row in rows]
    return Table(titles, words, rows, table.caption)


def full_caption(groups: Sequence[Group], caption: str, failed: bool) -> str:
    """Return a caption with what the added columns mean, keys by their full names."""
    long = [f"{name}: {key}" for key, name in short_names(list(groups[0].values)).items() if name != key]
    several = [group for group in groups if len(group.runs) > 1]
    alone = [group.name for group in several if share_population(group.runs)]
    seeds = [OF_SEVERAL] if several else []
    if alone:
        seeds.append(f"seeds of {', '.join(alone) if len(alone) < len(several) else 'all'}: {OF_ONE_POPULATION}")
    parts = [caption, *seeds, *long, *([OF_GATES] if failed else [])]
    return f"{'; '.join(part.rstrip('.') for part in parts)}."


def verdict_kinds(group: Group) -> list[tuple[str, str]]:
    """Return the kinds of a group's verdicts, the most frequent first, and their texts."""
    counts = Counter(run.summary["verdict_kind"] for run in group.runs).most_common()
    return [(kind, kind if len(counts) == 1 else f"{count} {kind}") for kind, count in counts]
