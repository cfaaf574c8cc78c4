import json
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest
import torch

from pdiff import PdiffError
from pdiff.plan import make_plan
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.run.stage import STAGES, Stage
from pdiff.runtime.storage import write_json
from pdiff.stages.pipeline import run_pipeline


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "copy")
    return RunDirectory(tmp_path / "copy")


def test_run_leaves_the_files_that_the_design_names(finished):
    names = {str(path.relative_to(finished.path)) for path in finished.path.rglob("*")}
    assert {
        "config.yaml", "environment.json", "base.safetensors", "population/layout.json", "population/vectors.f32",
        "population/provenance.jsonl", "engine/engine.json", "engine/denoiser.safetensors",
        "samples/vectors.safetensors", "samples/samples.json", "evaluation/generated.jsonl",
        "evaluation/generated.safetensors", "report/summary.json", "report/table.md", "report/distribution.png",
        "report/similarity.png", "report/training.png",
    } <= names  # fmt: skip
    assert not [name for name in names if name.endswith((".part", ".state.safetensors", ".pkl", ".pth"))]


def test_summary_has_what_other_programs_read(finished):
    summary = json.loads((finished.path / "report" / "summary.json").read_text())
    assert set(summary) == {
        "plugin", "metric", "task", "verdict", "verdict_kind", "margin", "quality", "baselines", "notes", "gates",
        "gates_ignored", "budget", "dependence", "sources", "comparisons", "choice", "copying", "novelty",
        "pictures", "resumed", "environment", "command", "seconds", "peak_memory_bytes",
    }  # fmt: skip
    assert summary["metric"] == {"name": "accuracy", "higher_is_better": True, "chance": 0.1, "best": 1.0}
    assert (summary["task"], summary["pictures"]) == ({}, [])
    assert set(summary["seconds"]) == set(summary["peak_memory_bytes"]) == set(ORDER)
    assert {name: row["n"] for name, row in summary["sources"].items()} == {
        "trained": 10, "generated": 5, "codec": 4, "soup": 1, "soup16": 4, "ensemble": 1, "interpolation": 4,
        "gaussian": 4, "swag": 4, "latent_gaussian": 4, "noise05": 4, "noise15": 4,
    }  # fmt: skip
    for row in summary["sources"].values():
        assert 0 <= row["worst"] <= row["mean"] <= row["best_ci"][1] + 0.2
        assert row["best_ci"][0] <= row["best"] <= row["best_ci"][1]


def test_record_of_each_stage_says_on_what_it_ran(finished):
    records = finished.records()
    assert {stage: records[stage]["device"] for stage in ORDER} == dict.fromkeys(ORDER, "cpu")
    assert not any("flags" in record for record in records.values())  # of a CPU there are none to tell


def test_report_says_where_the_stages_ran_on_different_devices(copied):
    assert "devices" not in copied.environment()
    records = copied.records()
    records["evaluate"]["device"] = "NVIDIA H200"
    write_json(copied.path / "stages.json", records)
    assert copied.environment()["devices"] == {**dict.fromkeys(ORDER, "cpu"), "evaluate": "NVIDIA H200"}


def test_what_is_measured_is_computed_by_what_a_gpu_repeats(tiny, tmp_path, monkeypatch):
    blocks, measured = [], []

    @contextmanager
    def watched(device):
        blocks.append(device.type)
        yield
        blocks.pop()

    for name in ("pdiff.stages.pipeline", "pdiff.run.run", "pdiff.run.measuring"):
        monkeypatch.setattr(f"{name}.exact", watched)
    monkeypatch.setattr("pdiff.stages.pipeline.perform", lambda run, stage: measured.append((stage, len(blocks))))
    monkeypatch.setattr(RunDirectory, "finish", lambda *_: None)
    monkeypatch.setattr(RunDirectory, "require", lambda *_: None)
    monkeypatch.setattr("pdiff.stages.pipeline.pass_gate", lambda *_: None)
    run_pipeline(resolve(tiny), RunDirectory(tmp_path / "run"))
    assert measured == [("collect", 1), ("fit", 0), ("generate", 0), ("evaluate", 1), ("compare", 0)]


