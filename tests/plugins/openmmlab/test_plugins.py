"""Detection and segmentation as a whole: runs that finish or are killed, candidates side by side, exports, rules."""

import math
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.logging import HistoryBuffer

from pdiff import Candidates
from pdiff.run import Run
from pdiff.run.behaviour import Behaviour
from pdiff.run.config import resolve
from pdiff.run.directory import ORDER, RunDirectory
from pdiff.runtime.storage import read_json, read_tensors
from pdiff.stages import snapshots
from pdiff.stages.pipeline import run_pipeline
from pdiff.testing import check_plugin
from pdiff.weights.population import Population

COUNTS = {
    "detection": {"trained": 6, "generated": 4},
    "segmentation": {"trained": 5, "generated": 3, "ensemble": 1},
}
TWO_OF_EACH = ("codec", "soup16", "interpolation", "gaussian", "swag", "latent_gaussian", "noise05", "noise15")
LOSSES = {
    "detection": {"loss", "loss_cls", "loss_bbox", "loss_centerness"},
    "segmentation": {"loss", "decode.loss_ce", "decode.acc_seg"},
}
PACKAGES = {"detection": "onedl-mmdetection", "segmentation": "onedl-mmsegmentation"}
HEADS = {"detection": "bbox_head", "segmentation": "decode_head"}
CLASSIFIERS = {"detection": "bbox_head.conv_cls.weight", "segmentation": "decode_head.conv_seg.weight"}
LAST = {"detection": "module(bbox_head.conv_cls)", "segmentation": "module(backbone.encoder.1.1.convs.0.bn)"}
FROZEN = {"detection": "backbone.conv1", "segmentation": "backbone.encoder.0.0.convs.0.conv"}
SELECTORS = ("head", "last_norms(2)", "last")


def named(case, selector: str) -> str:
    """Return a selector, `last` being the one that leaves most of the plugin's own network frozen."""
    return LAST[case.plugin] if selector == "last" else selector


def test_losses_that_a_plugin_tells_are_those_of_its_training(case):
    run = Run(resolve(case.run.config()), case.run)
    behaviour, origins = Behaviour(run), run.population.provenance
    for row in range(len(origins) - 1):
        vectors = run.population.tensor()[[row, row]].requires_grad_(True)
        losses = behaviour(vectors, torch.zeros(2, dtype=torch.int64), origins[row]["step"])
        assert losses.tolist() == [origins[row + 1]["loss"]] * 2
        losses.sum().backward()
        assert torch.equal(vectors.grad[0], vectors.grad[1])
        assert vectors.grad.any()


def test_run_ends_with_every_source_and_the_figures_of_the_library(case):
    summary = case.summary()
    primary = summary["metric"]["name"]
    expected = {"soup": 1, **dict.fromkeys(TWO_OF_EACH, 2), **COUNTS[case.plugin]}
    assert {name: row["n"] for name, row in summary["sources"].items()} == expected
    for row in summary["sources"].values():
        assert primary not in row["details"]
        assert 0 <= row["worst"] <= row["mean"] <= 1
        assert 0 <= row["similarity"] <= 1
        low, high = row["best_ci"]
        assert low <= row["best"] <= high, "the noise of the test images is known"
    assert summary["sources"]["noise15"]["similarity"] < 1


def test_details_of_the_best_are_those_of_the_candidate_that_select_chose(case):
    row, lines = case.summary()["sources"]["trained"], case.lines("evaluation/trained.jsonl")
    by_split = {split: [line for line in lines if line["split"] == split] for split in ("select", "test")}
    assert len(by_split["select"]) == len(by_split["test"]) == COUNTS[case.plugin]["trained"]
    best = max(range(len(by_split["select"])), key=lambda index: by_split["select"][index]["metric"])
    assert row["best_index"] == best
    assert row["best"] == by_split["test"][best]["metric"]
    own = {name: figures["best"] for name, figures in row["details"].items() if figures["best"] is not None}
    assert own == by_split["test"][best]["details"]


def test_provenance_tells_step_and_losses(case):
    lines = case.lines("population/provenance.jsonl")
    assert [line["step"] for line in lines] == list(range(1, COUNTS[case.plugin]["trained"] + 1))
    assert all(LOSSES[case.plugin] <= set(line) for line in lines)


