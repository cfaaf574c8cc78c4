"""Stage 5 where checkpoints have conditions: the sources side by side over conditions that the engine has not seen."""

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pdiff.analysis.conditional import (
    ConditionalCase,
    asked_and_found,
    conditional_comparisons,
    conditional_row,
    conditional_verdict,
    plain,
    sure,
)
from pdiff.analysis.neighbours import Neighbours
from pdiff.analysis.references import spread
from pdiff.analysis.source_results import SourceResults
from pdiff.analysis.standards import BASE, FEW, GENERATED, ORACLE, REFERENCES
from pdiff.run.derived import chain
from pdiff.run.heldout import heldout_record
from pdiff.run.record import read_gates
from pdiff.run.results import read_sources
from pdiff.run.sources import left_out, open_pool, source_names
from pdiff.run.stage import STAGES
from pdiff.run.wanted import Wanted
from pdiff.runtime.storage import finite_or_null
from pdiff.stages.pictures import draw_conditions
from pdiff.weights.vectors import Rows, Vectors, deviations, parts, pieces, relative_width

if TYPE_CHECKING:
    from pdiff.run.run import Run

NOTES = {
    "oracle": "trained for the condition itself; seconds: those of the collection, over its networks",
    BASE: "what every network was fine-tuned from, as it is",
    "finetuned": "the same, trained for the condition for a few steps; seconds: those of this training",
    "oracle_codec": "the oracle, through the codec: no generator with this codec is better",
    "generated": "seconds: those of the stage that drew them, after the fit",
    "hypernet": "what the hypernetwork gives; seconds: those after the fit",
    "generated_permuted": "drawn for another condition than it is measured under",
    "symmetry": "the nearest network after the declared symmetry",
    "soup": "one network for all conditions",
}


def conditional_summary(run: "Run") -> dict[str, Any]:
    """Return what other programs read of a run with conditions, but for the costs of the stages."""
    pool = open_pool(run)
    wanted, sources = pool.wanted, read_sources(run, pool, ORACLE)
    margin, lacking = run.config.compare.margin, left_out(run)
    told = (run.task.metric, sources, wanted.unseen, wanted.groups, wanted.distance)
    case = ConditionalCase(*told, margin, rivals_of(run, lacking))
    kind, line = conditional_verdict(case)
    gates, best = read_gates(run.directory), case.best(case.choosable)
    known = Neighbours(pool.known, wanted.lineages, run.form, run.device)
    return {
        "plugin": run.name,
        "conditional": True,
        "metric": asdict(case.metric),
        "task": dict(run.task.facts),
        "conditions": described(run, wanted),
        "best_source": best,
        "verdict": line + without(lacking),
        "verdict_kind": kind,
        "notes": [*beside_base(case), *notes(case), *small_neighbourhoods(run, len(pool.fitted))],
        "gates": gates,
        "gates_ignored": not all(gate["passed"] for gate in gates),
        "sources": {name: {**conditional_row(case, name), **measured(run, case, known, name)} for name in sources},
        "comparisons": conditional_comparisons(case),
        "points": points(case, best),
        "pictures": draw_conditions(run, case),
        "resumed": [stage for stage in STAGES if run.directory.records().get(stage, {}).get("resumed")],
        "environment": run.directory.environment(),
        "command": shlex.join(sys.argv),
    }


def rivals_of(run: "Run", names: Sequence[str]) -> list[str]:
    """Return those of some sources that give networks for new conditions without the engine."""
    table = {name: source for name, source in run.config.evaluate.conditional.items() if source is not None}
    kinds = {name: table.get(chain(table, name)[-1], {}).get("type", "") for name in names}
    return [name for name, kind in kinds.items() if kind not in REFERENCES and not kind.startswith(GENERATED)]


def without(names: Sequence[str]) -> str:
    """Return the end of a verdict that says which sources were left out, if any were."""
    return f"; left out by evaluate.only: {', '.join(names)}" if names else ""


