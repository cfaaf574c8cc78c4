"""What the stage writes from a finished run."""

import json

import numpy as np
import pytest
import torch

from pdiff import Picture, hookimpl
from pdiff.analysis.verdict import KINDS
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER
from pdiff.run.results import read_metrics, read_sources
from pdiff.run.run import Run
from pdiff.run.sources import open_pool
from pdiff.runtime.storage import read_json
from pdiff.stages.compare import averages_of_a_few, costs_by_stage, evidence, front, members, open_case
from pdiff.stages.pictures import draw_pictures


@pytest.fixture(scope="module")
def run(finished):
    """Return the finished run."""
    return Run(resolve(finished.config()), finished)


@pytest.fixture(scope="module")
def case(run):
    """Return what its sources are judged by."""
    return open_case(run)


def test_cost_of_every_stage_is_told_as_it_was_recorded(finished):
    summary, records = (read_json(finished.path / file) for file in ("report/summary.json", "stages.json"))
    for key in ("seconds", "peak_memory_bytes"):
        assert summary[key] == {stage: records[stage][key] for stage in ORDER}


def test_memory_of_a_gpu_is_told_of_the_stages_that_had_one():
    records = {"fit": {"seconds": 1.0, "peak_memory_bytes": 2}, "evaluate": {"seconds": 3.0, "peak_memory_bytes": 4}}
    assert [*costs_by_stage(records)] == ["seconds", "peak_memory_bytes"]
    records["fit"]["peak_gpu_memory_bytes"] = 5
    assert costs_by_stage(records)["peak_gpu_memory_bytes"] == {"fit": 5}


def test_summary_has_a_row_for_every_source_and_compares_each_with_the_generated(finished):
    summary = read_json(finished.path / "report" / "summary.json")
    assert set(summary["comparisons"]) == set(summary["sources"]) - {"generated"}
    assert summary["verdict"].startswith(summary["verdict_kind"])
    assert summary["budget"] == 4
    assert {gate["stage"] for gate in summary["gates"]} == {"collect", "fit", "generate", "evaluate"}
    assert summary["choice"]["n"] == 5
    assert summary["verdict_kind"] in KINDS
    assert summary["margin"] > 0


def test_summary_says_what_the_candidates_of_every_source_are_worth(finished):
    summary = read_json(finished.path / "report" / "summary.json")
    assert summary["dependence"]["units"] == 5, "the branches"
    for row in summary["sources"].values():
        assert 1 <= row["effective_n"] <= row["n"]
    assert summary["sources"]["soup"]["effective_n"] == 1


def test_summary_has_the_controls_of_the_copying_test(finished):
    copying = read_json(finished.path / "report" / "summary.json")["copying"]
    assert list(copying["controls"]) == ["codec", "noise", "fresh"]
    for control in copying["controls"].values():
        assert 0 <= control["p"] <= 1
        assert isinstance(control["as_expected"], bool)
    assert copying["power"] == all(control["as_expected"] for control in copying["controls"].values())
    assert 0 <= copying["p"] <= 1
    assert copying["line"]


def test_summary_notes_what_could_not_be_tested(finished):
    notes = read_json(finished.path / "report" / "summary.json")["notes"]
    assert "the generated are of one fit: no interval speaks of another. Raise fit.repeats" in notes
    assert all("\n" not in note for note in notes)


def test_trained_distances_leave_each_vector_itself_out(case):
    assert len(case.places["trained"].distances) == 10
    assert (case.places["trained"].distances > 0).all()
    assert "ensemble" not in case.places


def test_front_is_of_baselines_alone_and_never_empty(case):
    masks = front(case, case.nearest)
    assert set(masks) == set(case.sources) - {"trained", "generated"}
    assert all(len(mask) == len(case.sources[name].test) for name, mask in masks.items())
    assert np.concatenate(list(masks.values())).any()


def test_evidence_has_every_figure(run, case):
    found = evidence(run, case)
    assert set(found.tests) == set(case.sources)
    assert list(found.trains) == ["generated"]
    assert found.path.shape == (8, 2)
    assert found.path_steps[-1] == 50
    assert set(found.latents) == {"trained", "generated"}
    assert set(found.codec_errors) == set(run.layout.names)
    assert {len(values["generated"]) for values in found.coordinates.values()} == {5}


def test_averages_are_found_by_their_type_whatever_they_are_called(finished, monkeypatch):
    config = finished.config()
    sources = config["evaluate"]["sources"]
    sources |= {"mixed": {**sources["soup16"], "members": 9}, "few": {**sources["soup16"], "members": 2}}
    run, plain = Run(resolve(config), finished), Run(resolve(finished.config()), finished)
    read = read_sources(plain, open_pool(plain))
    own = dict.fromkeys(("mixed", "few"), read["soup16"])
    monkeypatch.setattr("pdiff.stages.compare.read_sources", lambda run, pool: read | own)
    case = open_case(run)
    assert case.averages == "mixed"
    assert case.small == ["soup16", "mixed", "few"], "there are six fitted ones to average"
    assert [members(run, name, open_pool(run)) for name in ("soup16", "mixed", "few")] == [3, 6, 2]


def test_the_metric_of_a_dead_candidate_is_infinitely_bad(run, tmp_path, monkeypatch):
    monkeypatch.setattr(run.directory, "path", tmp_path)
    (tmp_path / "evaluation").mkdir()
    lines = [{"split": "test", "metric": None, "details": {}}, {"split": "test", "metric": 0.5, "details": {}}]
    (tmp_path / "evaluation" / "odd.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_metrics(run, "odd")["test"].tolist() == [-np.inf, 0.5]


def test_sources_are_read_as_they_were_evaluated(run):
    sources = read_sources(run, open_pool(run))
    assert sources["ensemble"].vectors.ndim == 3
    assert not sources["ensemble"].has_place
    for source in sources.values():
        assert len(source.vectors) == len(source.test) == len(source.signature) == len(source.details)
        assert torch.equal(source.scores.double().mean(1), torch.tensor(source.test))


class Drawing:
    """A plugin's hook that draws."""

    @hookimpl
    def draw(self, picks, folder):
        """Say how many candidates there are of two sources."""
        counts = ", ".join(f"{name} {len(picks[name])}" for name in ("generated", "trained"))
        return [Picture("dots.png", "Dots", counts)]


def test_a_plugin_that_draws_gets_candidates_that_have_a_place(finished):
    run = Run(resolve(finished.config()), finished)
    sources = read_sources(run, open_pool(run))
    assert draw_pictures(run, sources) == []
    run.plugin.register(Drawing(), "drawing")
    assert draw_pictures(run, sources) == [{"file": "dots.png", "title": "Dots", "caption": "generated 5, trained 8"}]


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"soup16": 16, "soup200": 200}, "soup16"),
        ({"soup2": 2, "soup16": 16}, "soup16"),
        ({"soup2": 2, "soup4": 4}, "soup4"),
        ({}, None),
    ],
)
def test_a_soup_of_nearly_all_does_not_take_the_place_of_averages_of_a_few(members, name):
    assert averages_of_a_few(members) == name
