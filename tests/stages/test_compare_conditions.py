"""A run over conditions from end to end: what it writes, and that it ends with the same however it came there."""

import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pdiff import Picture, hookimpl
from pdiff.analysis.conditional import KINDS
from pdiff.commands import run as command
from pdiff.report.side_by_side_conditions import cells
from pdiff.run.comparison import read_runs
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.grouping import group_runs
from pdiff.run.heldout import heldout_record, split_population
from pdiff.run.run import Run
from pdiff.run.sources import left_out, open_pool, open_source
from pdiff.run.wanted import open_wanted
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import merge
from pdiff.runtime.storage import read_json, write_json
from pdiff.stages.compare import compare
from pdiff.stages.compare_conditions import rivals_of
from pdiff.stages.pipeline import run_pipeline

FEW = ("oracle", "nearest", "ridge", "generated", "generated_permuted", "trained", "soup16")


@pytest.fixture(scope="module")
def summary(conditional) -> dict:
    """Return the summary of the finished run."""
    return read_json(conditional.path / "report" / "summary.json")


@pytest.fixture(scope="module")
def run(conditional) -> Run:
    """Return the finished run."""
    return Run(resolve(conditional.config()), conditional)


@pytest.fixture
def few(closed) -> dict:
    """Return the values of the config of a run with few sources."""
    both = {table: resolve(closed).evaluate[table] for table in ("conditional", "sources")}
    few = {table: {name: None for name in found if name not in FEW} for table, found in both.items()}
    return {**closed, "evaluate": few}


@pytest.fixture
def finish(few, tmp_path):
    """Return a function that finishes a run with few sources and some settings changed, and returns its summary."""

    def work(name: str = "run", conditional: dict | None = None, **changes) -> dict:
        values = {**few, "evaluate": merge(few["evaluate"], {"conditional": conditional or {}})}
        for section, settings in changes.items():
            values[section] = {**values.get(section, {}), **settings}
        run_pipeline(resolve(values), RunDirectory(tmp_path / name), gates=False)
        return read_json(tmp_path / name / "report" / "summary.json")

    return work


def lines(directory: RunDirectory, name: str) -> list[dict]:
    return [json.loads(line) for line in (directory.path / "evaluation" / f"{name}.jsonl").read_text().splitlines()]


def test_needed_sources_alone_say_what_they_leave_out(finish):
    found = finish(evaluate={"only": []})
    assert list(found["sources"]) == ["oracle", "generated"]
    assert found["verdict"].endswith("; left out by evaluate.only: nearest, ridge, generated_permuted")


def test_rivals_that_are_left_out_leave_the_verdict_open(finish, tmp_path):
    found = finish(evaluate={"only": ["ridge"]}, conditional={"far": {"type": "nearest", "k": 3}})
    assert found["verdict"].endswith("; left out by evaluate.only: nearest, generated_permuted, far")
    run = Run(resolve(RunDirectory(tmp_path / "run").config()), RunDirectory(tmp_path / "run"))
    assert rivals_of(run, left_out(run)) == ["nearest", "far"]


def test_seed_of_the_fit_leaves_the_split_of_the_conditions_as_it_is(closed, conditional, tmp_path, results):
    directory = RunDirectory(tmp_path / "other")
    config = resolve(merge(closed, {"fit": {"seed": 1}}))
    run_pipeline(config, directory, ["fit"], collection=conditional.path, gates=False)
    own, whole = results(directory.path), results(conditional.path)
    assert own["engine/heldout.json"] == whole["engine/heldout.json"]
    assert own["engine/denoiser.safetensors"] != whole["engine/denoiser.safetensors"]