def test_run_tells_the_versions_of_what_it_was_computed_with(case):
    packages = read_json(case.run.path / "environment.json")["packages"]
    assert {"onedl-mmengine", "onedl-mmcv", PACKAGES[case.plugin]} <= set(packages)


def test_population_holds_the_head_alone(case):
    names = [entry["name"] for entry in read_json(case.run.path / "population" / "layout.json")]
    assert {name.partition(".")[0] for name in names} == {HEADS[case.plugin]}


@pytest.fixture
def rest_at_every_step(monkeypatch):
    """Let the base training rest after every step, as if each took half a minute."""
    from pdiff_plugins.openmmlab import hooks

    monkeypatch.setattr(hooks, "SECONDS_BETWEEN_RESTS", 0)


def length(rows: Path) -> int:
    """Return the number of whole lines of a file that may not be there yet."""
    return rows.read_bytes().count(b"\n") if rows.exists() else 0


@pytest.mark.parametrize("plugin", ["detection", pytest.param("segmentation", marks=pytest.mark.slow)])
def test_run_that_is_killed_again_and_again_ends_with_the_same_bytes(
    cases, plugin, tmp_path, results, killed, rest_at_every_step
):
    case, run = cases(plugin), tmp_path / "run"
    finished, rows = results(case.run.path), run / "population" / "provenance.jsonl"
    go_on = partial(run_pipeline, resolve(case.values()), RunDirectory(run), ORDER[:4], resume=True, gates=False)
    assert killed(go_on, "os.rename", run / "population" / "collect.state.safetensors", 3)
    assert length(rows) == 0, "killed in the base training, before any snapshot"
    assert killed(go_on, "open", rows, 6)
    assert 2 <= length(rows) < COUNTS[plugin]["trained"], "killed among the snapshots"
    assert killed(go_on, "os.rename", run / "evaluation" / "codec.safetensors")
    assert length(rows) == COUNTS[plugin]["trained"]
    assert {path.stem for path in run.glob("evaluation/*.jsonl")} == {"trained", "generated"}
    go_on()
    assert results(run) == finished


@pytest.mark.parametrize("plugin", [pytest.param("detection", marks=pytest.mark.slow), "segmentation"])
def test_collection_that_dies_three_times_ends_with_the_same_bytes(
    cases, plugin, tmp_path, results, processes, rest_at_every_step, monkeypatch
):
    """Each attempt dies when it is about to write a state, whose snapshot is in the population already."""
    case, run = cases(plugin), tmp_path / "run"
    expected = results(case.run.path)
    values, write = case.values(), snapshots.write_tensors

    def attempt(states: int) -> tuple[int, int]:
        """Write so many states; return how that ended and how many snapshots there are."""

        def write_or_die(path, tensors):
            nonlocal states
            states -= path.name == "collect.state.safetensors"
            if states < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            write(path, tensors)

        def work(_: int) -> None:
            monkeypatch.setattr(snapshots, "write_tensors", write_or_die)
            run_pipeline(resolve(values), RunDirectory(run), ["collect"], resume=True, gates=False)

        return processes(work, 1).codes()[0], length(run / "population" / "provenance.jsonl")

    steps = values["task"]["model"]["options"]["train_cfg"]["max_iters"]
    assert attempt(3) == (-signal.SIGKILL, 0), "behind three steps of the base training"
    assert attempt(steps - 3 + 1) == (-signal.SIGKILL, 2), "behind the others, with a state of the first snapshot"
    assert attempt(1) == (-signal.SIGKILL, 3)
    assert attempt(1000) == (0, COUNTS[plugin]["trained"])
    found = results(run)
    assert {"base.safetensors", "population/vectors.f32", "population/provenance.jsonl"} <= set(found)
    assert found == {name: content for name, content in expected.items() if name in found}


@pytest.mark.parametrize(("selector", "split"), [*((selector, "test") for selector in SELECTORS), ("head", "select")])
def test_candidates_together_are_evaluated_as_each_alone(case, selector, split, caplog):
    case.assert_together_as_alone(case.candidates(named(case, selector)), split)
    assert "left the recorded path" not in caplog.text