def test_flags_that_a_plugin_s_libraries_set_end_with_the_stage(tiny, tmp_path, monkeypatch):
    def leak(run, stage):
        torch.backends.cudnn.benchmark = True

    monkeypatch.setattr("pdiff.stages.pipeline.perform", leak)
    monkeypatch.setattr(RunDirectory, "finish", lambda *_: None)
    run_pipeline(resolve(tiny), RunDirectory(tmp_path / "run"), ["collect"], gates=False)
    assert not torch.backends.cudnn.benchmark


def test_same_config_gives_the_same_bytes(finished, tiny, tmp_path, results):
    run_pipeline(resolve(tiny), RunDirectory(tmp_path / "again"), ORDER[:4], gates=False)
    assert results(tmp_path / "again") == results(finished.path)


def test_seed_of_the_fit_leaves_the_collection_and_the_split_as_they_are(finished, tiny, tmp_path, results):
    tiny["fit"] = {"seed": 1}
    directory = RunDirectory(tmp_path / "other")
    run_pipeline(resolve(tiny), directory, ORDER[:4], gates=False, collection=finished.path)
    own, whole = results(directory.path), results(finished.path)
    same = {name for name in whole if own[name] == whole[name]}
    collected = {name for name in whole if name.split("/")[0] in ("population", "base.safetensors")}
    assert same >= {*collected, "engine/heldout.json", "evaluation/trained.jsonl", "evaluation/soup.jsonl"}
    drawn = ("engine/denoiser.safetensors", "samples/vectors.safetensors", "evaluation/noise05.jsonl")
    assert not same & {*drawn, "evaluation/soup16.safetensors"}


def test_seed_of_the_fit_that_is_the_run_s_gives_the_same_bytes(finished, tiny, tmp_path, results):
    tiny["fit"] = {"seed": 0}
    run_pipeline(resolve(tiny), RunDirectory(tmp_path / "same"), ORDER[:4], gates=False, collection=finished.path)
    assert results(tmp_path / "same") == results(finished.path)


def test_stages_run_one_by_one_give_the_same_bytes(finished, tiny, tmp_path, results):
    for stage in ORDER:
        run_pipeline(resolve(tiny), RunDirectory(tmp_path / "single"), [stage], gates=False)
    assert results(tmp_path / "single") == results(finished.path)


def count_candidates(run):
    """What the stage of the test below does."""
    number = sum(1 for _ in (run.directory.folder("evaluate") / "generated.jsonl").open())
    write_json(run.directory.folder("count") / "count.json", {"lines": number})


def test_a_further_stage_is_a_function_and_a_row(copied, tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "counting", SimpleNamespace(count_candidates=count_candidates))
    row = Stage("count", folder="counted", sections=("count",), function="counting:count_candidates")
    monkeypatch.setitem(STAGES, "count", row)
    monkeypatch.setattr("pdiff.run.directory.ORDER", [*ORDER, "count"])
    monkeypatch.setattr("pdiff.stages.pipeline.ORDER", [*ORDER, "count"])
    run_pipeline(resolve(tiny), copied, ["count"], gates=False)
    assert json.loads((copied.path / "counted" / "count.json").read_text()) == {"lines": 5 * 3}
    assert copied.records()["count"]["files"].keys() == {"counted/count.json"}


def test_best_is_chosen_on_select_and_reported_on_test(finished):
    lines = [json.loads(line) for line in (finished.path / "evaluation" / "trained.jsonl").read_text().splitlines()]
    by_split = {split: [r["metric"] for r in lines if r["split"] == split] for split in ("select", "test")}
    row = json.loads((finished.path / "report" / "summary.json").read_text())["sources"]["trained"]
    assert row["best_index"] == by_split["select"].index(max(by_split["select"]))
    assert row["best"] == by_split["test"][row["best_index"]]


def test_finished_run_is_not_repeated_unless_asked(copied, tiny):
    with pytest.raises(PdiffError, match="collect was run before. Give --resume to go on, or --overwrite to repeat"):
        run_pipeline(resolve(tiny), copied, gates=False)