def test_summary_says_how_the_conditions_were_split(summary, run):
    found, record = summary["conditions"], heldout_record(run)
    assert (found["seen"], found["select"], found["unseen"], found["left_out"]) == (15, 6, 9, 0)
    assert found["groups"] == {"seen": 15, "select": 6, "unseen": 9}
    assert (found["names"], found["split"], found["symmetry"]) == (["bit0", "bit1"], "random", None)
    assert found["lines"] == [record["line"]]
    seen = run.population.conditions.take([row for row in range(30) if row not in record["rows"]])
    distance = run.population.conditions.take(sorted(record["unseen"])).distances(seen).min(1)
    assert found["distance"]["min"] == pytest.approx(distance.min())
    assert found["distance"]["median"] == pytest.approx(np.median(distance))
    assert sorted(summary["points"]["distance"]) == pytest.approx(sorted(distance))
    assert set(found["example"]) == {"bit0", "bit1"}


def test_finished_run_can_stand_beside_others(conditional, summary):
    (found,) = read_runs([conditional.path])
    assert found.type_of("nearest10") == "nearest"
    assert found.groups == summary["conditions"]["groups"]["unseen"]
    assert found.rank[1] == len(summary["sources"]) - 3, "without oracle, oracle_codec and generated_permuted"
    assert cells(*group_runs([found]))[4] == summary["best_source"]


def test_summary_has_a_row_for_every_source_with_all_its_figures(summary):
    names = {
        "oracle", "nearest", "nearest10", "interpolation2", "ridge", "ridge2", "kernel_ridge", "regression", "soup",
        "generated", "generated_permuted", "oracle_codec",
    }  # fmt: skip
    keys = {
        "n", "units", "mean", "ci", "std", "worst", "select", "dead", "to_oracle", "agreement", "distance", "spread",
        "dispersion", "near", "obeys", "seconds", "note", "type",
    }  # fmt: skip
    assert set(summary["sources"]) == names, "there is no symmetry"
    assert all(set(row) == keys for row in summary["sources"].values())
    assert set(summary["comparisons"]) == names - {"generated"}
    assert set(summary["points"]["metric"]) == names
    assert {len(values) for values in summary["points"]["metric"].values()} == {9}
    assert summary["verdict_kind"] in KINDS
    assert summary["verdict"].startswith(summary["verdict_kind"])
    assert summary["conditional"]
    assert set(summary["seconds"]) == set(ORDER)


def test_page_on_conditions_names_every_key_and_every_kind_of_verdict(summary):
    text = (Path(__file__).parents[2] / "docs" / "conditions.md").read_text()
    told = set(re.findall(r"`([a-z_ ]+)`", text[text.index("The verdict sets") :]))
    rows = [*summary["sources"].values(), *summary["comparisons"].values(), summary["conditions"], summary["points"]]
    keys = {*summary, *(key for row in rows for key in row), *summary["conditions"]["distance"]}
    assert {*keys, *KINDS} <= told


def test_figures_are_those_of_the_evaluation_over_unseen_conditions_alone(summary, conditional, run):
    unseen, row = open_wanted(run).unseen, summary["sources"]["nearest"]
    found = lines(conditional, "nearest")
    test, select = (np.array([r["metric"] for r in found if r["split"] == split]) for split in ("test", "select"))
    assert len(test) == len(select) == len(unseen) == 15
    assert row["mean"] == pytest.approx(test[unseen].mean())
    assert row["select"] == pytest.approx(select[~unseen].mean())
    assert summary["points"]["metric"]["nearest"] == test[unseen].tolist()


def test_best_source_is_that_of_the_select_conditions_among_those_a_user_can_have(summary):
    select = {name: row["select"] for name, row in summary["sources"].items()}
    mine = {name: value for name, value in select.items() if not name.startswith(("oracle", "generated_permuted"))}
    assert summary["best_source"] == max(mine, key=mine.get)


