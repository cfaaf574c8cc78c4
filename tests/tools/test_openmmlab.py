"""The bench of stock configs: what it lists, what it changes of a config, and what a row of its table says."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from pdiff_plugins.openmmlab.libraries import find_config

from pdiff.runtime.errors import PdiffError

ROOT = Path(__file__).parents[2]
DETECTORS = ("RetinaNet", "FCOS", "ATSS", "RTMDet", "YOLOX", "DETR", "DINO")
SEGMENTORS = ("FCN", "PSPNet", "DeepLabV3+", "UperNet", "SegFormer", "Mask2Former", "BiSeNetV2", "SegNeXt")
FAMILIES = (*DETECTORS, *SEGMENTORS)


@pytest.fixture(scope="module")
def bench():
    """Return the tool as a module."""
    spec = importlib.util.spec_from_file_location("bench_openmmlab", ROOT / "tools" / "bench" / "openmmlab.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_config_is_one_that_its_library_ships(bench):
    assert {*FAMILIES, "Faster R-CNN", "Cascade R-CNN", "Mask R-CNN", "Deformable DETR"} <= set(bench.STOCK)
    for stock in bench.STOCK.values():
        assert find_config(stock.config).is_file()


def test_the_page_has_a_row_for_every_config(bench):
    page = (ROOT / "docs" / "openmmlab.md").read_text(encoding="utf-8")
    assert bench.HEAD in page
    for name, stock in bench.STOCK.items():
        assert f"\n| {name} | `{stock.config}` | " in page


def test_a_family_is_chosen_in_any_case_and_an_unknown_one_refused(bench):
    assert list(bench.chosen(["yolox", "RETINANET"])) == ["YOLOX", "RetinaNet"]
    assert list(bench.chosen(None)) == list(bench.STOCK)
    with pytest.raises(PdiffError, match=r"^--only: got 'YOLO'\. Did you mean 'YOLOX'"):
        bench.chosen(["YOLO"])


def test_sizes_shrink_wherever_they_stand_and_nothing_else_does(bench):
    steps = [{"type": "Resize", "scale": (1333, 800)}, {"scales": [(480, 1333), (64, 800)], "prob": 0.5}]
    section = {"pipeline": steps, "size": None, "crop_size": (32, 32), "border": (-320, -320), "stride": 341}
    found = dict(bench.sizes(section, "data"))
    assert found == {
        "data.pipeline.0.scale": [96, 96],
        "data.pipeline.1.scales": [[96, 96], [64, 96]],
        "data.border": [-48, -48],
        "data.stride": 96,
    }


def test_the_section_of_a_detector_with_a_wrapped_data_set(bench):
    task = bench.section(bench.STOCK["YOLOX"])
    options = task["model"]["options"]
    assert task["model"]["classes"] == list("0123456789")
    assert task["model"]["pretrained"] is False
    assert options["train_dataloader.dataset.dataset.ann_file"] == "train.json"
    assert options["val_dataloader.dataset.ann_file"] == "select.json"
    assert options["train_cfg.max_epochs"] == 1


@pytest.mark.parametrize(("family", "classes", "reduced"), [("PSPNet", 11, False), ("SegFormer", 10, True)])
def test_the_background_is_a_class_unless_the_config_ignores_label_0(bench, family, classes, reduced):
    model = bench.section(bench.STOCK[family])["model"]
    assert len(model["classes"]) == classes
    assert model["options"]["train_dataloader.dataset.reduce_zero_label"] is reduced
    assert model["options"]["train_cfg.max_iters"] == 2


def test_rows_of_a_config_that_runs_and_of_one_that_does_not(bench):
    stock = bench.Stock("mmdet::a/b", "regex(a|b)")
    ran = bench.row("A", stock, {"P": 1234, "seconds": [1.2, 3.4]})
    assert ran == r"| A | `mmdet::a/b` | `regex(a\|b)` | 1,234 | runs | 1 + 3 |"
    other = bench.row("A", stock, {"P": 1234, "loss": "2 for 1", "seconds": [1.2, 3.4, 5]})
    assert other == r"| A | `mmdet::a/b` | `regex(a\|b)` | 1,234 | runs; its loss: 2 for 1 | 1 + 3 + 5 |"
    assert bench.row("A", stock, {"error": "no."}) == r"| A | `mmdet::a/b` | `regex(a\|b)` |  | no. |  |"


def test_a_config_that_takes_too_long_is_ended(bench):
    assert bench.run_alone("RetinaNet", 0.05) == {"error": "not done in 0 s"}