@pytest.mark.parametrize("selector", SELECTORS)
def test_frozen_layers_before_the_selection_run_once_per_batch(case, selector, calls):
    computed = calls(case.task.model.get_submodule(FROZEN[case.plugin]))
    case.evaluate(case.candidates(named(case, selector)))
    assert len(computed) == 2


def test_order_of_candidates_does_not_matter(case):
    candidates, order = case.candidates(), [2, 0, 3, 1]
    together = case.evaluate(candidates)
    case.assert_same(case.evaluate(candidates.take(order)), [together[index] for index in order])


def test_evaluation_changes_the_selection_only(case):
    candidates, model = case.candidates(), case.task.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = case.evaluate(candidates)
    model.train()
    case.assert_same(case.evaluate(candidates), first)
    for name, tensor in model.state_dict().items():
        assert name in candidates.layout.names or torch.equal(tensor, before[name])


def poisoned(candidates: Candidates, value: float = math.nan) -> Candidates:
    """Return the same candidates but for the second, which has one value that is no number in one of its tensors."""
    entry = next(entry for entry in candidates.layout if entry.name.endswith("weight"))
    vectors = candidates.vectors.clone()
    vectors[1, entry.slice.start] = value
    return Candidates(vectors, candidates.layout, candidates.load_params)