def test_resume_of_a_finished_run_changes_nothing(copied, tiny, results):
    before = results(copied.path)
    run_pipeline(resolve(tiny), copied, resume=True, gates=False)
    assert results(copied.path) == before


@pytest.mark.parametrize(
    ("stage", "at", "lower"),
    [
        ("collect", "pdiff.stages.snapshots.append", "collect.train.batch_size"),
        ("fit", "pdiff.engine.parameter_diffusion.ParameterDiffusion.save", "engine"),
        ("evaluate", "pdiff.stages.evaluate.write_results", "task.eval_batch"),
        ("evaluate", "pdiff.stages.evaluate.write_results", "evaluate.together"),
    ],
)
def test_run_whose_memory_is_used_up_goes_on_with_resume(
    finished, tiny, tmp_path, results, monkeypatch, stage, at, lower
):
    work, left = resolve_name(at), [3 if stage != "fit" else 1]

    def until(*arguments):
        left[0] -= 1
        if left[0] == 0:
            raise MemoryError
        return work(*arguments)

    directory = RunDirectory(tmp_path / "run")
    if stage != "collect":
        shutil.copytree(finished.path, directory.path)
        directory.drop(ORDER[ORDER.index(stage) :])
    monkeypatch.setattr(at, until)
    with pytest.raises(PdiffError, match=rf"^{stage}: memory is used up. .* lower [a-z_., ]*{lower}"):
        run_pipeline(resolve(tiny), directory, ORDER[:4], resume=True, gates=False)
    monkeypatch.undo()
    assert directory.started(stage)
    run_pipeline(resolve(tiny), directory, ORDER[:4], resume=True, gates=False)
    assert results(directory.path) == results(finished.path)


def test_stage_without_a_batch_size_of_its_own_has_other_advice(copied, tiny, monkeypatch):
    copied.drop(["compare"])
    monkeypatch.setattr("pdiff.stages.compare.open_case", lambda run: torch.empty(2**55))
    monkeypatch.setattr("pdiff.stages.pipeline.flatten", lambda config: {"generate.batch_size": 1000})
    words = "compare: memory is used up. .* Or lower generate.num and num in evaluate.sources, or select fewer"
    with pytest.raises(PdiffError, match=words):
        run_pipeline(resolve(tiny), copied, ["compare"], resume=True, gates=False)


def test_what_killed_writes_have_left_is_removed(copied, tiny, results):
    before = results(copied.path)
    copied.drop(ORDER[2:])
    copied.folder("generate").mkdir()
    torn = [copied.folder("generate") / "vectors.safetensors.part", copied.folder("generate") / ".tmpa1B2c3"]
    for path in torn:
        path.write_bytes(b"torn")
    run_pipeline(resolve(tiny), copied, ORDER[:4], resume=True, gates=False)
    assert not any(path.exists() for path in torn)
    assert results(copied.path) == before


def test_stage_needs_the_one_before_it(tiny, tmp_path):
    with pytest.raises(PdiffError, match="collect is not done. Run it first: --stage collect"):
        run_pipeline(resolve(tiny), RunDirectory(tmp_path / "new"), ["fit"], gates=False)


@pytest.mark.parametrize(
    ("section", "settings", "line"),
    [
        ("evaluate", {"sources": {"x": {"type": "nosuch"}}}, r"evaluate\.sources\.x\.type: got 'nosuch'\. .*Known: "),
        ("evaluate", {"sources": {"x": {"type": ["soup"]}}}, r"evaluate\.sources\.x\.type: got \['soup'\]\. .*Known: "),
        ("evaluate", {"sources": {"x": {"type": "soup", "axes": 2}}}, r"evaluate\.sources\.x: got unknown key 'axes'"),
        ("evaluate", {"sources": {"x": {"type": "codec", "num": "4"}}}, r"evaluate\.sources\.x\.num: got '4', exp"),
        ("evaluate", {"train": ["nosuch"]}, r"evaluate\.train: got 'nosuch'\. .*Known: "),
        ("generate", {"sampler": {"type": "nosuch"}}, r"generate\.sampler\.type: got 'nosuch'\. Known: "),
    ],
)
def test_source_or_sampler_that_cannot_be_is_refused_before_the_collection_and_in_a_plan(
    tiny, tmp_path, section, settings, line
):
    config = resolve({**tiny, section: {**tiny[section], **settings}})
    with pytest.raises(PdiffError, match=f"^{line}"):
        make_plan(config, tmp_path / "run")
    with pytest.raises(PdiffError, match=f"^{line}"):
        run_pipeline(config, RunDirectory(tmp_path / "run"))
    assert not (tmp_path / "run" / "population").exists()