def test_sources_do_what_they_are_for(summary):
    sources = summary["sources"]
    assert sources["ridge"]["mean"] > sources["oracle"]["mean"] > sources["nearest"]["mean"] > sources["soup"]["mean"]
    for name, slope in (("oracle", 1), ("ridge", 1), ("soup", 0)):
        for figures in sources[name]["obeys"].values():
            assert figures["slope"] == pytest.approx(slope, abs=0.15)
    assert sources["nearest"]["distance"] == 0
    assert sources["oracle"]["spread"] == pytest.approx(1)
    assert sources["soup"]["spread"] == 0
    assert sources["oracle"]["to_oracle"] is None
    assert sources["oracle"]["agreement"] is None, "there is one for each condition"


def test_table_and_page_tell_of_every_source(summary, conditional):
    table = (conditional.path / "report" / "table.md").read_text()
    page = (conditional.path / "report" / "report.html").read_text()
    for name in summary["sources"]:
        assert f"| {name}" in table
        assert name in page
    assert summary["verdict"] in table


def test_files_say_for_what_each_network_is(conditional, run):
    samples, wanted = read_json(conditional.path / "samples" / "samples.json"), open_wanted(run)
    assert samples["wanted"] == list(range(15))
    assert samples["guidance"] == 1.0
    assert all(set(record["condition"]) == {"bit0", "bit1"} for record in run.population.provenance)
    assert {"condition" in row for row in lines(conditional, "ridge") if row["split"] == "test"} == {True}
    assert {"condition" in row for row in lines(conditional, "ridge") if row["split"] == "select"} == {False}
    assert not (conditional.path / "samples" / "path.safetensors").exists()
    oracles = run.population.conditions.take(wanted.oracles)
    assert torch.equal(wanted.conditions.take(wanted.oracle_of).values, oracles.values)


def test_engine_is_fitted_to_the_seen_alone(run):
    record = heldout_record(run)
    pool = open_pool(run)
    assert sorted([*pool.fitted.tolist(), *record["rows"]]) == list(range(30))
    assert not set(pool.wanted.groups) & set(pool.wanted.seen_groups)


def test_gates_look_at_no_network_for_an_unseen_condition(run):
    assert split_population(run)[1].rows.tolist() == heldout_record(run)["select"]


def test_run_without_conditions_writes_what_it_always_wrote(finish, tmp_path):
    summary = finish(collect={"conditional": False}, generate={"num": 3, "path": 0}, task={"measured": False})
    samples = read_json(tmp_path / "run" / "samples" / "samples.json")
    assert set(samples) == {"num", "seed", "layout", "sampler", "spread"}
    assert samples["num"] == 3
    for name in ("population/provenance.jsonl", "evaluation/generated.jsonl"):
        assert "condition" not in (tmp_path / "run" / name).read_text()
    assert set(read_json(tmp_path / "run" / "engine" / "heldout.json")) == {"rows", "gap", "by", "line"}
    assert "conditional" not in summary
    assert "trained" in summary["sources"]
    assert not (tmp_path / "run" / "evaluation" / "oracle.jsonl").exists()


def test_comparison_alone_finds_the_same_again(conditional, summary, tmp_path, call):
    shutil.copytree(conditional.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "report")
    options = ("--config", tmp_path / "run" / "config.yaml", "--work-dir", tmp_path / "run", "--no-gates")
    done = call("run", *options, "--stage", "compare", "--overwrite")
    assert done.code == 0, done.err
    again = read_json(tmp_path / "run" / "report" / "summary.json")
    times = ("seconds", "peak_memory_bytes", "environment", "command", "resumed")
    for row in (*summary["sources"].values(), *again["sources"].values()):
        row["seconds"] = None
    assert {key: value for key, value in again.items() if key not in times} == {
        key: value for key, value in summary.items() if key not in times
    }


