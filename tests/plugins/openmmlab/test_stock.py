"""Configs as a library ships them, made fit for other data: classes everywhere, and no weights from elsewhere."""

import pytest

pytest.importorskip("mmdet")

from mmengine.config import Config
from pdiff_plugins.openmmlab.libraries import LOADERS, MMSEG, open_config
from pdiff_plugins.openmmlab.stock import drop_pretrained, set_classes

from pdiff.runtime.errors import PdiffError

CLASSES = ("cat", "dog")


def counts(section) -> set[int]:
    """Return every number of classes in nested sections and lists."""
    if isinstance(section, dict):
        own = {section["num_classes"]} if "num_classes" in section else set()
        return own.union(*map(counts, section.values()))
    return set().union(*map(counts, section)) if isinstance(section, list | tuple) else set()


@pytest.mark.parametrize(
    "config",
    [
        "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco",
        "dino/dino-4scale_r50_8xb2-12e_coco",
        "yolox/yolox_s_8xb8-300e_coco",
    ],
)
def test_classes_reach_every_head_and_every_data_set_of_a_detector(mmdet, config):
    found = open_config(mmdet, f"mmdet::{config}", classes=list(CLASSES))
    assert counts(found.model) == {2}
    for loader in LOADERS:
        dataset = found[loader].dataset
        dataset = dataset.get("dataset", dataset)
        assert dataset.metainfo == {"classes": CLASSES}


def test_weights_of_classes_that_are_one_are_those_of_the_new_classes(mmdet):
    pytest.importorskip("mmseg")
    MMSEG.load()
    config = open_config(MMSEG, "mmseg::mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024", classes=CLASSES)
    assert config.model.decode_head.loss_cls.class_weight == [1.0, 1.0, 0.1]
    config = open_config(mmdet, "mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic", classes=CLASSES)
    head = config.model.panoptic_head
    assert (head.num_things_classes, head.num_stuff_classes) == (2, 0)
    assert head.loss_cls.class_weight == [1.0, 1.0, 0.1]


def small(**model) -> Config:
    """Return a config with a model and a data set."""
    return Config({"model": model, "train_dataloader": {"dataset": {"type": "CocoDataset"}}})


def test_parts_that_do_not_count_the_classes_of_the_data_keep_their_number():
    config = small(backbone={"num_classes": 1000}, rpn_head={"num_classes": 1}, bbox_head={"num_classes": 80})
    set_classes(config, ("train_dataloader",), CLASSES)
    assert [config.model[part].num_classes for part in ("backbone", "rpn_head", "bbox_head")] == [1000, 1, 2]


@pytest.mark.parametrize("weights", [[0.8, 1.2, 1.0], [1.0, 1.0]])
def test_weights_of_other_classes_are_refused(weights):
    one = {"num_classes": 3, "loss": {"class_weight": weights}}
    where = "model.head.0.loss.class_weight"
    with pytest.raises(PdiffError) as caught:
        set_classes(small(head=[one]), ("train_dataloader",), CLASSES)
    assert str(caught.value) == (
        f"task.model.classes: {where} has weights of other classes. Give 2, or null, as task.model.options.{where}."
    )
    with pytest.raises(PdiffError) as caught:
        set_classes(small(head=[one, one]), ("train_dataloader",), CLASSES)
    assert str(caught.value) == (
        f"task.model.classes: {where} and model.head.1.loss.class_weight have weights of other classes. "
        f"Give 2, or null, as task.model.options.{where} and so on."
    )


def test_weights_of_as_many_classes_stay():
    config = small(head={"num_classes": 2, "loss": {"class_weight": [0.8, 1.2]}})
    set_classes(config, ("train_dataloader",), CLASSES)
    assert config.model.head.loss.class_weight == [0.8, 1.2]


@pytest.mark.parametrize("classes", ["cat", [], [1, 2], ["cat", "cat"], {"cat": 1}])
def test_classes_that_are_no_list_of_names_are_refused(classes):
    with pytest.raises(PdiffError, match=r"^task\.model\.classes: got .*, expected a list of names, each once\.$"):
        set_classes(small(), ("train_dataloader",), classes)


def test_weights_from_elsewhere_are_dropped_in_every_part():
    file = {"type": "Pretrained", "checkpoint": "torchvision://resnet50"}
    normal = {"type": "Normal", "layer": "Conv2d"}
    model = {
        "pretrained": "open-mmlab://resnet50_v1c",
        "backbone": {"type": "TIMMBackbone", "pretrained": True, "init_cfg": file},
        "neck": {"init_cfg": normal},
        "heads": [{"init_cfg": [normal, file]}, {"init_cfg": [file]}],
    }
    drop_pretrained(model)
    assert model == {
        "pretrained": None,
        "backbone": {"type": "TIMMBackbone", "pretrained": False, "init_cfg": None},
        "neck": {"init_cfg": normal},
        "heads": [{"init_cfg": [normal]}, {"init_cfg": None}],
    }
