"""What is detection's own: COCO's figures, signatures of objects, two-stage detectors, and exports to mmdet."""

import json
from pathlib import Path

import pytest
import torch

from pdiff.run import Run
from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.runtime.storage import read_tensors
from pdiff.stages.pipeline import run_pipeline

pytest.importorskip("mmdet")

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
def two_stages(tmp_path_factory, cases):
    """Return the collection of a Faster R-CNN's box head, made from the config that mmdet ships."""
    folder, values = tmp_path_factory.mktemp("two_stages"), cases("detection").values()
    (folder / "faster_rcnn.py").write_text(TWO_STAGES)
    values["collect"] = {"train": {"enabled": True}, "finetune": {"steps": 3}}
    values["task"]["model"] = {"config": str(folder / "faster_rcnn.py")}
    run_pipeline(resolve(values), RunDirectory(folder / "run"), ["collect"], gates=False)
    return Run(resolve(values), RunDirectory(folder / "run"))


def test_metric_and_details_are_the_average_precisions_of_coco(detector):
    summary = detector.summary()
    assert summary["metric"] == {"name": "AP", "higher_is_better": True, "chance": 0.0, "best": 1.0}
    for row in summary["sources"].values():
        assert {"AP50", "AP75", "AP_small", "AP/7"} <= set(row["details"])
        assert row["mean"] <= row["details"]["AP50"]["mean"] <= 1
    assert summary["sources"]["trained"]["mean"] > 0


def test_evaluation_is_that_of_mmdet_with_the_candidate_in_the_network(detector):
    from mmdet.evaluation.metrics import CocoMetric

    candidates, data, model = detector.candidates(), detector.task.splits["test"], detector.task.model
    for index, evaluation in enumerate(detector.evaluate(candidates)):
        candidates.load(model, index)
        metric, errors = CocoMetric(data.split.dataset.ann_file), data.errors()
        metric.dataset_meta = data.split.dataset.metainfo
        for batch in data.split.batches():
            with torch.no_grad():
                samples = model.eval().test_step(batch)
            metric.process(batch, [sample.to_dict() for sample in samples])
            for sample in samples:
                found = sample.pred_instances
                errors.add(data.images[sample.img_id], found.bboxes, found.scores, found.labels)
        assert torch.equal(evaluation.signature, errors.signature())
        figures = metric.compute_metrics(metric.results)
        own = {"mAP": evaluation.metric, "mAP_50": evaluation.details["AP50"], "mAP_s": evaluation.details["AP_small"]}
        assert {name: figures[f"bbox_{name}"] for name in own} == {name: round(own[name], 3) for name in own}


def test_signature_has_a_place_for_every_object_and_for_every_class_of_every_image(detector):
    data = detector.task.splits["test"]
    objects = len(json.loads(Path(data.split.dataset.ann_file).read_text())["annotations"])
    for evaluation in detector.evaluate(detector.candidates()):
        assert evaluation.signature.dtype == torch.int16
        assert evaluation.signature.shape == (objects + 8 * 10,)
        assert evaluation.signature[:objects].max() <= 1
        assert evaluation.signature.any()


def test_head_of_a_two_stage_detector_is_the_box_head_of_its_second_stage(two_stages):
    assert two_stages.task.head == ["roi_head.bbox_head"]
    names = set(two_stages.population.layout.names)
    assert names == {name for name in two_stages.task.model.state_dict() if name.startswith("roi_head.bbox_head.")}
    assert {name.split(".")[2] for name in names} == {"fc_cls", "fc_reg", "shared_fcs"}


def test_two_stage_detector_is_collected(two_stages):
    base, population = read_tensors(two_stages.directory.base), two_stages.population
    assert len(population) == 3
    assert (population.tensor().std(0) > 0).float().mean() > 0.5
    untrained = two_stages.hook.build(cfg=two_stages.config, folder=None).model.state_dict()
    changed = {name.split(".")[0] for name, tensor in base.items() if not torch.equal(tensor, untrained[name])}
    assert changed == {"backbone", "neck", "rpn_head", "roi_head"}, "the base training reaches through RoIAlign"


@pytest.mark.parametrize("selector", ["head", "module(roi_head.bbox_head.fc_cls)", "module(rpn_head.rpn_cls)"])
def test_candidates_of_a_two_stage_detector_are_evaluated_as_each_alone(two_stages, detector, selector, caplog):
    detector.assert_together_as_alone(detector.candidates(selector, two_stages.task), task=two_stages.task)
    assert "left the recorded path" not in caplog.text