def test_nobody_knows_the_seconds_of_an_oracle_whose_collection_was_interrupted(conditional, tmp_path, call):
    shutil.copytree(conditional.path, tmp_path / "run")
    before = read_json(tmp_path / "run" / "report" / "summary.json")["sources"]
    records = read_json(tmp_path / "run" / "stages.json")
    records["collect"]["resumed"] = True
    write_json(tmp_path / "run" / "stages.json", records)
    options = ("--config", tmp_path / "run" / "config.yaml", "--work-dir", tmp_path / "run", "--no-gates")
    done = call("run", *options, "--stage", "compare", "--overwrite")
    assert done.code == 0, done.err
    sources = read_json(tmp_path / "run" / "report" / "summary.json")["sources"]
    assert before["oracle"]["seconds"] > 0
    assert sources["oracle"]["seconds"] is None, "only the last attempt was timed"
    assert sources["generated"]["seconds"] > 0


# Where to kill, by what is about to be done with a file.
MOMENTS = {
    "collecting": ("open", "population/provenance.jsonl", 12),
    "splitting": ("os.rename", "engine/heldout.json", 1),
    "fitting": ("os.rename", "engine/engine.json", 1),
    "generating": ("os.rename", "samples/samples.json", 1),
    "evaluating": ("os.rename", "evaluation/ridge.jsonl", 1),
    "comparing": ("os.rename", "report/table.md", 1),
}


def test_run_that_is_killed_again_and_again_ends_with_the_same_bytes(few, finish, killed, tmp_path, results):
    finish("whole")
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(few))
    arguments = ["--config", str(tmp_path / "few.yaml"), "--work-dir", str(tmp_path / "run"), "--no-gates"]
    again = partial(command.main, [*arguments, "--resume"])
    for name, (event, file, count) in MOMENTS.items():
        assert killed(again, event, tmp_path / "run" / file, count), name
    assert again() == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_two_processes_evaluate_what_one_evaluates(few, finish, together, tmp_path, results):
    finish("one")
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(few))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    RunDirectory(tmp_path / "two").drop(ORDER[3:])
    started = together("--config", tmp_path / "few.yaml", "--resume", "--no-gates", "--work-dir", tmp_path / "two")
    assert started.codes() == [0, 0], started.text("err")
    assert results(tmp_path / "two") == results(tmp_path / "one")


def test_several_networks_and_draws_and_fits_for_a_condition(finish, tmp_path):
    summary = finish(
        collect={"networks": 16, "each": 2, "lineages": 2}, generate={"draws": 2, "guidance": 1.5}, fit={"repeats": 2},
        conditional={
            "mean": {"type": "generated_mean", "draws": 3}, "told": {"type": "kernel_ridge", "within": "lineage"},
        },
    )  # fmt: skip
    sources = summary["sources"]
    assert (sources["oracle"]["n"], sources["oracle"]["units"]) == (20, 5)
    assert sources["oracle"]["dispersion"] > 0.5
    assert sources["oracle"]["agreement"] > 0
    assert sources["generated"]["n"] == 20, "two draws from two fits for each of five"
    assert sources["generated"]["dispersion"] > 0
    alone = finish("alone", collect={"networks": 16}, fit={"repeats": 2})["sources"]["generated"]
    assert alone["dispersion"] is None, "what two fits draw are no two draws of one"
    assert (sources["told"]["n"], sources["told"]["units"]) == (10, 5), "one of each lineage"
    assert sources["ridge"]["dispersion"] is None
    assert sources["told"]["mean"] > 0.9
    assert sources["ridge"]["mean"] < 0.4
    assert summary["best_source"] == "told"
    samples = read_json(tmp_path / "run" / "samples" / "samples.json")
    assert samples["wanted"] == [*range(8)] * 4
    assert samples["fits"] == [0] * 16 + [1] * 16
    assert not any("of one fit" in note for note in summary["notes"])


