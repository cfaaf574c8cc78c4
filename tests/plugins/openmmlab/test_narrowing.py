"""Networks of stock configs, narrowed to some classes: what they then predict, and what is left as it was."""

import warnings

import pytest
import torch
from torch import nn

from pdiff import PdiffError

pytest.importorskip("mmdet")

CLASSES = [f"kind {number}" for number in range(6)]
NAMES = [f"classes.{name}" for name in CLASSES]
KEPT = (1, 4)
CONDITION = {name: float(label in KEPT) for label, name in enumerate(NAMES)}
SMALL = {"backbone": {"depth": 18, "base_channels": 8, "stem_channels": 8}}
NARROW = {"in_channels": 16, "feat_channels": 16, "stacked_convs": 1}
PYRAMID = {"in_channels": [8, 16, 32, 64], "out_channels": 16}
DETECTORS = {
    "fcos/fcos_r50_fpn_gn-head-center-normbbox-centeronreg-giou_8xb8-amp-lsj-200e_coco": {
        **SMALL,
        "neck": PYRAMID,
        "bbox_head": {**NARROW, "norm_cfg": {"type": "GN", "num_groups": 4}},
    },
    "retinanet/retinanet_r50_fpn_1x_coco": {**SMALL, "neck": PYRAMID, "bbox_head": NARROW},
    "rtmdet/rtmdet_tiny_8xb32-300e_coco": {},
    "yolox/yolox_tiny_8xb8-300e_coco": {},
    "yolo/yolov3_mobilenetv2_8xb24-320-300e_coco": {},
    "detr/detr_r18_8xb2-500e_coco": {"encoder": {"num_layers": 1}, "decoder": {"num_layers": 1}},
    "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco": {
        **SMALL,
        "neck": {"in_channels": [16, 32, 64]},
        "num_queries": 20,
        "encoder": {"num_layers": 1},
        "decoder": {"num_layers": 2},
    },
    "faster_rcnn/faster-rcnn_r50_fpn_1x_coco": {
        **SMALL,
        "neck": PYRAMID,
        "rpn_head": {"in_channels": 16, "feat_channels": 16},
        "roi_head": {
            "bbox_roi_extractor": {"out_channels": 16},
            "bbox_head": {"in_channels": 16, "fc_out_channels": 32},
        },
    },
}
# Those of which each class has a sigmoid of its own, and its own suppression of detections that overlap.
SIGMOIDS = ("fcos", "retinanet", "rtmdet", "deformable_detr")
LIMITS = {"score_thr": 0.0, "nms_pre": 10_000, "max_per_img": 10_000, "min_bbox_size": -1}
MOST = {"detr": 100, "deformable_detr": 20 * 6}  # queries, of which each has one class; queries times classes


@pytest.fixture
def build(mmdet):
    """Return a function from a config that mmdet ships to its network, narrow, and the name of its head."""
    from pdiff_plugins.detection import HEADS
    from pdiff_plugins.openmmlab.libraries import build_network, open_config

    def network(config: str):
        options = {"model": DETECTORS.get(config, {})}
        values = open_config(mmdet, f"mmdet::{config}", options=options, classes=CLASSES, pretrained=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers of classes that two of a config's parts give
            model = build_network(mmdet, values, 0, None).eval()
        return model, next(name for name in HEADS if name in dict(model.named_modules()))

    return network


def scatter(model: nn.Module, head: str, most: int) -> None:
    """Give each class scores of its own, which initial weights hardly do, and let all detections pass."""
    from pdiff_plugins.openmmlab.narrowing import class_layers

    part, rng = model.get_submodule(head), torch.Generator().manual_seed(0)
    for layer, _ in class_layers(part):
        layer.weight.data.add_(0.1 * torch.randn(layer.weight.shape, generator=rng))
    limits = LIMITS | {"max_per_img": most}
    own = part.test_cfg if head == "bbox_head" else model.roi_head.test_cfg
    own.update({name: value for name, value in limits.items() if name in own or name == "max_per_img"})


def detect(model: nn.Module) -> set[tuple]:
    """Return label, score and box of what a detector sees in noise, rounded; nothing that has the score 0."""
    from mmdet.structures import DetDataSample

    shape = {"img_shape": (64, 64), "ori_shape": (64, 64), "scale_factor": (1.0, 1.0), "batch_input_shape": (64, 64)}
    image = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.test_step({"inputs": [image], "data_samples": [DetDataSample(metainfo=shape)]})[0].pred_instances
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.bboxes.tolist(), strict=True)
    return {(label, round(score, 5), *(round(x, 2) for x in box)) for label, score, box in rows if score > 0}


