"""The plugin as a whole: runs that finish, that are killed and go on, candidates side by side, and exports to mmdet."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.logging import HistoryBuffer

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.storage import read_json, read_tensors
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import load_plugin
from pdiff.task.task import Candidates
from pdiff.weights.layout import Layout
from pdiff.weights.population import Population

pytest.importorskip("mmdet")
pytestmark = pytest.mark.usefixtures("library")

SELECTORS = ("head", "last_norms(2)", "module(bbox_head.conv_cls)")
TWO_STAGES = """
_base_ = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
model = dict(
    backbone=dict(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32, num_classes=10),
    ),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=30), rcnn=dict(score_thr=0.0, max_per_img=20)),
)
train = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True), dict(type="PackDetInputs")]
test = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=(64, 64)), dict(type="PackDetInputs")]


def loader(name, pipeline, **settings):
    data = dict(type="CocoDataset", data_root="", ann_file=f"{name}.json", data_prefix=dict(img=f"{name}/"))
    data = dict(**data, metainfo=dict(classes=tuple("0123456789")), pipeline=pipeline, **settings)
    return dict(_delete_=True, batch_size=4, sampler=dict(type="DefaultSampler", shuffle=False), dataset=data)


train_dataloader = loader("train", train)
val_dataloader = loader("select", test, test_mode=True)
test_dataloader = loader("test", test, test_mode=True)
train_cfg = dict(max_epochs=1)
"""


@pytest.fixture(scope="module")
def one_stage(detected):
    """Return the task of the finished run, its network trained."""
    return Run(resolve(detected.config()), detected).task


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory, detected):
    """Return the collection of a Faster R-CNN's box head, made from the config that mmdet ships."""
    folder = tmp_path_factory.mktemp("two_stages")
    (folder / "faster_rcnn.py").write_text(TWO_STAGES)
    values = {**detected.config(), "collect": {"train": {"enabled": True}, "finetune": {"steps": 3}}}
    values["task"] = {**values["task"], "model": {"config": str(folder / "faster_rcnn.py")}}
    run_pipeline(resolve(values), RunDirectory(folder / "run"), ["collect"], gates=False)
    return Run(resolve(values), RunDirectory(folder / "run"))


def candidates_of(task, selector: str = "head", count: int = 4) -> Candidates:
    """Return a part of the network with more and more noise in it."""
    hook = load_plugin("detection").hook
    names = hook.select_params(task=task, cfg=resolve({"select": selector}))
    layout = Layout.of(task.model.state_dict(), names)
    base = layout.flatten(task.model.state_dict())
    noise = torch.randn(count, layout.size, generator=torch.Generator().manual_seed(0))
    return Candidates(base + torch.arange(count)[:, None] * 0.1 * noise, layout, hook.load_params)


def chosen(candidates: Candidates, rows) -> Candidates:
    """Return some of the candidates."""
    return Candidates(candidates.vectors[rows], candidates.layout, candidates.load_params)


def evaluate(task, candidates, split: str = "test") -> list:
    """Return what `evaluate` yields."""
    return list(load_plugin("detection").hook.evaluate(task=task, candidates=candidates, split=split))


def assert_same(ones, others) -> None:
    """Assert that evaluations are equal bit for bit."""
    for one, other in zip(ones, others, strict=True):
        assert (one.metric, one.details, one.scores) == (other.metric, other.details, other.scores)
        assert torch.equal(one.signature, other.signature)


@pytest.fixture
def calls():
    """Return a function that lists from now on, until the test ends, every call in which a module computes."""
    handles = []

    def watch(module) -> list:
        computed = []
        handles.append(module.register_forward_hook(lambda *_: computed.append(module)))
        return computed

    yield watch
    for handle in handles:
        handle.remove()