def test_complements_stay_together_and_the_symmetry_is_a_source(finish):
    summary = finish(
        collect={"bits": True, "numbers": 5},
        fit={"symmetry": {"type": "complement", "swap": ["weight"]}},
        conditional={"symmetry": {"type": "symmetry"}},
    )
    conditions = summary["conditions"]
    assert (conditions["seen"], conditions["select"], conditions["unseen"]) == (16, 6, 8)
    assert conditions["groups"] == {"seen": 8, "select": 3, "unseen": 4}
    assert conditions["symmetry"] == "complement"
    assert conditions["distance"]["unit"] == "numbers that differ"
    assert summary["sources"]["symmetry"]["units"] == 4
    assert summary["sources"]["ridge"]["mean"] > 0.9


def test_neighbours_are_left_out_of_the_seen(finish):
    split = {"type": "ball", "radius": 1, "select": 0.05, "unseen": 0.1}
    summary = finish(collect={"bits": True, "numbers": 5}, fit={"split": split})
    conditions = summary["conditions"]
    assert conditions["left_out"] > 0
    assert conditions["distance"]["min"] == 2
    assert conditions["seen"] + conditions["select"] + conditions["unseen"] + conditions["left_out"] == 30


def test_lower_is_better_without_chance_or_scores(finish):
    summary = finish(task={"higher": False, "chance": None, "scores": False, "measured": False})
    sources = summary["sources"]
    assert sources["oracle"]["mean"] < sources["nearest"]["mean"]
    assert sources["nearest"]["to_oracle"]["difference"] < 0
    assert summary["best_source"] == "ridge"
    assert sources["ridge"]["obeys"] == {}
    assert "the metric has no scores: intervals take the test set as it is" in summary["notes"]


def nothing(pool, rng):
    """Return vectors without a number."""
    return torch.full((len(pool.wanted), pool.layout.size), torch.nan)


def too_few(pool, rng):
    """Return two vectors."""
    return torch.zeros(2, pool.layout.size)


@pytest.mark.parametrize(("ill", "chance"), [(3, None), (3, 0.0), (1, None)])
def test_dead_networks_do_not_stop_a_comparison(finish, ill, chance):
    foreign = {"nothing": {"type": nothing}, "several": {"type": "ensemble", "members": 3}}
    summary = finish(task={"ill": ill, "chance": chance}, conditional=foreign)
    assert summary["verdict_kind"] == "dead"
    row = summary["sources"]["nothing"]
    assert (row["dead"], row["distance"], row["spread"]) == (9, None, None)
    assert row["mean"] == (None if chance is None else 0)
    assert (summary["sources"]["oracle"]["mean"] is None) == (ill == 1)
    assert summary["sources"]["several"]["distance"] is None


def test_source_of_a_third_party_that_gives_too_few_is_one_line(finish):
    line = r"^evaluate\.conditional\.few: got 2 vectors for 15 wanted conditions, expected one for each\."
    with pytest.raises(PdiffError, match=line):
        finish(conditional={"few": {"type": too_few}})


def test_a_single_number_that_never_differs_is_no_obstacle(finish):
    summary = finish(collect={"constant": True})
    assert summary["sources"]["ridge"]["mean"] > 0.9
    assert set(summary["sources"]["ridge"]["obeys"]) == {"bit0"}, "what is asked for once has no slope"
    assert finish("one", collect={"numbers": 1, "networks": 20})["conditions"]["names"] == ["bit0"]


def test_no_other_source_decides_nothing(finish):
    summary = finish(conditional=dict.fromkeys(("nearest", "ridge", "generated_permuted")), task={"chance": None})
    assert set(summary["sources"]) == {"oracle", "generated"}
    assert summary["best_source"] == "generated"
    assert summary["verdict"] == "not decided: no other source gives networks for new conditions"


def test_too_few_conditions_stop_the_fit_before_anything_is_learnt(finish, tmp_path):
    with pytest.raises(PdiffError, match="got 2 groups of conditions that are seen, expected at least 3"):
        finish(collect={"networks": 5})
    assert not (tmp_path / "run" / "engine" / "engine.json").exists()