def described(run: "Run", wanted: Wanted) -> dict[str, Any]:
    """Return what is known of the conditions themselves."""
    record, settings = heldout_record(run), run.config.fit
    seen, _ = wanted.seen.distinct()
    unseen, distance = wanted.unseen, wanted.distance[wanted.unseen]
    groups = {"seen": wanted.seen_groups, "select": wanted.groups[~unseen], "unseen": wanted.groups[unseen]}
    unit = "numbers that differ" if wanted.seen.binary else "standard deviations"
    return {
        "names": list(wanted.seen.names),
        "example": wanted.conditions[int(np.flatnonzero(unseen)[0])],
        "seen": len(seen),
        "select": int((~unseen).sum()),
        "unseen": int(unseen.sum()),
        "groups": {name: len(np.unique(labels)) for name, labels in groups.items()},
        "left_out": len(record["gap"]),
        "networks": {"seen": len(wanted.seen), "oracles": len(wanted.oracles)},
        "split": settings.split["type"],
        "symmetry": settings.symmetry and settings.symmetry["type"],
        "distance": {
            "unit": unit,
            "min": float(distance.min()),
            "median": float(np.median(distance)),
            "max": float(distance.max()),
        },
        "lines": [record["line"]],
    }


def notes(case: ConditionalCase) -> list[str]:
    """Return what weakens what was found, a line each."""
    found, count = [], len(np.unique(case.groups[case.unseen]))
    remedy = "Take networks for more conditions, or raise"
    if count < FEW:
        found.append(f"groups of unseen conditions: {count}, too few to say much. {remedy} fit.split.unseen")
    few = len(np.unique(case.groups[~case.unseen]))
    if few < FEW:
        found.append(f"groups that chose the best source: {few}, too few to be sure. {remedy} fit.split.select")
    if case.sources[GENERATED].fits is None:
        found.append("the generated are of one fit: no interval speaks of another. Raise fit.repeats")
    if case.sources[GENERATED].scores is None:
        found.append("the metric has no scores: intervals take the test set as it is")
    return found


def beside_base(case: ConditionalCase) -> list[str]:
    """Return how the best source stands to what every network began with, a line; nothing where that is no source."""
    found, best = [], case.best(case.choosable)
    bases = [name for name, source in case.sources.items() if source.type == BASE and name != best]
    for name in bases if best else ():
        gain = case.against(best, name)
        if gain.interval is not None:
            side = {1: "better than", 0: "neither surely better nor worse than", -1: "worse than"}[sure(gain, gain.p)]
            low, high = gain.interval
            figures = f"gain {gain.difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"
            found.append(f"{best} is {side} {name}, what every network was fine-tuned from ({figures})")
    return found


def small_neighbourhoods(run: "Run", seen: int) -> list[str]:
    """Return which means of the nearest are of fewer networks than their settings say, for no more are seen."""
    table = run.config.evaluate.conditional
    wide = [name for name in source_names(run) if table[name]["type"] == "nearest" and table[name].get("k", 1) > seen]
    return [f"{name}: the mean of all {seen} seen networks, for there are no {table[name]['k']}" for name in wide]


def measured(run: "Run", case: ConditionalCase, known: Neighbours, name: str) -> dict[str, Any]:
    """Return where a source's vectors for unseen conditions lie, how they behave, and what one of them costs."""
    source, oracle = case.sources[name], case.sources[ORACLE]
    own, reference = (unseen_rows(case, each) for each in (source, oracle))
    begun = time.perf_counter()
    for _ in parts(source.vectors):
        pass
    seconds = source.seconds + time.perf_counter() - begun
    single = source.has_place
    vectors = some(source.vectors, own) if single else None
    trained = some(oracle.vectors, reference)
    found = {
        "agreement": agreement(run, case, source),
        "distance": novelty(vectors, known) if single else None,
        "spread": spread(vectors, trained) if single and len(own) > 1 else None,
        "dispersion": dispersion(vectors, draws_of(source)[own], trained) if single else None,
        "seconds": cost(run, source, seconds),
        "note": note(run, source),
        "type": source.type,
    }
    return {key: finite_or_null(value) for key, value in found.items()}


