"""Sources that are made of another one: what they begin with, how many there are, each mistake one line."""

import pytest
import torch

from pdiff.run.config import resolve
from pdiff.run.derived import chain, count_of, root
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.run.sources import check_sources, open_pool, open_source
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import merge
from pdiff.runtime.storage import read_json
from pdiff.stages.pipeline import run_pipeline

EACH = {"type": "ensemble_of", "members": 3}


def with_sources(values: dict, sources: dict, section: str = "sources") -> Run:
    """Return a run that is not begun, with these sources beside the others."""
    return Run(resolve(merge(values, {"evaluate": {section: sources}})), RunDirectory("nowhere"))


def test_a_source_begins_with_what_its_chain_ends_in():
    table = {
        "best": {"type": "refined", "of": "more"},
        "more": {"type": "refined", "of": "drawn"},
        "drawn": {"type": "generated"},
        "round": {"type": "refined", "of": "about"},
        "about": {"type": "refined", "of": "round"},
    }
    assert chain(table, "best") == ["best", "more", "drawn"]
    assert root(table, "best") == "generated"
    assert root(table, "drawn") == "generated"
    assert chain(table, "round") == ["round", "about", "round"]


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ({"e": {**EACH, "of": "soup61"}}, r"e\.of: got 'soup61'\. Did you mean 'soup16'\? Known: codec, ensemble,"),
        ({"e": {**EACH, "of": "ensemble"}}, r"e\.of: got 'ensemble', which are several networks each, expected a so"),
        ({"e": {**EACH, "of": "e"}}, r"e\.of: got 'e', and e of e has no beginning, expected a source that is not"),
        ({"e": {**EACH, "of": "d"}, "d": {**EACH, "of": "e"}}, r"e\.of: got 'd', and e of d of e has no beginning"),
        ({"e": {**EACH, "of": "generated", "members": 6}}, r"e\.members: got 6, expected at most 5, the candidates of"),
        ({"e": {**EACH, "of": "swag", "members": 5}}, r"e\.members: got 5, expected at most 4, the candidates of swag"),
        ({"e": {**EACH, "of": "soup", "members": 2}}, r"e\.members: got 2, expected at most 1, the candidates of soup"),
        ({"e": {**EACH, "of": "swag", "members": 0}}, r"e\.members: got 0, expected an integer from 1 on"),
        ({"e": {"type": "ensemble_of"}}, r"e: missing a required argument: 'of'"),
    ],
)
def test_what_cannot_be_made_of_another_source_is_told_before_anything_is_computed(tiny, sources, words):
    with pytest.raises(PdiffError, match=rf"^evaluate\.sources\.{words}"):
        check_sources(with_sources(tiny, sources))


def test_an_ensemble_of_networks_for_conditions_is_refused(closed):
    run = with_sources(closed, {"e": {**EACH, "of": "generated"}}, "conditional")
    with pytest.raises(PdiffError, match=r"^evaluate\.conditional\.e\.type: got 'ensemble_of', whose networks are for"):
        check_sources(run)


def test_candidates_are_counted_as_they_will_be(tiny):
    tiny["evaluate"]["sources"]["swag"] = {"num": 3}
    run = with_sources(tiny, {"e": {**EACH, "of": "swag", "num": 2}, "f": {**EACH, "of": "swag"}})
    table = run.config.evaluate.sources
    assert [count_of(run, table, name, 50) for name in ("e", "f", "swag", "trained", "soup", "generated")] == [
        2, 1, 3, 50, 1, 5,
    ]  # fmt: skip


def test_an_ensemble_of_each_source_is_measured_and_reported(tiny, tmp_path):
    sources = {f"{of}_together": {**EACH, "of": of} for of in ("swag", "generated", "trained")}
    config = resolve(merge(tiny, {"evaluate": {"sources": sources}}))
    run_pipeline(config, RunDirectory(tmp_path / "run"), gates=False)
    summary = read_json(tmp_path / "run" / "report" / "summary.json")
    assert set(sources) <= set(summary["sources"])
    assert "generated_together" not in summary["comparisons"], "what is made of the generated is no baseline of theirs"
    assert "swag_together" in summary["comparisons"]
    run = Run(config, RunDirectory(tmp_path / "run"))
    pool = open_pool(run)
    (group,) = open_source(run, "swag_together", pool).vectors[:]
    swag = open_source(run, "swag", pool).vectors[:]
    assert torch.cdist(group, swag).min(1).values.max() < 1e-3