def test_engine_that_cannot_be_is_refused_before_the_collection(tiny, tmp_path):
    tiny["engine"] = {"autoencoder": {"latent": 0}}
    with pytest.raises(PdiffError, match="engine.autoencoder.latent: got 0"):
        run_pipeline(resolve(tiny), RunDirectory(tmp_path / "new"), gates=False)
    assert not (tmp_path / "new" / "population").exists()


def test_directory_of_another_config_is_refused_by_key(copied, tiny):
    tiny["seed"] = 1
    with pytest.raises(PdiffError, match=r"was made with another config \(seed differ\)"):
        run_pipeline(resolve(tiny), copied, resume=True, gates=False)


@pytest.mark.parametrize("stage", ["generate", "evaluate", "compare"])
def test_engine_of_another_version_stops_a_repetition_before_anything_is_dropped(copied, tiny, stage):
    file = copied.folder("fit") / "engine.json"
    write_json(file, {**json.loads(file.read_text()), "format": 1})
    before = sorted(copied.path.rglob("*"))
    with pytest.raises(PdiffError, match=r"engine\.json: got format 1, expected 3\. Fit again\."):
        run_pipeline(resolve(tiny), copied, [stage], overwrite=True, gates=False)
    assert [path for path in before if not path.exists()] == []


def test_other_config_drops_only_what_depends_on_it_when_asked(copied, tiny):
    population = (copied.path / "population" / "vectors.f32").stat().st_mtime_ns
    tiny["generate"]["num"] = 3
    run_pipeline(resolve(tiny), copied, ORDER[:4], resume=True, overwrite=True, gates=False)
    assert (copied.path / "population" / "vectors.f32").stat().st_mtime_ns == population
    lines = (copied.path / "evaluation" / "generated.jsonl").read_text().splitlines()
    assert len(lines) == 3 * 3, "three candidates on select, test and train"


@pytest.mark.parametrize("calls", range(6))
def test_deletion_that_is_interrupted_leaves_nothing_that_follows_from_what_is_gone(copied, monkeypatch, calls):
    left = iter(range(calls))

    def interrupted(function):
        def act(*arguments):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return function(*arguments)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted(shutil.rmtree))
        patch.setattr(Path, "rename", interrupted(Path.rename))
        with pytest.raises(KeyboardInterrupt):
            copied.drop(ORDER)
    there = [copied.folder(stage).exists() for stage in ORDER]
    assert there == sorted(there, reverse=True)
    assert copied.records() == {}
    copied.drop(())
    assert not list(copied.path.glob(".dropped*"))


def test_later_stage_alone_is_refused_where_an_earlier_one_is_of_another_config(copied, tiny):
    tiny["collect"]["finetune"]["steps"] = 4
    with pytest.raises(PdiffError, match=r"collect was run with another config \(collect.finetune.steps"):
        run_pipeline(resolve(tiny), copied, ["fit"], overwrite=True, gates=False)
    assert (copied.path / "population" / "vectors.f32").exists()


def test_source_that_is_set_to_null_is_left_out(copied, tiny):
    tiny["evaluate"]["sources"]["soup16"] = None
    run_pipeline(resolve(tiny), copied, resume=True, overwrite=True, gates=False)
    summary = json.loads((copied.path / "report" / "summary.json").read_text())
    assert "soup16" not in summary["sources"]