def test_seven_subsets_of_three_classes_are_enough_for_every_source(closed, tmp_path):
    closed |= {"collect": {"bits": True, "whole": True, "numbers": 3}, "fit": {}}
    closed["evaluate"]["conditional"] |= {"base": {"type": "base"}, "short": {"type": "finetuned", "steps": 3}}
    run_pipeline(resolve(closed), RunDirectory(tmp_path / "run"), gates=False)
    summary = read_json(tmp_path / "run" / "report" / "summary.json")
    conditions = summary["conditions"]
    assert (conditions["seen"], conditions["select"], conditions["unseen"]) == (4, 1, 2)
    assert all(row["mean"] is not None for row in summary["sources"].values())
    assert {"nearest10", "interpolation2", "ridge", "ridge2", "kernel_ridge", "regression", "short"} <= set(
        summary["sources"]
    )
    line = "groups of unseen conditions: 2, too few to say much. Take networks for more conditions, or raise"
    assert f"{line} fit.split.unseen" in summary["notes"]
    assert "nearest10: the mean of all 4 seen networks, for there are no 10" in summary["notes"]


class Drawing:
    """A plugin's hook that draws."""

    def __init__(self):
        self.picks = {}

    @hookimpl
    def draw(self, picks, folder):
        """Keep what there is to draw."""
        self.picks = picks
        (folder / "dots.png").write_bytes(b"\x89PNG")
        return [Picture("dots.png", "Dots of conditions", "A caption.")]


def test_plugin_draws_the_same_unseen_conditions_of_each_source(conditional, tmp_path):
    shutil.copytree(conditional.path, tmp_path / "run")
    run, drawing = Run(resolve(conditional.config()), RunDirectory(tmp_path / "run")), Drawing()
    run.plugin.register(drawing, "drawing")
    compare(run)
    picks = drawing.picks
    assert next(iter(picks)) == "oracle"
    assert set(picks) == set(read_json(conditional.path / "report" / "summary.json")["sources"])
    wanted = open_wanted(run)
    chosen = wanted.conditions.take(np.flatnonzero(wanted.unseen)[[0, 2, 3, 5, 6, 8]])
    assert all(torch.equal(each.conditions.values, chosen.values) for each in picks.values())
    assert all(each.vectors.shape == (6, 12) for each in picks.values())
    assert read_json(tmp_path / "run" / "report" / "summary.json")["pictures"][0]["title"] == "Dots of conditions"
    assert "Dots of conditions" in (tmp_path / "run" / "report" / "report.html").read_text()


def test_a_source_is_the_same_in_every_stage(run):
    pool = open_pool(run)
    for name in ("nearest10", "regression", "generated_permuted", "oracle_codec"):
        first, second = (open_source(run, name, each) for each in (pool, open_pool(run)))
        assert torch.equal(first.vectors[:], second.vectors[:])


def test_checkpoints_of_a_user_are_split_as_their_table_says(finish, few, run, tmp_path):
    files, table = tmp_path / "files", ["file,bit0,bit1,split"]
    files.mkdir()
    for row, (vector, condition) in enumerate(zip(run.population.tensor(), run.population.conditions, strict=True)):
        torch.save({"weight": vector.view(2, 6)}, files / f"{row:02}.pth")
        part = "seen" if row < 20 else "select" if row < 24 else "unseen"
        table.append(f"{row:02}.pth,{condition['bit0']!r},{condition['bit1']!r},{part}")
    (tmp_path / "table.csv").write_text("\n".join(table) + "\n")
    few |= {"collect": {}, "fit": {"split": {"type": "given"}}}
    summary = finish(checkpoints={"files": str(files), "conditions": str(tmp_path / "table.csv")})
    conditions = summary["conditions"]
    assert (conditions["seen"], conditions["select"], conditions["unseen"]) == (20, 4, 6)
    assert conditions["split"] == "given"
    assert summary["sources"]["oracle"]["seconds"] is None, "nobody knows"
    assert summary["sources"]["ridge"]["mean"] > 0.9