@pytest.mark.parametrize("selector", ["head", "last_norms(2)"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_candidate_with_a_value_that_is_no_number_is_dead_and_its_neighbours_are_as_they_were(
    case, selector, value, caplog
):
    candidates = case.candidates(selector)
    expected, found = case.evaluate(candidates), case.evaluate(poisoned(candidates, value))
    assert [math.isfinite(evaluation.metric) for evaluation in found] == [True, False, True, True]
    assert (found[1].metric, found[1].details) == (case.task.metric.worst, {})
    assert found[1].signature.shape == found[0].signature.shape
    assert found[1].scores.shape == found[0].scores.shape
    case.assert_same([found[0], *found[2:]], [expected[0], *expected[2:]])
    assert "left the recorded path" not in caplog.text


def test_candidate_is_as_dead_alone_as_beside_others(case):
    candidates = poisoned(case.candidates())
    alone = [case.evaluate(candidates.take([index]))[0] for index in range(len(candidates))]
    case.assert_same(alone, case.evaluate(candidates))


def test_evaluation_leaves_no_hook_in_the_network(case):
    case.evaluate(case.candidates())
    assert not any(module._forward_hooks for module in case.task.model.modules())


def test_scores_are_of_the_same_images_and_their_mean_is_the_metric(case):
    candidates = case.candidates()
    for split in ("select", "test", "train"):
        found = case.evaluate(candidates, split)
        images = len(case.task.splits["seen" if split == "train" else split].split.dataset)
        for evaluation in found:
            assert evaluation.scores.shape == (images,)
            assert evaluation.scores.dtype == torch.float32
            assert evaluation.scores.double().mean().item() == pytest.approx(evaluation.metric, abs=1e-6)
        assert any(evaluation.scores.std() > 0 for evaluation in found)


def test_no_candidates_are_no_evaluations(case):
    assert case.evaluate(case.candidates().take([])) == []


def test_candidates_are_measured_on_training_images_as_the_test_sees_them(case):
    assert len(case.evaluate(case.candidates(), "train")) == 4
    seen, test = (case.task.splits[name].split.dataset[0]["inputs"] for name in ("seen", "test"))
    assert seen.shape == test.shape


def test_signatures_of_another_build_are_about_the_same_objects_or_pixels(case):
    again = case.build(case.values())
    candidates = case.candidates(task=again)
    for name, tensor in again.model.state_dict().items():
        case.task.model.state_dict()[name].copy_(tensor)
    case.assert_same(case.evaluate(candidates, task=again), case.evaluate(candidates))


def test_head_is_that_of_the_library(case):
    assert case.task.head == [HEADS[case.plugin]]
    assert {name.split(".")[0] for name in case.candidates().layout.names} == {HEADS[case.plugin]}


def test_build_gives_the_same_network_for_the_same_seed(case):
    one, again, other = (case.build({**case.values(), "seed": seed}).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one[CLASSIFIERS[case.plugin]], other[CLASSIFIERS[case.plugin]])


def test_build_leaves_the_random_state(case):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    case.build(case.values())
    assert torch.equal(torch.rand(3), expected)


def test_exported_weights_are_those_of_the_candidate_in_the_frozen_network(case, exported):
    state = torch.load(exported(case.plugin), weights_only=True)["state_dict"]
    base = read_tensors(case.run.base)
    changed = {name for name, tensor in state.items() if not torch.equal(tensor, base[name])}
    assert set(state) == set(base)
    assert changed == {entry["name"] for entry in read_json(case.run.path / "population" / "layout.json")}


def test_export_refuses_a_format_that_the_library_does_not_load(case, call):
    done = call("export", case.run.path, "-o", "model.onnx")
    assert done.code == 2
    assert done.err == "error: --output: got 'model.onnx', expected a name that ends in .pth, .safetensors.\n"


def test_checkpoints_of_mmengine_replace_collection(case, tmp_path, results):
    population, base = Population.open(case.run.path / "population"), read_tensors(case.run.base)
    for index, vector in enumerate(population.tensor()):
        state = {**base, **population.layout.unflatten(vector)}
        history = {"train/loss": HistoryBuffer([2.0, 1.0], [1, 1])}
        hub = {"log_scalars": history, "runtime_info": {}, "resumed_keys": {}}
        content = {"meta": {"epoch": index}, "state_dict": state, "message_hub": hub}
        torch.save(content, tmp_path / f"epoch_{index + 1}.pth")
    values = {**case.values(), "checkpoints": {"files": str(tmp_path)}}
    run_pipeline(resolve(values), RunDirectory(tmp_path / "run"), ["collect"], gates=False)
    imported, collected = results(tmp_path / "run"), results(case.run.path)
    assert imported["population/vectors.f32"] == collected["population/vectors.f32"]
    assert imported["base.safetensors"] == collected["base.safetensors"]


def test_plugin_keeps_the_rules(case, tmp_path):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(case.values()))
    findings = check_plugin(case.plugin, str(tmp_path / "tiny.yaml"))
    assert [finding.line for finding in findings if finding.state == "failed"] == []
    loss = next(finding for finding in findings if finding.check == "loss")
    assert loss.line.endswith("; what collect minimised at 3 steps")


LOADED = """
import sys
from pathlib import Path
from pdiff.run.config import load_config
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import load_plugin
from pdiff.run.directory import RunDirectory

run_pipeline(load_config(None, sys.argv[1], {}, {}), RunDirectory(Path(sys.argv[2])), gates=False)
print(*(name for name in sys.modules if "." not in name))
for plugin in ("detection", "segmentation"):
    load_plugin(plugin).hook.build(cfg=load_config(None, sys.argv[3] + f"/{plugin}.yaml", {}, {}), folder=None)
    print(*(name for name in sys.modules if "." not in name))
"""
OF_OPENMMLAB = {"mmdet", "mmcv", "mmseg", "faster_coco_eval", "pycocotools"}


@pytest.fixture
def loaded(tiny, detector, segmentor, tmp_path) -> list[set[str]]:
    """Return what a fresh interpreter has of OpenMMLab's after a run of another plugin, a detector, and a segmentor."""
    tiny["collect"]["finetune"]["steps"] = 4
    tiny["evaluate"]["sources"] = dict.fromkeys(("codec", "soup16", "ensemble", "gaussian", "noise05", "noise15"))
    for name, values in (("other", tiny), ("detection", detector.values()), ("segmentation", segmentor.values())):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    places = [str(tmp_path / "other.yaml"), str(tmp_path / "run"), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOADED, *places]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return [OF_OPENMMLAB & set(line.split()) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_run_of_another_plugin_loads_nothing_of_openmmlab_and_a_detector_and_a_segmentor_do(loaded, tmp_path):
    assert (tmp_path / "run" / "report" / "summary.json").exists()
    before, detecting, segmenting = loaded
    assert before == set()
    assert detecting >= {"mmdet", "mmcv", "faster_coco_eval"}, "the check sees what is loaded"
    assert segmenting >= {"mmseg"}