@pytest.mark.parametrize("selector", ["head", "module(rpn_head.rpn_cls)", "module(rpn_head.rpn_reg)"])
def test_candidate_of_a_two_stage_detector_is_dead_when_either_stage_gives_no_numbers(two_stages, detector, selector):
    candidates = detector.candidates(selector, two_stages.task)
    candidates.vectors[1, 0] = torch.nan
    metrics = [evaluation.metric for evaluation in detector.evaluate(candidates, task=two_stages.task)]
    assert [metric == two_stages.task.metric.worst for metric in metrics] == [False, True, False, False]


def test_regions_of_a_two_stage_detector_are_pooled_once_per_batch_for_all_box_heads(two_stages, detector, calls):
    pooled = calls(two_stages.task.model.roi_head.bbox_roi_extractor.roi_layers[0])
    proposed = calls(two_stages.task.model.rpn_head.rpn_conv)
    detector.evaluate(detector.candidates(task=two_stages.task), task=two_stages.task)
    assert len(pooled) == 2
    assert len(proposed) == 2 * 5, "a call per batch and level of the pyramid"


def test_exported_candidate_detects_in_mmdet_what_it_detected_in_the_run(exported, detector):
    from mmdet.apis import inference_detector, init_detector

    best, path = detector.summary()["sources"]["generated"]["best_index"], exported("detection")
    model = init_detector(str(path.with_suffix(".py")), str(path), device="cpu")
    assert model.dataset_meta["classes"] == tuple("0123456789")
    data = detector.task.splits["test"]
    metric, errors = data.metric.another(), data.errors()
    for index in range(len(data.split.dataset)):
        info = data.split.dataset.get_data_info(index)
        sample = inference_detector(model, info["img_path"])
        found = {key: sample.pred_instances[key].cpu() for key in ("bboxes", "scores", "labels")}
        metric.process({}, [{"img_id": info["img_id"], "ori_shape": sample.ori_shape, "pred_instances": found}])
        errors.add(index, **found)
    figures = metric.compute_metrics(metric.results)
    lines = detector.lines("evaluation/generated.jsonl")
    own = next(line for line in lines if line["split"] == "test" and line["index"] == best)
    assert figures.pop("AP") == pytest.approx(own["metric"], abs=1e-6)
    assert figures == pytest.approx(own["details"], abs=1e-6)
    signature = read_tensors(detector.run.path / "evaluation" / "generated.safetensors")["test.signature"][best]
    assert torch.equal(errors.signature(), signature)


SHARED_CONVOLUTIONS = {
    "type": "RTMDet",
    "bbox_head": {
        "_delete_": True,
        "type": "RTMDetSepBNHead",
        "num_classes": 10,
        "in_channels": 16,
        "feat_channels": 16,
        "stacked_convs": 1,
        "with_objectness": False,
        "anchor_generator": {"type": "MlvlPointGenerator", "offset": 0, "strides": [8, 16]},
        "bbox_coder": {"type": "DistancePointBBoxCoder"},
        "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0},
        "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
    },
    "train_cfg": {"assigner": {"type": "DynamicSoftLabelAssigner", "topk": 4}, "allowed_border": -1, "pos_weight": -1},
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory, cases):
    """Return the collection of a head whose levels share their convolutions."""
    folder, values = tmp_path_factory.mktemp("shared") / "run", cases("detection").values()
    options = values["task"]["model"]["options"]
    options["model"] |= SHARED_CONVOLUTIONS
    options["train_cfg"] = {"max_iters": 2, "val_interval": 2}
    values["collect"]["finetune"]["steps"] = 3
    run_pipeline(resolve(values), RunDirectory(folder), ["collect"], gates=False)
    return Run(resolve(values), RunDirectory(folder))


def test_convolutions_that_levels_share_are_one_parameter(shared, detector):
    first, other = (f"bbox_head.cls_convs.{level}.0.conv.weight" for level in (0, 1))
    names = shared.population.layout.names
    assert first in names
    assert other not in names
    assert "bbox_head.cls_convs.1.0.bn.weight" in names
    assert len(shared.population) == 3
    candidates = shared.candidates(shared.population.tensor())
    detector.assert_same(
        detector.evaluate(candidates, task=shared.task),
        [detector.evaluate(candidates.take([index]), task=shared.task)[0] for index in range(3)],
    )
    assert torch.equal(shared.task.model.state_dict()[other], candidates[2][first])


def test_exported_head_with_shared_convolutions_loads_in_mmdet(shared, tmp_path):
    from mmdet.apis import init_detector

    candidates = shared.candidates(shared.population.tensor())
    candidates.load(shared.task.model, 1)
    shared.task.export(shared.task.model, tmp_path / "detector.pth")
    loaded = init_detector(str(tmp_path / "detector.py"), str(tmp_path / "detector.pth"), device="cpu").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in shared.task.model.state_dict().items())
