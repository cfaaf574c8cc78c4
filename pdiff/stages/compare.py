"""Stage 5: the sources side by side: how good, how new, and what that amounts to."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pdiff.analysis.judgement import Case, chosen_by_training_data, comparisons, find, notes, row
from pdiff.analysis.kept import kept_by_tensor
from pdiff.analysis.neighbours import Neighbours
from pdiff.analysis.novel import FEWEST, GRID, MULTIPLES, Bar, novel_figures
from pdiff.analysis.novelty import pareto_front
from pdiff.analysis.references import locate, principal_axes, project, survey
from pdiff.analysis.verdict import GENERATED, TRAINED, Findings, judge, others, quality
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.report.conditional_figures import draw_conditional_figures
from pdiff.report.drawing import Figure
from pdiff.report.evidence import Evidence
from pdiff.report.figures import draw_figures
from pdiff.report.page import report_page
from pdiff.report.table import markdown_table
from pdiff.run.derived import MEMBERS
from pdiff.run.heldout import heldout_record
from pdiff.run.record import read_gates
from pdiff.run.results import read_sources
from pdiff.run.sources import Pool, left_out, open_pool
from pdiff.run.stage import STAGES
from pdiff.run.targets import open_targets
from pdiff.runtime.storage import read_json, read_tensors, read_text, write_json, write_text
from pdiff.stages.compare_conditions import conditional_summary, without
from pdiff.stages.pictures import draw_pictures
from pdiff.weights.provenance import lineage_labels
from pdiff.weights.vectors import Rows, mean

if TYPE_CHECKING:
    from pdiff.run.run import Run

DENSITIES = (TRAINED, GENERATED, "gaussian")
FEWEST_MEMBERS = 8  # of an average of a few, to be taken for one
SEEN = (
    "the checkpoints are files: if they were trained on the images of the split select, their best is chosen on data "
    "that they have seen; test is not touched by that"
)


def compare(run: "Run") -> None:
    """Write `report/`: summary.json, table.md, report.html and the figures."""
    folder = run.directory.folder("compare")
    folder.mkdir(parents=True, exist_ok=True)
    whole, figures = over_conditions(run, folder) if run.conditional else over_sources(run, folder)
    if run.form:
        whole["canonical"] = read_json(run.canonical_folder / "canonical.json")
    whole |= costs_by_stage({**run.directory.records(), "compare": run.stopwatch.stop()})
    write_text(folder / "table.md", markdown_table(whole))
    config = read_text(run.directory.path / "config.yaml")
    write_text(folder / "report.html", report_page(folder, run.directory.path.name, whole, figures, config))
    write_json(folder / "summary.json", whole)


def costs_by_stage(records: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return what the stages took, by kind and stage, of their records; GPU memory where one had a GPU."""
    kinds = ("seconds", "peak_memory_bytes", "peak_gpu_memory_bytes")
    costs = {kind: {stage: record[kind] for stage, record in records.items() if kind in record} for kind in kinds}
    return {kind: found for kind, found in costs.items() if found}


def over_sources(run: "Run", folder: Path) -> tuple[dict[str, Any], list[Figure]]:
    """Return summary and figures of a run without conditions."""
    case = open_case(run)
    findings = find(case)
    whole = summary(run, case, findings, draw_pictures(run, case.sources))
    return whole, draw_figures(folder, whole, evidence(run, case, bar_of(case, findings)))


def over_conditions(run: "Run", folder: Path) -> tuple[dict[str, Any], list[Figure]]:
    """Return summary and figures of a run with conditions."""
    whole = conditional_summary(run)
    return whole, draw_conditional_figures(folder, whole)


def open_case(run: "Run") -> Case:
    """Return what the sources are judged by."""
    pool = open_pool(run)
    sources = read_sources(run, pool)
    trained = sources[TRAINED].signature
    similarities = {name: run.task.similarity(s.signature, trained).float() for name, s in sources.items()}
    to_soup = {}
    soups = [name for name, source in sources.items() if source.type == "soup" and source.finite.any()]
    if soups:
        soup = sources[soups[0]].signature
        to_soup = {name: run.task.similarity(s.signature, soup)[:, 0].float().numpy() for name, s in sources.items()}
    seed = run.seed("compare")
    among = survey(neighbours(run), run.population.layout, seed)
    placed = {name: source.vectors for name, source in sources.items() if source.has_place}
    averages = [name for name, source in sources.items() if source.type == "soup_of"]
    few = [name for name in averages if members(run, name, pool) < FEWEST_MEMBERS]
    return Case(
        metric=run.task.metric,
        sources=sources,
        similarities=similarities,
        to_soup=to_soup,
        places={
            name: locate(vectors, among, sources[name].parents if name == TRAINED else None)
            for name, vectors in placed.items()
        },
        population=run.population.tensor(),
        provenance=run.population.provenance,
        fitted=pool.fitted.tolist(),
        heldout=heldout_record(run)["rows"],
        decode=pool.reconstruct,
        margin=run.config.compare.margin,
        seed=seed,
        form=run.form,
        device=run.device,
        averages=averages_of_a_few({name: members(run, name, pool) for name in averages}),
        small=few,
    )