def test_run_of_needed_sources_alone_says_what_it_leaves_out(copied, tiny):
    tiny["evaluate"]["only"] = []
    run_pipeline(resolve(tiny), copied, resume=True, overwrite=True, gates=False)
    summary = json.loads((copied.path / "report" / "summary.json").read_text())
    assert list(summary["sources"]) == ["trained", "generated"]
    assert summary["verdict"].endswith(
        "; left out by evaluate.only: codec, soup, soup16, ensemble, interpolation, gaussian, swag, latent_gaussian, "
        "noise05, noise15"
    )
    assert summary["verdict"] in (copied.path / "report" / "table.md").read_text()
    assert not (copied.path / "evaluation" / "soup.jsonl").exists()


def test_sources_that_are_left_out_change_no_byte_of_the_others(finished, copied, tiny, results):
    tiny["evaluate"]["only"] = ["noise05"]
    run_pipeline(resolve(tiny), copied, ORDER[:4], resume=True, overwrite=True, gates=False)
    whole, own = results(finished.path), results(copied.path)
    files = ("generated.jsonl", "generated.safetensors", "noise05.jsonl", "noise05.safetensors", "trained.jsonl")
    for name in files:
        assert own[f"evaluation/{name}"] == whole[f"evaluation/{name}"]
    assert {name for name in own if name.startswith("evaluation/soup")} == set()


def test_source_that_is_measured_on_training_data_may_be_left_out(copied, tiny):
    tiny["evaluate"] |= {"only": [], "train": ["soup"]}
    run_pipeline(resolve(tiny), copied, ORDER[:4], resume=True, overwrite=True, gates=False)
    assert "train" not in (copied.path / "evaluation" / "generated.jsonl").read_text()


def test_source_of_one_that_is_left_out_is_refused(tiny, tmp_path):
    tiny["evaluate"]["sources"]["several"] = {"type": "ensemble_of", "of": "noise05", "members": 2}
    tiny["evaluate"]["only"] = ["several"]
    with pytest.raises(PdiffError, match=r"^evaluate\.sources\.several\.of: got 'noise05'\. Known: generated, trained"):
        make_plan(resolve(tiny), tmp_path / "run")


def test_plan_counts_no_candidates_of_what_is_left_out(tiny, tmp_path):
    tiny["evaluate"]["only"] = ["soup"]
    assert make_plan(resolve(tiny), tmp_path / "run").candidates == 300 + 5 + 1


def test_run_without_trained_source_is_refused(tiny):
    tiny["evaluate"]["sources"]["trained"] = None
    with pytest.raises(PdiffError, match="evaluate.sources: lacks `trained"):
        resolve(tiny)


def test_device_may_differ_between_calls(copied, tiny):
    tiny["device"] = "cpu"
    run_pipeline(resolve(tiny), copied, resume=True, gates=False)


@pytest.mark.parametrize(
    "file", ["population/vectors.f32", "engine/denoiser.safetensors", "samples/vectors.safetensors", "base.safetensors"]
)
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_file_is_named(copied, tiny, file, damage):
    path = copied.path / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage != "delete":
        path.write_bytes(data if damage == "flip" else data[:-10])
    with pytest.raises(PdiffError, match=rf"{path.name}: (differs from its checksum|is missing)"):
        run_pipeline(resolve(tiny), copied, resume=True, gates=False)


def test_second_run_in_the_same_directory_is_refused(copied, tiny):
    with copied.locked(), pytest.raises(PdiffError, match="another run is using it"):
        run_pipeline(resolve(tiny), RunDirectory(copied.path), resume=True, gates=False)


def test_corrupt_config_of_a_run_is_named(copied, tiny):
    (copied.path / "config.yaml").write_text("a: [")
    with pytest.raises(PdiffError, match=r"config.yaml: is corrupt"):
        run_pipeline(resolve(tiny), copied, resume=True, gates=False)


