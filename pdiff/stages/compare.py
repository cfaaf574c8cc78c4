"""Stage 5: the sources side by side: how good, how new, and what that amounts to."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pdiff.analysis.judgement import Case, chosen_by_training_data, comparisons, find, row
from pdiff.analysis.kept import kept_by_tensor
from pdiff.analysis.novelty import pareto_front
from pdiff.analysis.references import locate, principal_axes, project, survey
from pdiff.analysis.source_results import SourceResults
from pdiff.analysis.statistics import ranked
from pdiff.analysis.verdict import GENERATED, TRAINED, judge
from pdiff.engine.parameter_diffusion import ParameterDiffusion
from pdiff.report.evidence import Evidence
from pdiff.report.figures import draw_figures
from pdiff.report.page import report_page
from pdiff.report.table import markdown_table
from pdiff.run.heldout import split_population
from pdiff.run.record import read_gates
from pdiff.run.results import read_sources
from pdiff.run.sources import MEMBERS, source_names
from pdiff.run.stage import STAGES
from pdiff.runtime.storage import read_json, read_tensors, read_text, write_json, write_text
from pdiff.task.contract import check_pictures
from pdiff.weights.vectors import mean

if TYPE_CHECKING:
    from pdiff.run.run import Run

PICKS = 8  # candidates of each source that a plugin may draw
DENSITIES = (TRAINED, GENERATED, "gaussian")


def compare(run: "Run") -> None:
    """Write `report/`: summary.json, table.md, report.html and the figures."""
    folder = run.directory.folder("compare")
    folder.mkdir(parents=True, exist_ok=True)
    case = open_case(run)
    whole = summary(run, case, draw_pictures(run, case.sources))
    figures = draw_figures(folder, whole, evidence(run, case))
    costs = {**run.directory.records(), "compare": run.stopwatch.stop()}
    whole |= {key: {stage: costs[stage][key] for stage in costs} for key in ("seconds", "peak_memory_bytes")}
    write_text(folder / "table.md", markdown_table(whole))
    config = read_text(run.directory.path / "config.yaml")
    write_text(folder / "report.html", report_page(folder, run.directory.path.name, whole, figures, config))
    write_json(folder / "summary.json", whole)


def open_case(run: "Run") -> Case:
    """Return what the sources are judged by."""
    sources = read_sources(run)
    fitted, heldout = split_population(run)
    trained = sources[TRAINED].signature
    similarities = {name: run.task.similarity(s.signature, trained).float() for name, s in sources.items()}
    to_soup = {}
    soups = of_type(run, "soup")
    if soups and sources[soups[0]].alive.any():
        soup = sources[soups[0]].signature
        to_soup = {name: run.task.similarity(s.signature, soup)[:, 0].float().numpy() for name, s in sources.items()}
    seed = run.seed("compare")
    among = survey(run.population.tensor(), run.population.layout, seed)
    placed = {name: source.vectors for name, source in sources.items() if source.has_place}
    places = {name: locate(vectors, among, leave_self_out=name == TRAINED) for name, vectors in placed.items()}
    averages = max(of_type(run, "soup_of"), key=lambda name: members(run, name), default=None)
    settings = {"resamples": run.config.compare.resamples, "seed": seed, "averages": averages}
    return Case(run.task.metric, sources, similarities, to_soup, places, fitted, heldout, **settings)


def of_type(run: "Run", kind: str) -> list[str]:
    """Return the sources of a type, whatever the config calls them."""
    return [name for name in source_names(run) if run.config.evaluate.sources[name]["type"] == kind]


def members(run: "Run", name: str) -> int:
    """Return how many trained ones each average of a source is made of."""
    return run.config.evaluate.sources[name].get("members", MEMBERS)


def draw_pictures(run: "Run", sources: Mapping[str, SourceResults]) -> list[dict[str, str]]:
    """Let the plugin draw, if it does, and return what its pictures are."""
    if not run.has_hook("draw"):
        return []
    placed = {name: source for name, source in sources.items() if source.has_place}
    higher = run.task.metric.higher_is_better
    picks = {
        name: run.candidates(source.vectors[ranked(source.metrics["select"], higher, PICKS)])
        for name, source in placed.items()
    }
    pictures = run.hook.draw(task=run.task, picks=picks, folder=run.directory.folder("compare"))
    check_pictures(run.name, pictures)
    return [asdict(picture) for picture in pictures]


def summary(run: "Run", case: Case, pictures: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return what other programs read, but for the costs of the stages."""
    findings = find(case)
    verdict, gates, records = judge(findings), read_gates(run.directory), run.directory.records()
    return {
        "plugin": run.name,
        "metric": asdict(case.metric),
        "task": dict(run.task.facts),
        "verdict": verdict.line,
        "verdict_kind": verdict.kind,
        "gates": gates,
        "gates_ignored": not all(gate["passed"] for gate in gates),
        "budget": case.budget,
        "sources": {name: row(case, name) for name in case.sources},
        "comparisons": comparisons(case, findings),
        "choice": chosen_by_training_data(case),
        "copying": asdict(findings.copying),
        "pictures": pictures,
        "resumed": [stage for stage in STAGES if records.get(stage, {}).get("resumed")],  # cost: of the last attempt
        "environment": read_json(run.directory.path / "environment.json"),
        "command": shlex.join(sys.argv),
    }


def evidence(run: "Run", case: Case) -> Evidence:
    """Return the arrays behind the figures."""
    sources, places = case.sources, case.places
    similarities = {name: case.nearest(name) for name in sources}
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
    )


def front(case: Case, similarities: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Return which candidates of the baselines no other baseline's beats in metric and in novelty."""
    names = [name for name in case.sources if name not in (TRAINED, GENERATED)]
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
    if not len(case.heldout):
        return {}
    decoded = engine.decode(engine.encode(case.heldout))
    shares = kept_by_tensor(case.heldout[:], decoded, mean(case.fitted), engine.layout)
    return {name: 1 - share for name, share in shares.items()}


def latents(run: "Run") -> dict[str, NDArray]:
    """Return the latents of trained and generated vectors on the first two principal axes of the trained ones."""
    trained = run.engine.encode(run.population.tensor())
    drawn = read_tensors(run.directory.folder("generate") / "latents.safetensors")["latents"]
    axes = principal_axes(trained)
    return {TRAINED: project(trained, axes).numpy(), GENERATED: project(drawn, axes).numpy()}


def read_path(run: "Run") -> dict[str, Any] | None:
    """Return the metric along the reverse diffusion; None where it was not measured."""
    path = run.directory.folder("evaluate") / "path.json"
    return read_json(path) if path.exists() else None