def lines_of(path: Path) -> list[dict]:
    """Return the JSON lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_ends_with_every_source_and_the_figures_of_coco(detected):
    summary = read_json(detected.path / "report" / "summary.json")
    assert summary["metric"] == {"name": "AP", "higher_is_better": True, "chance": 0.0}
    assert {name: row["n"] for name, row in summary["sources"].items()} == {
        "trained": 6, "generated": 4, "codec": 2, "soup": 1, "soup16": 2, "interpolation": 2, "gaussian": 2,
        "gaussian32": 2, "noise05": 2, "noise15": 2, "noise_abs01": 2, "noise_abs03": 2,
    }  # fmt: skip
    for row in summary["sources"].values():
        assert {"AP50", "AP75", "AP_small", "AP/7"} <= set(row["details"])
        assert "AP" not in row["details"]
        assert 0 <= row["worst"] <= row["mean"] <= row["details"]["AP50"]["mean"] <= 1
        assert 0 <= row["similarity"] <= 1
        assert row["best_ci"] is None, "an average precision is no mean over images"
    assert summary["sources"]["trained"]["mean"] > 0
    assert summary["sources"]["noise15"]["similarity"] < 1


def test_details_of_the_best_are_those_of_the_candidate_that_select_chose(detected):
    row = read_json(detected.path / "report" / "summary.json")["sources"]["trained"]
    lines = lines_of(detected.path / "evaluation" / "trained.jsonl")
    by_split = {split: [line for line in lines if line["split"] == split] for split in ("select", "test")}
    best = max(range(6), key=lambda index: by_split["select"][index]["metric"])
    assert row["best_index"] == best
    assert row["best"] == by_split["test"][best]["metric"]
    assert {key: figures["best"] for key, figures in row["details"].items()} == by_split["test"][best]["details"]


def test_provenance_tells_step_and_losses(detected):
    lines = lines_of(detected.path / "population" / "provenance.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all({"loss", "loss_cls", "loss_bbox", "loss_centerness"} <= set(line) for line in lines)


# One process that has mmdet loaded is forked for every attempt, so that the import is paid for once.
KILL_AGAIN_AND_AGAIN = """
import os, signal, sys, time
from pathlib import Path
from pdiff.run.config import load_config
from pdiff.stages.pipeline import run_pipeline
from pdiff.run.directory import ORDER, RunDirectory
from pdiff_plugins.openmmlab import hooks
from pdiff_plugins.openmmlab.libraries import MMDET

MMDET.load()
hooks.SECONDS_BETWEEN_RESTS = 0  # as if every step of the base training took half a minute
config, run = load_config(None, sys.argv[1], {}, {}), Path(sys.argv[2])
resting, rows = run / "population" / "collect.state.safetensors", run / "population" / "provenance.jsonl"
moments = [
    lambda: resting.exists(),
    lambda: rows.exists() and len(rows.read_bytes().splitlines()) >= 3,
    lambda: (run / "evaluation" / "generated.jsonl").exists(),
    lambda: False,
]
for moment in moments:
    child = os.fork()
    if child == 0:
        run_pipeline(config, RunDirectory(run), ORDER[:4], resume=True, gates=False)
        os._exit(0)
    ended = 0
    while not ended and not moment():
        time.sleep(0.002)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        ended, status = os.waitpid(child, 0)
    snapshots = len(rows.read_bytes().splitlines()) if rows.exists() else 0
    print(status, snapshots, *sorted(path.stem for path in run.glob("evaluation/*.jsonl")))