def test_population_of_one_checkpoint_is_refused_and_kept(tiny, tmp_path):
    tiny["collect"] |= {"branches": 1, "finetune": {**tiny["collect"]["finetune"], "steps": 1}}
    with pytest.raises(PdiffError, match="population: got 1 checkpoint, expected at least 2"):
        run_pipeline(resolve(tiny), RunDirectory(tmp_path / "one"), gates=False)
    assert (tmp_path / "one" / "population" / "vectors.f32").stat().st_size > 0


def write_checkpoints(finished, folder, change=lambda index, state: state):
    """Write the trained networks of a run as full state dicts."""
    from pdiff.runtime.storage import read_tensors, write_tensors
    from pdiff.weights.population import Population

    population = Population.open(finished.path / "population")
    base = read_tensors(finished.path / "base.safetensors")
    folder.mkdir()
    for index, vector in enumerate(population.tensor()):
        state = {**base, **population.layout.unflatten(vector)}
        state = {f"module.{name}": tensor for name, tensor in change(index, state).items()}
        if index % 2:
            torch.save({"state_dict": state, "epoch": 1}, folder / f"epoch_{index}.pth")
        else:
            write_tensors(folder / f"epoch_{index}.safetensors", state)


def test_checkpoints_of_the_user_replace_collection(finished, tiny, tmp_path, results):
    write_checkpoints(finished, tmp_path / "files")
    tiny["checkpoints"] = {"files": str(tmp_path / "files"), "prefix": "module."}
    run_pipeline(resolve(tiny), RunDirectory(tmp_path / "imported"), ORDER[:4], gates=False)
    imported, collected = results(tmp_path / "imported"), results(finished.path)
    for name in ("population/vectors.f32", "evaluation/trained.jsonl"):
        assert imported[name] == collected[name]
    assert b'"file": "epoch_0.safetensors"' in imported["population/provenance.jsonl"].splitlines()[0]


@pytest.mark.parametrize("kind", ["csv", "json", "name"])
def test_checkpoints_of_the_user_get_their_conditions(finished, tiny, tmp_path, kind):
    from pdiff.weights.population import Population

    write_checkpoints(finished, tmp_path / "files")
    table = tmp_path / f"conditions.{kind}"
    if kind == "csv":
        table.write_text("file,epoch\n" + "".join(f"epoch_{i}.*,{i}\n" for i in range(10)))
    if kind == "json":
        table.write_text(json.dumps({f"epoch_{i}.*": {"epoch": i, "split": "seen"} for i in range(10)}))
    conditions = r"epoch_(?P<epoch>\d+)" if kind == "name" else str(table)
    tiny["checkpoints"] = {"files": str(tmp_path / "files"), "prefix": "module.", "conditions": conditions}
    run_pipeline(resolve(tiny), RunDirectory(tmp_path / "imported"), ["collect"], gates=False)
    population = Population.open(tmp_path / "imported" / "population")
    assert population.conditions.names == ("epoch",)
    assert population.conditions.values[:, 0].tolist() == list(range(10))
    assert [row.get("split") for row in population.provenance] == ["seen" if kind == "json" else None] * 10


def spoiled(kind):
    """Return a change of checkpoint 3 that must be refused."""

    def change(index, state):
        state = dict(state)
        names = [n for n in state if n.endswith("bn2.weight")]
        if index != 3:
            return state
        if kind == "missing":
            del state[names[-1]]
        if kind == "shape":
            state[names[-1]] = torch.zeros(3)
        if kind == "nan":
            state[names[-1]] = state[names[-1]] * float("nan")
        if kind == "frozen":
            state["bn1.weight"] = state["bn1.weight"] + 1
        return state

    return change


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", r"epoch_3.pth: lacks '.*bn2.weight'"),
        ("shape", r"epoch_3.pth: '.*bn2.weight' has the shape \(3,\)"),
        ("nan", r"gate collect/finite: got NaN or infinity in epoch_3.pth, '.*bn2.weight' \(1 of 10 checkpoints\)"),
        ("frozen", r"epoch_3.pth: differs from .*epoch_0.safetensors in 'bn1.weight', which is not selected"),
    ],
)
def test_unfit_checkpoint_is_refused_by_file_and_name(finished, tiny, tmp_path, kind, words):
    write_checkpoints(finished, tmp_path / "files", spoiled(kind))
    tiny["checkpoints"] = {"files": str(tmp_path / "files"), "prefix": "module."}
    with pytest.raises(PdiffError, match=words):
        run_pipeline(resolve(tiny), RunDirectory(tmp_path / "imported"), ["collect"])


