"""What a user can get wrong about a segmentor: one line that says what to do, and exit code 2, before any training."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

pytest.importorskip("mmseg")

MODEL = "task.model.options.model"
SHORT = {"task.model.options.train_cfg.max_iters": 1, "collect.finetune.steps": 1}
SPLITS = ("train", "select", "test")
LOADERS = dict(zip(SPLITS, ("train_dataloader", "val_dataloader", "test_dataloader"), strict=True))
SCENES = {"train": 8, "select": 4, "test": 4, "size": 64}
LOAD, LABELS, PACK = ({"type": name} for name in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs"))


@pytest.fixture
def refused(tiny_segmentor, tmp_path, monkeypatch, capsys, library, load_tool):
    """Return a function that runs the tool on the tiny config with other values, and returns the line it ends with."""
    main = load_tool("run").main

    def run(over: dict) -> str:
        for path, value in {**SHORT, **over}.items():
            put(tiny_segmentor, path.split("."), value)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(tiny_segmentor))
        arguments = ["--config", str(tmp_path / "config.yaml"), "--work-dir", str(tmp_path / "run")]
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments, "--stage", "collect"])
        code = main()
        line = capsys.readouterr().err.strip()
        assert code == 2, line
        assert len(line.splitlines()) == 1
        assert not (tmp_path / "run" / "population" / "logs").exists(), "no training has begun"
        return line

    return run


def put(values: dict, path: list[str], value) -> None:
    """Put a value at a place in nested sections."""
    *above, last = path
    for key in above:
        values = values.setdefault(key, {})
    values[last] = value


@pytest.fixture
def own_data(tmp_path, library):
    """Return the folder of scenes of our own, to be damaged, and the settings that name it."""
    from pdiff_plugins.openmmlab.scenes import compose_scenes

    root = Path(shutil.copytree(compose_scenes(**SCENES), tmp_path / "scenes"))
    return root, {"task.data": {"root": str(root)}}


@pytest.mark.parametrize("split", SPLITS)
def test_label_that_is_none_of_the_classes(refused, own_data, split):
    root, settings = own_data
    path = root / f"{split}_labels" / "000002.png"
    labels = np.array(Image.open(path))
    labels[3, 5] = 11
    Image.fromarray(labels).save(path)
    assert refused(settings) == (
        f"error: task.data: {path} has the label 11, expected 0 to 10 or 255, which is ignored. "
        "Mend it, or set classes, ignore_index and reduce_zero_label in task.model.config."
    )


@pytest.mark.parametrize("split", SPLITS)
def test_images_without_label_files(refused, own_data, split):
    root, settings = own_data
    (root / f"{split}_labels").rename(root / "elsewhere")
    name = "000000.png"
    paths = f"the image {root / split / name} has no label map, expected {root / f'{split}_labels' / name}."
    assert refused(settings) == f"error: task.data: {paths} Check data_prefix and seg_map_suffix."


def test_image_without_label_file_among_others(refused, own_data):
    root, settings = own_data
    (root / "test_labels" / "000003.png").unlink()
    assert f"the image {root}/test/000003.png has no label map" in refused(settings)


@pytest.mark.parametrize(("shape", "size"), [((64, 32), "(64, 32)"), ((64, 64, 3), "(64, 64, 3)")])
def test_label_map_of_another_size_than_its_image(refused, own_data, shape, size):
    root, settings = own_data
    path = root / "select_labels" / "000001.png"
    Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    line = f"error: task.data: {path} has the size {size}, expected (64, 64), that of its image. Mend it."
    assert refused(settings) == line


@pytest.mark.parametrize("classes", [10, 19])
def test_head_of_another_number_of_classes_than_the_data(refused, classes):
    line = refused({f"{MODEL}.decode_head.num_classes": classes, f"{MODEL}.decode_head.loss_decode": {}})
    assert line.startswith(f"error: task.model.config: the decode_head has {classes} classes, the data set 11.")


def test_head_that_ignores_another_label_than_the_data(refused):
    line = refused({f"{MODEL}.decode_head.ignore_index": 0})
    assert "the decode_head ignores the label 0, but the data set the label 255" in line


@pytest.mark.parametrize("place", ["data", "metric"])
def test_metric_that_ignores_another_label_than_the_data(refused, place):
    where = "test_dataloader.dataset" if place == "data" else "test_evaluator"
    labels = {"data": "11, but its IoUMetric the label 255", "metric": "255, but its IoUMetric the label 11"}
    line = refused({f"task.model.options.{where}": {"ignore_index": 11}})
    split = "test" if place == "data" else "select"
    assert line == (
        f"error: task.model.config: the data set of {split} ignores the label {labels[place]}. "
        "Give both the same ignore_index."
    )


def test_split_without_a_pixel_that_counts(refused, own_data):
    root, settings = own_data
    for path in (root / "test_labels").glob("*.png"):
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(path)
    assert refused(settings).startswith("error: task.data: every pixel of test is ignored.")


@pytest.mark.parametrize(("pixels", "rule"), [(0, " from 1 on"), (-5, " from 1 on"), (2.5, ""), ("many", "")])
def test_number_of_pixels_of_a_signature(refused, pixels, rule):
    line = f"error: task.signature_pixels: got {pixels!r}, expected an integer{rule}."
    assert refused({"task.signature_pixels": pixels}) == line


@pytest.mark.parametrize("value", [None, {"type": "CityscapesMetric"}, [{"type": "DepthMetric"}]])
def test_evaluator_without_the_metric(refused, value):
    evaluator = {"_delete_": True, **value} if isinstance(value, dict) else value
    line = refused({"task.model.options.test_evaluator": evaluator})
    assert line == (
        "error: task.model.config: its test_evaluator has no IoUMetric, which the candidates are measured with. "
        "Add {type: IoUMetric}, and the data that it needs."
    )


@pytest.mark.parametrize("config", ["mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco", "detection"])
def test_config_of_mmdet(refused, config):
    pytest.importorskip("mmdet")
    config = "pdiff_plugins.detection::fcos_r18_digits" if config == "detection" else config
    assert refused({"task.model": {"config": config}}) == (
        f"error: task.model.config: {config} is for mmdet, expected a config of mmseg. "
        "Give one whose default_scope is 'mmseg'."
    )


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        (f"{MODEL}.type", "EncoderDecodr", "cannot build its model (KeyError: 'EncoderDecodr is not in"),
        (f"{MODEL}.decode_head.colour", 3, "cannot build its model (TypeError: "),
        (f"{MODEL}.backbone.num_stages", 3, "cannot build its model (AssertionError: "),
    ],
)
def test_model_that_mmseg_cannot_build(refused, option, value, words):
    line = refused({option: value})
    assert line.startswith("error: task.model.config: ")
    assert words in line


def test_model_whose_parts_do_not_fit_each_other(refused):
    line = refused({f"{MODEL}.backbone.base_channels": 8})
    assert line.startswith("error: task.model.config: ")
    assert "expected input[2, 8, 64, 64] to have 4 channels, but got 8 channels" in line


def test_checkpoint_of_another_network(refused, segmented, tmp_path):
    line = refused({f"{MODEL}.decode_head.channels": 6, "task.model.checkpoint": str(segmented.base)})
    assert line == (
        f"error: task.model.checkpoint: {segmented.base} does not fit the network of task.model.config "
        "(decode_head.conv_seg.weight has the shape (11, 4, 1, 1), expected (11, 6, 1, 1)). "
        "Give the config that it was trained with."
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("decode_head.conv_seg.bias"), "it lacks 'decode_head.conv_seg.bias'; 1 missing, 0 un"),
        (lambda state: state.update(extra=torch.zeros(1)), "the network has no 'extra'; 0 missing, 1 unknown)"),
    ],
)
def test_checkpoint_that_does_not_fit(refused, segmented, tmp_path, change, words):
    from pdiff.runtime.storage import read_tensors

    state = read_tensors(segmented.base)
    change(state)
    torch.save({"state_dict": state}, tmp_path / "own.pth")
    line = refused({"task.model.checkpoint": str(tmp_path / "own.pth")})
    assert f"{tmp_path}/own.pth does not fit the network of task.model.config ({words}" in line


def test_checkpoint_that_is_not_there(refused, tmp_path):
    line = refused({"task.model.checkpoint": str(tmp_path / "none.pth")})
    assert line.startswith(f"error: {tmp_path}/none.pth: cannot be read (")


@pytest.mark.parametrize("split", ["select", "test"])
def test_pipeline_without_label_maps(refused, split):
    line = refused({f"task.model.options.{LOADERS[split]}.dataset.pipeline": [LOAD, PACK]})
    assert f"the pipeline of {split} loads no label map" in line


def test_pipeline_that_resizes_the_label_maps(refused):
    pipeline = [LOAD, LABELS, {"type": "Resize", "scale": 32}, PACK]
    line = refused({"task.model.options.test_dataloader.dataset.pipeline": pipeline})
    assert "the pipeline of test changes the size of the label maps" in line


@pytest.mark.parametrize("split", ["select", "test"])
def test_pipeline_that_fails(refused, split):
    pipeline = [LOAD, {"type": "Resize", "scale": [32, 32], "keep_ratio": True}, LABELS, PACK]  # mmcv wants a tuple
    line = refused({f"task.model.options.{LOADERS[split]}.dataset.pipeline": pipeline})
    assert line.startswith(f"error: task.model.config: the pipeline of {split} fails on the first image (TypeError: ")


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("module(auxiliary_head)", "got module(auxiliary_head), which is not in the network. Closest names: "),
        ("decode_head", "got unknown selector 'decode_head'. Known: "),
    ],
)
def test_selection_of_a_module_that_the_segmentor_does_not_have(refused, selector, words):
    assert refused({"select": selector}).startswith(f"error: select: {words}")


@pytest.mark.parametrize("path", ["task.signature_pixel", "task.data.train.image"])
def test_unknown_key(refused, path):
    section, _, key = path.rpartition(".")
    assert refused({path: 1}).startswith(f"error: {section}: got unknown key '{key}'. Did you mean '{key}s'?")


class Absent:
    """Hides a package, as if it were not installed."""

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name: str, path=None, target=None):
        """Refuse the package, and leave the others to those who know them."""
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("package", ["mmseg", "mmcv"])
def test_package_that_is_not_installed_is_named(refused, monkeypatch, package):
    monkeypatch.delitem(sys.modules, package)
    monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])
    line = f"error: plugin segmentation: needs the package {package}. Run: pip install 'pdiff[segmentation]'."
    assert refused({}) == line