"""


def test_run_that_is_killed_again_and_again_ends_with_the_same_bytes(tiny_detector, tmp_path, detected, results):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_detector))
    command = [sys.executable, "-c", KILL_AGAIN_AND_AGAIN, str(tmp_path / "tiny.yaml"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    training, collecting, evaluating, whole = [line.split() for line in done.stdout.splitlines()]
    assert training == ["9", "0"], "killed in the base training, before any snapshot"
    assert collecting[0] == "9"
    assert 3 <= int(collecting[1]) < 6, "killed among the snapshots"
    assert evaluating[:2] == ["9", "6"]
    assert "generated" in evaluating
    assert "trained" in evaluating
    assert "noise15" not in evaluating, "killed among the evaluations"
    assert whole[:2] == ["0", "6"]
    assert results(tmp_path / "run") == results(detected.path)


@pytest.mark.parametrize(("selector", "split"), [*((selector, "test") for selector in SELECTORS), ("head", "select")])
def test_candidates_together_are_evaluated_as_each_alone(one_stage, selector, split, caplog):
    candidates = candidates_of(one_stage, selector)
    together = evaluate(one_stage, candidates, split)
    alone = [evaluate(one_stage, chosen(candidates, [index]), split)[0] for index in range(len(candidates))]
    assert_same(together, alone)
    assert len({tuple(result.signature.tolist()) for result in together}) > 1
    assert "left the recorded path" not in caplog.text


@pytest.mark.parametrize("selector", SELECTORS)
def test_frozen_backbone_runs_once_per_batch(one_stage, selector, calls):
    computed = calls(one_stage.model.backbone.conv1)
    evaluate(one_stage, candidates_of(one_stage, selector))
    assert len(computed) == 2


def test_order_of_candidates_does_not_matter(one_stage):
    candidates, order = candidates_of(one_stage), [2, 0, 3, 1]
    together = evaluate(one_stage, candidates)
    assert_same(evaluate(one_stage, chosen(candidates, order)), [together[index] for index in order])


def test_evaluation_is_that_of_mmdet_with_the_candidate_in_the_network(one_stage):
    from mmdet.evaluation.metrics import CocoMetric

    candidates, data = candidates_of(one_stage), one_stage.splits["test"]
    for index, evaluation in enumerate(evaluate(one_stage, candidates)):
        candidates.load(one_stage.model, index)
        metric, errors = CocoMetric(data.split.dataset.ann_file), data.errors()
        metric.dataset_meta = data.split.dataset.metainfo
        for batch in data.split.batches():
            with torch.no_grad():
                samples = one_stage.model.eval().test_step(batch)
            metric.process(batch, [sample.to_dict() for sample in samples])
            for sample in samples:
                found = sample.pred_instances
                errors.add(data.images[sample.img_id], found.bboxes, found.scores, found.labels)
        assert torch.equal(evaluation.signature, errors.signature())
        figures = metric.compute_metrics(metric.results)
        own = {"mAP": evaluation.metric, "mAP_50": evaluation.details["AP50"], "mAP_s": evaluation.details["AP_small"]}
        assert {name: figures[f"bbox_{name}"] for name in own} == {name: round(own[name], 3) for name in own}


def test_signature_has_a_place_for_every_object_and_for_every_class_of_every_image(one_stage):
    data = one_stage.splits["test"]
    objects = len(json.loads(Path(data.split.dataset.ann_file).read_text())["annotations"])
    for evaluation in evaluate(one_stage, candidates_of(one_stage)):
        assert evaluation.signature.dtype == torch.int16
        assert evaluation.signature.shape == (objects + 8 * 10,)
        assert evaluation.signature[:objects].max() <= 1
        assert evaluation.signature.any()


def test_evaluation_changes_the_selection_only(one_stage):
    candidates = candidates_of(one_stage)
    before = {name: tensor.clone() for name, tensor in one_stage.model.state_dict().items()}
    first = evaluate(one_stage, candidates)
    one_stage.model.train()
    assert_same(evaluate(one_stage, candidates), first)
    for name, tensor in one_stage.model.state_dict().items():
        assert name in candidates.layout.names or torch.equal(tensor, before[name])


def test_no_candidates_are_no_evaluations(one_stage):
    assert evaluate(one_stage, chosen(candidates_of(one_stage), [])) == []


def test_head_of_a_one_stage_detector_is_its_box_head(one_stage):
    assert one_stage.head == ["bbox_head"]
    assert {name.split(".")[0] for name in candidates_of(one_stage).layout.names} == {"bbox_head"}


def test_head_of_a_two_stage_detector_is_the_box_head_of_its_second_stage(two_stages):
    assert two_stages.task.head == ["roi_head.bbox_head"]
    names = set(two_stages.population.layout.names)
    assert names == {name for name in two_stages.task.model.state_dict() if name.startswith("roi_head.bbox_head.")}
    assert {name.split(".")[2] for name in names} == {"fc_cls", "fc_reg", "shared_fcs"}


def test_two_stage_detector_is_collected(two_stages):
    base, population = read_tensors(two_stages.directory.base), two_stages.population
    assert len(population) == 3
    assert (population.tensor().std(0) > 0).float().mean() > 0.5
    untrained = load_plugin("detection").hook.build(cfg=two_stages.config, folder=None).model.state_dict()
    changed = {name.split(".")[0] for name, tensor in base.items() if not torch.equal(tensor, untrained[name])}
    assert changed == {"backbone", "neck", "rpn_head", "roi_head"}, "the base training reaches through RoIAlign"


@pytest.mark.parametrize("selector", ["head", "module(roi_head.bbox_head.fc_cls)", "module(rpn_head.rpn_cls)"])
def test_candidates_of_a_two_stage_detector_are_evaluated_as_each_alone(two_stages, selector, caplog):
    candidates = candidates_of(two_stages.task, selector)
    together = evaluate(two_stages.task, candidates)
    alone = [evaluate(two_stages.task, chosen(candidates, [index]))[0] for index in range(len(candidates))]
    assert_same(together, alone)
    assert len({tuple(result.signature.tolist()) for result in together}) > 1
    assert "left the recorded path" not in caplog.text


def test_regions_of_a_two_stage_detector_are_pooled_once_per_batch_for_all_box_heads(two_stages, calls):
    pooled = calls(two_stages.task.model.roi_head.bbox_roi_extractor.roi_layers[0])
    proposed = calls(two_stages.task.model.rpn_head.rpn_conv)
    evaluate(two_stages.task, candidates_of(two_stages.task))
    assert len(pooled) == 2
    assert len(proposed) == 2 * 5, "a call per batch and level of the pyramid"


def test_build_gives_the_same_detector_for_the_same_seed(tiny_detector):
    hook = load_plugin("detection").hook
    one = hook.build(cfg=resolve(tiny_detector), folder=None).model.state_dict()
    again = hook.build(cfg=resolve(tiny_detector), folder=None).model.state_dict()
    other = hook.build(cfg=resolve({**tiny_detector, "seed": 1}), folder=None).model.state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["bbox_head.conv_cls.weight"], other["bbox_head.conv_cls.weight"])


def test_build_leaves_the_random_state(tiny_detector):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_plugin("detection").hook.build(cfg=resolve(tiny_detector), folder=None)
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture(scope="module")
def exported(detected, tmp_path_factory, load_tool):
    """Return the path to which the tool has written the best generated candidate."""
    path = tmp_path_factory.mktemp("exported") / "model.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export.py", str(detected.path), "-o", str(path)])
        assert load_tool("export").main() == 0
    return path


def test_exported_candidate_detects_in_mmdet_what_it_detected_in_the_run(exported, one_stage, detected):
    from mmdet.apis import inference_detector, init_detector

    best = read_json(detected.path / "report" / "summary.json")["sources"]["generated"]["best_index"]
    model = init_detector(str(exported.with_suffix(".py")), str(exported), device="cpu")
    assert model.dataset_meta["classes"] == tuple("0123456789")
    data = one_stage.splits["test"]
    metric, errors = data.metric.another(), data.errors()
    for index in range(len(data.split.dataset)):
        info = data.split.dataset.get_data_info(index)
        sample = inference_detector(model, info["img_path"])
        found = {key: sample.pred_instances[key].cpu() for key in ("bboxes", "scores", "labels")}
        metric.process({}, [{"img_id": info["img_id"], "ori_shape": sample.ori_shape, "pred_instances": found}])
        errors.add(index, **found)
    figures = metric.compute_metrics(metric.results)
    lines = lines_of(detected.path / "evaluation" / "generated.jsonl")
    own = next(line for line in lines if line["split"] == "test" and line["index"] == best)
    assert figures.pop("AP") == pytest.approx(own["metric"], abs=1e-6)
    assert figures == pytest.approx(own["details"], abs=1e-6)
    signature = read_tensors(detected.path / "evaluation" / "generated.safetensors")["test.signature"][best]
    assert torch.equal(errors.signature(), signature)


def test_exported_weights_are_those_of_the_candidate_in_the_frozen_network(exported, detected):
    state = torch.load(exported, weights_only=True)["state_dict"]
    base = read_tensors(detected.base)
    changed = {name for name, tensor in state.items() if not torch.equal(tensor, base[name])}
    assert set(state) == set(base)
    assert changed == {entry["name"] for entry in read_json(detected.path / "population" / "layout.json")}


def test_export_refuses_a_format_that_mmdet_does_not_load(detected, monkeypatch, capsys, load_tool):
    monkeypatch.setattr(sys, "argv", ["export.py", str(detected.path), "-o", "model.onnx"])
    assert load_tool("export").main() == 2
    line = "error: --output: got 'model.onnx', expected a name that ends in .pth, .safetensors.\n"
    assert capsys.readouterr().err == line


def test_checkpoints_of_mmengine_replace_collection(detected, tiny_detector, tmp_path, results):
    population, base = Population.open(detected.path / "population"), read_tensors(detected.base)
    for index, vector in enumerate(population.tensor()):
        state = {**base, **population.layout.unflatten(vector)}
        history = {"train/loss": HistoryBuffer([2.0, 1.0], [1, 1])}
        hub = {"log_scalars": history, "runtime_info": {}, "resumed_keys": {}}
        content = {"meta": {"epoch": index}, "state_dict": state, "message_hub": hub}
        torch.save(content, tmp_path / f"epoch_{index + 1}.pth")
    tiny_detector["checkpoints"] = {"files": str(tmp_path)}
    run_pipeline(resolve(tiny_detector), RunDirectory(tmp_path / "run"), ["collect"], gates=False)
    imported, collected = results(tmp_path / "run"), results(detected.path)
    assert imported["population/vectors.f32"] == collected["population/vectors.f32"]
    assert imported["base.safetensors"] == collected["base.safetensors"]


LOADED = """
import sys
from pathlib import Path
from pdiff.run.config import load_config
from pdiff.stages.pipeline import run_pipeline
from pdiff.task.plugins import load_plugin
from pdiff.run.directory import RunDirectory