def test_counters_that_are_not_selected_may_differ(finished, tiny, tmp_path):
    def count(index, state):
        return {n: t + index if n.endswith("num_batches_tracked") else t for n, t in state.items()}

    write_checkpoints(finished, tmp_path / "files", count)
    tiny["checkpoints"] = {"files": str(tmp_path / "files"), "prefix": "module."}
    run_pipeline(resolve(tiny), RunDirectory(tmp_path / "imported"), ["collect"], gates=False)


def test_frozen_part_may_come_from_a_file_that_is_named(finished, tiny, tmp_path):
    write_checkpoints(finished, tmp_path / "files", spoiled("frozen"))
    tiny["checkpoints"] = {
        "files": str(tmp_path / "files"), "prefix": "module.", "base": str(tmp_path / "files" / "epoch_0.safetensors")
    }  # fmt: skip
    run_pipeline(resolve(tiny), RunDirectory(tmp_path / "imported"), ["collect"], gates=False)


STRETCHED = {"timesteps": 10, "prediction": "sample", "zero_terminal_snr": True}


@pytest.mark.parametrize(
    ("engine", "evaluations"),
    [
        ({"generator": {"type": "flow"}}, 49),
        ({"generator": {"type": "flow", "noise_scale": 0.7}, "sampler": {"type": "Euler", "steps": 10}}, 10),
        ({"noise_schedule": STRETCHED}, 10),
        ({"noise_schedule": {"timesteps": 10}}, 10),
    ],
    ids=["flow", "a narrow flow", "a schedule that is stretched", "few timesteps"],
)
def test_any_process_goes_through_all_stages_and_gates(copied, tiny, engine, evaluations):
    tiny["engine"] |= engine
    run_pipeline(resolve(tiny), copied, resume=True, overwrite=True, gates=False)
    summary = json.loads((copied.path / "report" / "summary.json").read_text())
    assert summary["sources"]["generated"]["n"] == 5
    found = {check["name"] for check in json.loads((copied.folder("fit") / "gate.json").read_text())}
    assert {"denoiser", "collapse"} <= found
    assert ("schedule" in found) == (engine.get("noise_schedule") == {"timesteps": 10})
    steps = json.loads((copied.folder("generate") / "samples.json").read_text())["path_steps"]
    assert (steps[0], steps[-1]) == (1, evaluations)


@pytest.mark.parametrize(
    ("section", "changes", "line"),
    [
        ("engine", {"generator": {"type": "nope"}}, r"^engine.generator.type: got 'nope'"),
        ("engine", {"denoiser": {"width": 0}}, r"^engine.denoiser.width: got 0"),
        ("generate", {"sampler": {"steps": 5}}, r"^generate.sampler.type: got None"),
        ("generate", {"sampler": {"type": "Heun"}}, r"^generate.sampler: got 'Heun'"),
    ],
)
def test_an_engine_that_cannot_be_drops_nothing_of_what_is_done(tiny, copied, section, changes, line):
    before = sorted(str(path.relative_to(copied.path)) for path in copied.path.rglob("*"))
    tiny[section] = {**tiny[section], **changes}
    with pytest.raises(PdiffError, match=line):
        run_pipeline(resolve(tiny), copied, resume=True, overwrite=True, gates=False)
    assert sorted(str(path.relative_to(copied.path)) for path in copied.path.rglob("*")) == before


def test_a_collection_that_was_interrupted_goes_on_with_resume_and_overwrite(tiny, copied):
    records = json.loads((copied.path / "stages.json").read_text())
    del records["collect"]
    write_json(copied.path / "stages.json", records)
    (copied.path / "population" / "layout.json").unlink()
    run_pipeline(resolve(tiny), copied, ["collect"], resume=True, overwrite=True, gates=False)
    assert "collect" in copied.records()