@pytest.mark.parametrize("config", DETECTORS, ids=lambda config: config.partition("/")[0])
def test_detector_sees_the_classes_of_its_condition_alone(build, conditions_of, config):
    from pdiff_plugins.openmmlab.narrowing import narrow

    model, head = build(config)
    scatter(model, head, MOST.get(config.partition("/")[0], 10_000))
    before = detect(model)
    narrow(model, CONDITION, conditions_of(NAMES), [head])
    after = detect(model)
    assert {row[0] for row in before} - set(KEPT)
    assert after
    assert {row[0] for row in after} <= set(KEPT)
    if config.startswith(SIGMOIDS):
        assert after == {row for row in before if row[0] in KEPT}


def test_softmax_at_each_of_many_priors_keeps_its_background(build, conditions_of):
    from pdiff_plugins.openmmlab.narrowing import LOW, narrow

    model, head = build("ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco")
    before = [layer[-1].bias.reshape(-1, 7).detach().clone() for layer in model.bbox_head.cls_convs]
    narrow(model, CONDITION, conditions_of(NAMES), [head])
    for layer, bias in zip(model.bbox_head.cls_convs, before, strict=True):
        after = layer[-1].bias.reshape(-1, 7)
        assert torch.equal(after[:, [*KEPT, 6]], bias[:, [*KEPT, 6]])
        assert (after[:, [0, 2, 3, 5]] == LOW).all()


def test_condition_of_all_classes_changes_nothing(build, conditions_of):
    from pdiff_plugins.openmmlab.narrowing import narrow

    model, head = build("retinanet/retinanet_r50_fpn_1x_coco")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    narrow(model, dict.fromkeys(NAMES, 1.0), conditions_of(NAMES), [head])
    narrow(model, {"light": 1.0}, conditions_of(["light"], rows={1: [0]}), [head])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_head_without_a_bias_by_class_is_refused(build, conditions_of):
    from pdiff_plugins.openmmlab.narrowing import narrow

    model, head = build("retinanet/retinanet_r50_fpn_1x_coco")
    model.bbox_head.retina_cls.bias = None
    with pytest.raises(PdiffError, match=r"export: bbox_head \(RetinaHead\) has no layer with a bias for each class"):
        narrow(model, CONDITION, conditions_of(NAMES), [head])
    model.bbox_head.retina_cls = nn.Conv2d(16, 7, 1)  # of no whole number of classes and priors
    with pytest.raises(PdiffError, match="Export a candidate as it is by --pick N, and leave out what else it"):
        narrow(model, CONDITION, conditions_of(NAMES), [head])


def test_network_whose_head_is_not_known_is_refused(conditions_of):
    from pdiff_plugins.openmmlab.narrowing import narrow

    with pytest.raises(PdiffError, match="export: Identity has no layer with a bias for each class"):
        narrow(nn.Identity(), CONDITION, conditions_of(NAMES), [])


def test_condition_of_other_names_is_refused(build, conditions_of):
    from pdiff_plugins.openmmlab.narrowing import narrow

    model, head = build("retinanet/retinanet_r50_fpn_1x_coco")
    with pytest.raises(PdiffError, match="export: got a condition for angle, expected classes.kind 0, .*Name these"):
        narrow(model, {"angle": 1.0}, conditions_of(NAMES), [head])
