"""The pictures of a report that the plugin draws, of a few candidates of each source."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from pdiff.analysis.conditional import ORACLE, ConditionalCase
from pdiff.analysis.source_results import SourceResults
from pdiff.analysis.statistics import ranked
from pdiff.run.sources import spaced
from pdiff.task.contract import check_pictures
from pdiff.task.task import Candidates

if TYPE_CHECKING:
    from pdiff.run.run import Run

PICKS = 8  # candidates of each source that a plugin may draw
CONDITIONS = 6  # the same where there are conditions: one candidate for each of so many


def draw_pictures(run: "Run", sources: Mapping[str, SourceResults]) -> list[dict[str, str]]:
    """Let the plugin draw, if it does, and return what its pictures are."""
    if not run.has_hook("draw"):
        return []
    higher = run.task.metric.higher_is_better
    picks = {
        name: run.candidates(source.vectors[ranked(source.metrics["select"], higher, PICKS)])
        for name, source in placed(sources).items()
    }
    return drawn_by_plugin(run, picks)


def draw_conditions(run: "Run", case: ConditionalCase) -> list[dict[str, str]]:
    """Let the plugin draw networks for unseen conditions, the same ones of each source, the oracle's first."""
    if not run.has_hook("draw"):
        return []
    unseen = np.flatnonzero(case.unseen)
    chosen = unseen[spaced(len(unseen), CONDITIONS).numpy()]
    sources = placed(case.sources)
    picks = {}
    for name in sorted(sources, key=lambda name: name != ORACLE):
        source = sources[name]
        rows = [int(np.flatnonzero(source.wanted == number)[0]) for number in chosen]
        picks[name] = run.candidates(source.vectors[rows], source.conditions.take(rows))
    return drawn_by_plugin(run, picks)


def placed(sources: Mapping[str, SourceResults]) -> dict[str, SourceResults]:
    """Return the sources whose candidates are one vector each."""
    return {name: source for name, source in sources.items() if source.has_place}


def drawn_by_plugin(run: "Run", picks: Mapping[str, Candidates]) -> list[dict[str, str]]:
    """Return what the pictures are that the plugin has drawn of some candidates."""
    pictures = run.hook.draw(task=run.task, picks=picks, folder=run.directory.folder("compare"))
    check_pictures(run.name, pictures)
    return [asdict(picture) for picture in pictures]