run_pipeline(load_config(None, sys.argv[1], {}, {}), RunDirectory(Path(sys.argv[3])), gates=False)
print(*(name for name in sys.modules if "." not in name))
load_plugin("detection").hook.build(cfg=load_config(None, sys.argv[2], {}, {}), folder=None)
print(*(name for name in sys.modules if "." not in name))
"""
FOR_DETECTION = {"mmdet", "mmcv", "mmseg", "faster_coco_eval", "pycocotools"}


@pytest.fixture
def loaded(tiny, tiny_detector, tmp_path) -> list[set[str]]:
    """Return what a fresh interpreter has loaded for detection after a run of another plugin, and after a detector."""
    tiny["evaluate"]["sources"] = dict.fromkeys(("codec", "soup16", "ensemble", "gaussian", "noise05", "noise15"))
    for name, values in (("other", tiny), ("detector", tiny_detector)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    places = [str(tmp_path / name) for name in ("other.yaml", "detector.yaml", "run")]
    done = subprocess.run([sys.executable, "-c", LOADED, *places], check=True, capture_output=True, text=True)
    return [FOR_DETECTION & set(line.split()) for line in done.stdout.splitlines()]


def test_run_of_another_plugin_loads_nothing_for_detection_and_a_detector_does(loaded, tmp_path):
    assert (tmp_path / "run" / "report" / "summary.json").exists()
    before, after = loaded
    assert before == set()
    assert after >= {"mmdet", "mmcv", "faster_coco_eval"}, "the check sees what is loaded"