def neighbours(run: "Run") -> Neighbours:
    """Return the trained vectors: one of several lineages leaves out its own lineage, of a single one itself."""
    vectors, lineages = run.population.tensor(), run.lineages
    return Neighbours(vectors, lineages if lineages.any() else np.arange(len(vectors)), run.form, run.device)


def averages_of_a_few(members: Mapping[str, int]) -> str | None:
    """Return the averages that the generated are held against: of as few as count, else of as many as there are.

    Averages of nearly all lie nearer to the soup than any others: held against them, averages of sixteen pass for new.
    """
    enough = {name: number for name, number in members.items() if number >= FEWEST_MEMBERS}
    return min(enough, key=enough.get) if enough else max(members, key=members.get, default=None)


def members(run: "Run", name: str, pool: Pool) -> int:
    """Return how many fitted ones each average of a source is made of: no more than there are."""
    return min(run.config.evaluate.sources[name].get("members", MEMBERS), len(pool.fitted))


def summary(run: "Run", case: Case, findings: Findings, pictures: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return what other programs read, but for the costs of the stages."""
    held, zoo = heldout_record(run), new_and_good(case, bar_of(case, findings))
    verdict, good, gates = judge(findings), quality(findings), read_gates(run.directory)
    records = run.directory.records()
    weaker = [] if held["by"] == "branches" else [held["line"]]
    files = [SEEN] if run.config.checkpoints.files else []
    return {
        "plugin": run.name,
        "metric": asdict(case.metric),
        "task": dict(run.task.facts),
        "verdict": verdict.line + without(left_out(run)),
        "verdict_kind": verdict.kind,
        "margin": findings.margin,
        "quality": good.line if good and good.kind != verdict.kind else None,
        "baselines": others(findings),
        "notes": [*weaker, *files, *notes(case, findings)],
        "gates": gates,
        "gates_ignored": not all(gate["passed"] for gate in gates),
        "budget": case.budget,
        "dependence": {"time": case.time, "units": None if case.units is None else len(set(case.units))},
        "sources": {name: row(case, name) | at_one(zoo, name) for name in case.sources},
        "comparisons": comparisons(case, findings),
        "choice": chosen_by_training_data(case),
        "copying": findings.copying.to_json(),
        "novelty": asdict(findings.novelty),
        **({} if zoo is None else {"novel": zoo}),
        **obedience(run, case),
        "pictures": pictures,
        "resumed": [stage for stage in STAGES if records.get(stage, {}).get("resumed")],  # cost: of the last attempt
        "environment": run.directory.environment(),
        "command": shlex.join(sys.argv),
    }


def bar_of(case: Case, findings: Findings) -> Bar | None:
    """Return what a candidate must reach to be new and good, in a zoo of many lineages; None of anything else."""
    distances = case.places[TRAINED].distances
    known = np.isfinite(distances) & (distances > 0)
    if len(np.unique(lineage_labels(case.provenance))) < FEWEST or not known.any() or TRAINED not in findings.means:
        return None
    return Bar.of(distances, findings.means[TRAINED], findings.margin, case.metric.higher_is_better)


def new_and_good(case: Case, bar: Bar | None) -> dict[str, Any] | None:
    """Return how many candidates of each source are new and good at once; None without a bar."""
    if bar is None:
        return None
    distances = {name: place.distances for name, place in case.places.items()}
    tests = {name: source.test for name, source in case.sources.items()}
    found = novel_figures(bar, distances, tests, case.nearest)
    return {"distance": bar.unit, "metric": bar.metric, "multiples": list(MULTIPLES), "sources": found}


def at_one(zoo: Mapping[str, Any] | None, name: str) -> dict[str, float | None]:
    """Return what the row of a source says of it: the share at the zoo's own distance; None of what lies nowhere."""
    if zoo is None:
        return {}
    return {"novel": zoo["sources"][name]["shares"][MULTIPLES.index(1.0)] if name in zoo["sources"] else None}


def obedience(run: "Run", case: Case) -> dict[str, Any]:
    """Return, as `target`, what was asked of the generated, and what they have; nothing in a run without a target.

    Both are on the split `select`, on which the engine was taught; only the task's metric is measured.
    """
    targets = open_targets(run)
    if targets is None:
        return {}
    select = case.sources[GENERATED].metrics["select"]
    select = select[np.isfinite(select)]
    mean = float(select.mean()) if len(select) else None
    measured = [mean if name == case.metric.name else None for name in targets.names]
    quantile, wanted = run.config.generate.target, targets.wanted.tolist()
    return {"target": {"names": list(targets.names), "quantile": quantile, "wanted": wanted, "measured": measured}}


def evidence(run: "Run", case: Case, bar: Bar | None = None) -> Evidence:
    """Return the arrays behind the figures; `bar` is that of a zoo."""
    sources, places = case.sources, case.places
    similarities = case.nearest
    path = read_path(run)
    return Evidence(
        tests={name: source.test for name, source in sources.items()},
        trains={name: source.metrics["train"] for name, source in sources.items() if "train" in source.metrics},
        similarities=similarities,
        front=front(case, similarities),
        distances={name: place.distances for name, place in places.items()},
        coordinates=coordinates(case),
        vectors={name: place.projected for name, place in places.items()},
        latents=latents(run),
        path=path and np.array(path["metrics"], dtype=float),
        path_steps=path and np.array(path["steps"]),
        codec_errors=codec_errors(case, run.engine),
        losses=read_json(run.directory.folder("fit") / "history.json"),
        novel=novel_curves(case, bar),
    )


def novel_curves(case: Case, bar: Bar | None) -> dict[str, NDArray]:
    """Return the share of new and good candidates `(K,)` at the multiples `GRID`, of sources of several; see `Bar`."""
    several = {n: p.distances for n, p in case.places.items() if bar is not None and len(p.distances) > 1}
    return {name: np.array(bar.shares(own, case.sources[name].test, GRID)) for name, own in several.items()}


def front(case: Case, similarities: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Return which candidates of the baselines no other baseline's beats in metric and in novelty."""
    own = (TRAINED, GENERATED)
    others = [(name, source) for name, source in case.sources.items() if not source.of_generated]
    names = [name for name, source in others if name not in own and source.type not in own]
    if not names:
        return {}
    metric = np.concatenate([case.sources[name].test for name in names])
    mask = pareto_front(metric, np.concatenate([similarities[name] for name in names]), case.metric.higher_is_better)
    ends = np.cumsum([len(case.sources[name].test) for name in names])
    return dict(zip(names, np.split(mask, ends[:-1]), strict=True))


def coordinates(case: Case) -> dict[str, dict[str, NDArray]]:
    """Return the values of a few coordinates, by the coordinate's name and by source."""
    shown = [name for name in DENSITIES if name in case.places]
    return {
        coordinate: {name: case.places[name].shown[coordinate] for name in shown}
        for coordinate in case.places[TRAINED].shown
    }


def codec_errors(case: Case, engine: ParameterDiffusion) -> dict[str, float]:
    """Return the share of the held-out checkpoints' variation that the codec loses, by tensor; empty without any."""
    if not case.heldout:
        return {}
    heldout, fitted = (Rows(case.population, rows) for rows in (case.heldout, case.fitted))
    shares = kept_by_tensor(heldout[:], engine.decode(engine.encode(heldout), tuned=False), mean(fitted), engine.layout)
    return {name: 1 - share for name, share in shares.items()}


def latents(run: "Run") -> dict[str, NDArray]:
    """Return the latents of trained and generated vectors on the first two principal axes of the trained ones."""
    trained = run.engine.encode(run.population.tensor())
    drawn = read_tensors(run.directory.folder("generate") / "latents.safetensors")["latents"]
    axes = principal_axes(trained)
    return {TRAINED: project(trained, axes).numpy(), GENERATED: project(drawn, axes).numpy()}


def read_path(run: "Run") -> dict[str, Any] | None:
    """Return the metric along the way from noise; None where it was not measured."""
    path = run.directory.folder("evaluate") / "path.json"
    return read_json(path) if path.exists() else None