def note(run: "Run", source: SourceResults) -> str:
    """Return what has to be known to read a source's figures."""
    if source.type != "refined":
        return NOTES.get(source.type, "")
    own = run.config.evaluate.conditional[source.name]
    words = f"{own['of']}, trained for the condition for {own['steps']} steps ({own.get('space', 'latent')})"
    return f"{words}; seconds: those of both"


def unseen_rows(case: ConditionalCase, source: SourceResults) -> NDArray:
    """Return a source's candidates for unseen conditions."""
    return np.flatnonzero(case.unseen[source.wanted])


def some(vectors: Vectors, rows: NDArray) -> Vectors:
    """Return some of the vectors, read when they are asked for where they are stored."""
    if isinstance(vectors, Rows):
        return vectors.some(torch.from_numpy(rows))
    return vectors[torch.from_numpy(rows)]


def novelty(vectors: Vectors, known: Neighbours) -> float:
    """Return the mean distance of vectors to the nearest seen one."""
    return float(torch.cat([known.distances(piece) for piece in pieces(vectors)]).mean())


def agreement(run: "Run", case: ConditionalCase, source: SourceResults) -> float | None:
    """Return the mean similarity of candidates' behaviour to that of another network trained for their condition."""
    oracle, found = case.sources[ORACLE], []
    for number in np.flatnonzero(case.unseen):
        own, others = (np.flatnonzero(each.wanted == number) for each in (source, oracle))
        table = run.task.similarity(source.signature[own], oracle.signature[others]).float().numpy()
        if source.name == ORACLE:
            table = table[~np.eye(len(own), dtype=bool)]
        if table.size:
            found.append(float(table.mean()))
    return float(np.mean(found)) if found and np.isfinite(found).all() else None


def draws_of(source: SourceResults) -> NDArray:
    """Return a number for each candidate `(M,)`, the same for draws of one fit for one condition."""
    return source.wanted if source.fits is None else source.wanted + (source.wanted.max() + 1) * source.fits


def dispersion(vectors: Vectors, draws: NDArray, trained: Vectors) -> float | None:
    """Return how widely draws of the same number are spread, over how widely oracles are over all conditions."""
    several = [number for number in np.unique(draws) if (draws == number).sum() > 1]
    if not several:
        return None
    within = [deviations(some(vectors, np.flatnonzero(draws == number))).mean().item() for number in several]
    return relative_width(float(np.mean(within)), deviations(trained).mean().item())


def cost(run: "Run", source: SourceResults, seconds: float) -> float | None:
    """Return the seconds of one network: of the stage that made it, and of what was computed for all of them.

    Nobody knows those of a checkpoint that was trained elsewhere, or in a collection of which only the last attempt
    was timed.
    """
    if source.root == ORACLE and (run.config.checkpoints.files or run.directory.records()["collect"].get("resumed")):
        return None
    own = 0.0 if source.type in (ORACLE, GENERATED) else seconds / len(source.vectors)
    return stage_cost(run, source.root) + own


def stage_cost(run: "Run", kind: str) -> float:
    """Return the seconds that a stage took for one network of a type of source; 0 where none made it."""
    records = run.directory.records()
    if kind == ORACLE:
        return records["collect"]["seconds"] / len(run.population)
    return records["generate"]["seconds"] / len(run.generated) if kind == GENERATED else 0.0


def points(case: ConditionalCase, best: str) -> dict[str, Any]:
    """Return what the figures draw: each unseen condition's distance and metrics, and what was asked for and found."""
    asked = {name: asked_and_found(case, name) for name in dict.fromkeys((ORACLE, best, GENERATED)) if name}
    permuted = [name for name, source in case.sources.items() if source.type == "generated_permuted"]
    asked |= {name: asked_and_found(case, name) for name in permuted}
    return {
        "distance": case.distance[case.unseen].tolist(),
        "metric": {name: [*map(plain, case.by_condition(name)[case.unseen])] for name in case.sources},
        "requested": {name: {key: pair[0].tolist() for key, pair in found.items()} for name, found in asked.items()},
        "measured": {name: {key: pair[1].tolist() for key, pair in found.items()} for name, found in asked.items()},
    }
